"""Find a network's weights in its folder: one file or several, in one of several variants.

As diffusers and transformers name them: `model.safetensors`, `model.fp16.safetensors`,
`model-00001-of-00002.safetensors`, `model.fp16-00001-of-00002.safetensors` with an index that says
which tensors are where (`model.safetensors.index.fp16.json`), and the same as `.bin`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import ModelError
from ...system.incoming import read_json, told_as
from .stored import SAFE

__all__ = ["Weighed", "names_in", "weights_of"]

_BASES = "diffusion_pytorch_model|pytorch_model|model"
_FILE = re.compile(
    rf"(?:{_BASES})(?:\.(?P<variant>\w[\w-]*?))?(?:-(?P<number>\d{{5}})-of-(?P<count>\d{{5}}))?"
    r"(?:\.(?P<late>\w[\w-]*))?(?P<ending>\.safetensors|\.bin)",
    re.IGNORECASE,
)
_INDEX = re.compile(
    rf"(?:{_BASES})(?:\.(?P<variant>\w[\w-]*))?(?P<ending>\.safetensors|\.bin)\.index"
    r"(?:\.(?P<late>\w[\w-]*))?\.json",
    re.IGNORECASE,
)


@dataclass
class _Set:
    """The files of one variant, of one kind."""

    whole: str = ""
    shards: dict[int, str] = field(default_factory=dict)
    count: int = 0
    index: str = ""


@dataclass(frozen=True)
class Weighed:
    """The files that a network's weights are read from.

    Attributes:
        files: In order.
        variant: Theirs; "" for the usual ones.
    """

    files: tuple[Path, ...]
    variant: str


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, in order, without hidden ones.

    macOS leaves a `._config.json` beside every `config.json` that it copies to another disk.
    """
    with told_as(ModelError, f"{str(folder)!r} could not be read"):
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def weights_of(folder: Path, variant: str | None, allow_pickle: bool) -> Weighed:
    """Return the files of a network's weights.

    The variant that is asked for; where the network has none of it, the usual files; where it has
    none of these either, the only variant there is. Safetensors before pickles.

    Args:
        folder: Of the network.
        variant: Of the files ("fp16"); None for the usual ones.
        allow_pickle: Whether a pickle will do.

    Raises:
        ModelError: Where there are none, or it is not clear which.
    """
    safe, pickles = _sets(folder, SAFE), _sets(folder, ".bin")
    if not safe and not pickles:
        raise ModelError(f"{str(folder)!r} has no weights; fetch the folder again, whole")
    kinds = [safe, pickles] if allow_pickle else [safe]
    for name in (variant or "", ""):
        for sets in kinds:
            if name in sets:
                return Weighed(_files(folder, sets[name]), name)
    for sets in kinds:
        if len(sets) == 1:
            [(name, only)] = sets.items()
            return Weighed(_files(folder, only), name)
    if not safe and not allow_pickle:
        first = next(iter(pickles.values()))
        seen = first.whole or first.index or first.shards[min(first.shards)]
        raise ModelError(
            f"{str(folder)!r} has its weights in a pickle, {seen}; convert it to "
            ".safetensors, or allow pickles (which can run code) with allow_pickle=True "
            "(--allow-pickle)"
        )
    found = ", ".join(dict.fromkeys(name or "the usual" for sets in kinds for name in sets))
    raise ModelError(
        f"{str(folder)!r} has weights of several variants, {found}; choose one with variant= "
        "(--variant)"
    )


def _sets(folder: Path, ending: str) -> dict[str, _Set]:
    """Return the sets of files of a kind that a folder has, by variant."""
    sets: dict[str, _Set] = {}
    for name in names_in(folder):
        for pattern in (_FILE, _INDEX):
            said = pattern.fullmatch(name)
            if said is None or said["ending"].lower() != ending:
                continue
            files = sets.setdefault(said["variant"] or said["late"] or "", _Set())
            if pattern is _INDEX:
                files.index = name
            elif said["number"] is None:
                files.whole = name
            else:
                files.shards[int(said["number"])] = name
                files.count = int(said["count"])
    return sets


def _files(folder: Path, files: _Set) -> tuple[Path, ...]:
    """Return the paths of a set's files, all of them in the folder and of one kind."""
    listed = _listed(folder / files.index) if files.index else set()
    if files.whole:
        return (folder / files.whole,)
    if not listed and len(files.shards) != files.count:
        raise ModelError(
            f"{str(folder)!r} has {len(files.shards)} of {files.count} parts of its weights; fetch "
            "the folder again, whole"
        )
    return tuple(folder / name for name in sorted(listed or files.shards.values()))


def _listed(index: Path) -> set[str]:
    """Return the files that an index names.

    Raises:
        ModelError: If one would lie outside the folder, or is of another kind than the index.
    """
    ending = index.name.lower().partition(".index")[0].rpartition(".")[2]
    said: Any = read_json(index, ModelError)
    with told_as(ModelError, f"{str(index)!r} is no index of weights"):
        names = set(said["weight_map"].values())
        strange = sorted(_strange(names, f".{ending}"), key=repr)
    if strange or not names:
        raise ModelError(
            f"{str(index)!r} names {', '.join(map(repr, strange[:3])) or 'no file'}; it may name "
            f".{ending} files beside it alone"
        )
    return names


def _strange(names: Iterable[Any], ending: str) -> Iterable[Any]:
    for name in names:
        plain = isinstance(name, str) and not name.startswith(".") and not set(name) & set("/\\\0")
        if not plain or not name.lower().endswith(ending):
            yield name
