"""An edit whose stages are kept in a folder, and the same edit without one."""

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from dragnoise.engine import Editor, EditResult, Limits, Store
from dragnoise.engine.errors import CacheWarning
from sessions import PICTURE, POINTS, QUICK, editor
from tally import WHOLE

__all__ = ["KeptEdit", "cold", "edited", "same_bits"]

_CONFIG = QUICK.replace(iterations=1)


def edited(folder: Path | None, picture: Any = PICTURE, **limits: int) -> EditResult:
    """Edit with a new store on a folder, or without one; warnings of the cache are let be."""
    store = None if folder is None else Store(Limits(**limits), folder=folder)
    one = Editor(editor().model, cache=store)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        return one.edit(picture, POINTS, prompt="a face", config=_CONFIG)


@cache
def cold() -> EditResult:
    """Return the edit as it is without a cache."""
    return edited(None)


def same_bits(one: EditResult, other: EditResult) -> bool:
    """Whether two edits have the same picture and the same losses, to the bit."""
    return (
        one.image.pixels.tobytes() == other.image.pixels.tobytes()
        and one.history.losses.tobytes() == other.history.losses.tobytes()
    )


@dataclass
class KeptEdit:
    """A folder with the entries of one edit, which can be put right again.

    Attributes:
        folder: Of the cache.
        sound: The bytes of its entries by file name.
    """

    folder: Path
    sound: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        edited(self.folder)
        self.sound = {path.name: path.read_bytes() for path in self.entries()}
        assert len(self.sound) == 4, "embed, encode, rebuild, invert"

    def entries(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))

    def restore(self) -> None:
        """Put the folder into the state of after the first edit."""
        shutil.rmtree(self.folder)
        self.folder.mkdir(mode=0o700)
        for name, raw in self.sound.items():
            (self.folder / name).write_bytes(raw)

    def judged(self, lost: int) -> tuple[bool, str]:
        """Edit, and return whether it went well and what otherwise.

        In a small lot the picture is only prepared: all that is kept is in there.

        Args:
            lost: How many of the entries must not be found.
        """
        try:
            numbers = edited(self.folder) if WHOLE else _prepared(self.folder)
        except Exception as raw:  # noqa: BLE001 that is what is looked for
            return False, f"{type(raw).__name__}: {str(raw)[:100]}"
        right = True
        if isinstance(numbers, EditResult):
            right = same_bits(numbers, cold())
            numbers = numbers.cache
        hits = sum(stage["hits"].get("disk", 0) for stage in numbers["stages"].values())
        state = numbers["tiers"]["disk"]["state"]
        well = right and hits <= len(self.sound) - lost and state == "on" and self._are_sound()
        return well, f"bits {right}, {hits} found, {state}, entries sound {self._are_sound()}"

    def _are_sound(self) -> bool:
        """Whether every regular entry that lies there now has the tensors of the first edit."""
        return all(
            _tensors(path.read_bytes()) == _tensors(self.sound[path.name])
            for path in self.entries()
            if path.is_file() and path.name in self.sound
        )


def _prepared(folder: Path) -> Mapping[str, Any]:
    store = Store(folder=folder)
    one = Editor(editor().model, cache=store)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        one.open(PICTURE, prompt="a face", config=_CONFIG).prepare()
    return store.to_dict()


def _tensors(raw: bytes) -> bytes:
    return raw[8 + int.from_bytes(raw[:8], "little") :]
