"""Read and write adapters' files: every spelling of a plain LoRA, and the others by their names.

A file is safetensors. Of a layer it has A ("down") and B ("up"), and perhaps alpha:

    diffusers    unet.<layer>.lora_A.weight    unet.<layer>.lora_B.weight    alpha in the header
    PEFT         base_model.model.<layer>.lora_A.weight ...                  alpha in a file beside
    kohya        lora_unet_<layer>.lora_down.weight  ...lora_up.weight       ...alpha
    diffusers    <layer>.processor.to_q_lora.down.weight ...                 (before 0.17)

What we write also holds the digest of its own bytes, so that a flipped bit is noticed.
"""

import json
import math
import re
import reprlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import load, save
from torch import Tensor

from ...cache.digest import bytes_digest
from ...errors import AdapterError, InputWarning
from ...system.incoming import read_bounded, read_json, shown, told_as
from .foreign import foreign_kind, is_of_text_encoder, trained_for
from .names import layer_name

__all__ = ["FILE", "Matrices", "file_bytes", "read_adapter"]

Matrices: TypeAlias = tuple[tuple[str, Tensor, Tensor], ...]
"""(layer, A [r, in], B [out, r]) each, sorted by layer; alpha / r is in B."""

FILE = "pytorch_lora_weights.safetensors"
"""Name that diffusers gives the file in a folder."""

_PEFT_FILE = "adapter_model.safetensors"
_PEFT_SETTINGS = "adapter_config.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")

_MOST_BYTES = 4 * 2**30
_SETTINGS_BYTES = 2**20

_DIGEST = "dragnoise_digest"
_BLANK = "0" * 64

_FLOATS = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2),
)

_DOWN = re.compile(r"(.+?)(\.lora_A(\.\w+)?|\.lora_down|\.lora\.down|_lora\.down)\.weight")
_UP = re.compile(r"(.+?)(\.lora_B(\.\w+)?|\.lora_up|\.lora\.up|_lora\.up)\.weight")
_ALPHA = re.compile(r"(.+)\.alpha")

_INSTEAD = "merge it into the model's weights with the tool that trained it, and give that model"

_ON_CHANGED_WEIGHTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""PEFT's ways to begin a training that change the model's own weights too."""


def file_bytes(matrices: Matrices) -> bytes:
    """Return the file of an adapter, as diffusers writes it, with its digest."""
    tensors = {}
    for layer, down, up in matrices:
        tensors[f"unet.{layer}.lora_A.weight"] = down.detach().cpu().contiguous()
        tensors[f"unet.{layer}.lora_B.weight"] = up.detach().cpu().contiguous()
    raw = _in_order(save(tensors, metadata={"format": "pt", _DIGEST: _BLANK}))
    return raw.replace(_field(_BLANK), _field(bytes_digest(raw)), 1)


def _in_order(raw: bytes) -> bytes:
    """Return a file with its remarks sorted, so that one adapter is the same bytes every time."""
    header, end = _header(raw)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + raw[end:]


def read_adapter(path: Path) -> tuple[Path, Matrices]:
    """Read a file, or the one in a folder, and return it with what it holds.

    Nothing of it stays mapped: whoever writes the file anew changes nothing that was read.

    Raises:
        AdapterError: For what is no plain LoRA of a U-Net's linear layers, with what it is.
    """
    with told_as(AdapterError, f"no adapter can be read from {str(path)!r}"):
        file = _file_in(path)
    cannot = f"no adapter can be read from {str(file)!r}"
    with told_as(AdapterError, cannot):
        raw = read_bounded(file, AdapterError, _MOST_BYTES)
        tensors = load(raw)
        metadata = _metadata(raw)
    _check_digest(file, raw, metadata.get(_DIGEST))
    with told_as(AdapterError, cannot):
        matrices = _matrices(file, tensors, _settings(file, metadata))
    for remark in _remarks(tensors, matrices):
        warnings.warn(f"{str(file)!r} {remark}", InputWarning, stacklevel=3)
    return file, matrices


def _file_in(path: Path) -> Path:
    """Return the adapter's file in a folder; a file itself. Raises AdapterError."""
    if not path.is_dir():
        if path.suffix.lower() in _PICKLES and path.exists():
            raise _pickled(path)
        if not path.exists():
            raise AdapterError(
                f"no adapter can be read from {str(path)!r}: there is no such file; "
                "give a .safetensors file, or the folder that has one"
            )
        return path
    files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    by_name = {file.name.lower(): file for file in files}
    for name in (FILE, _PEFT_FILE):
        if name in by_name:
            return by_name[name]
    fitting = [file for file in files if file.suffix.lower() == ".safetensors"]
    if len(fitting) == 1:
        return fitting[0]
    pickles = [file for file in files if file.suffix.lower() in _PICKLES]
    if pickles and not fitting:
        raise _pickled(pickles[0])
    raise AdapterError(
        f"no adapter can be read from {str(path)!r}: the folder has no {FILE}, and "
        f"{len(fitting) or 'no'} other .safetensors files; give the file itself"
    )


def _pickled(path: Path) -> AdapterError:
    target = path.with_suffix(".safetensors")
    return AdapterError(
        f"{str(path)!r} is a pickle, which can run code; if you trust it, convert it: python -c "
        f'"import torch, safetensors.torch as s; s.save_file({{k: v.contiguous().clone() for k, v '
        f"in torch.load({str(path)!r}, map_location='cpu', weights_only=True).items()}}, "
        f'{str(target)!r})"'
    )


def _metadata(raw: bytes) -> dict[str, str]:
    """Return what the header says beside the tensors."""
    return dict(_header(raw)[0].get("__metadata__") or {})


def _header(raw: bytes) -> tuple[dict[str, Any], int]:
    """Return a file's header and where it ends."""
    end = 8 + int.from_bytes(raw[:8], "little")
    return dict(json.loads(raw[8:end])), end


def _check_digest(file: Path, raw: bytes, digest: str | None) -> None:
    """Refuse a file of ours that is not as it was written; others hold no digest."""
    if digest is None:
        return
    if bytes_digest(raw.replace(_field(digest), _field(_BLANK), 1)) != digest:
        raise AdapterError(
            f"{str(file)!r} is damaged: its bytes are not those that were written; "
            "learn the picture again, or take another copy"
        )


def _field(digest: str) -> bytes:
    return f'"{_DIGEST}":"{digest}"'.encode()


def _settings(file: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Read PEFT's settings of an adapter.

    diffusers writes them into the file's header, PEFT into a file beside it.
    """
    beside = file.with_name(_PEFT_SETTINGS)
    settings: Any = {}
    if "lora_adapter_metadata" in metadata:
        with told_as(AdapterError, f"the settings of {str(file)!r} cannot be read"):
            settings = json.loads(metadata["lora_adapter_metadata"])
    elif file.name.lower() == _PEFT_FILE and beside.exists():
        settings = read_json(beside, AdapterError, _SETTINGS_BYTES)
    if not isinstance(settings, dict):
        raise AdapterError(
            f"the settings of {str(file)!r} must be a JSON object, got {type(settings).__name__}"
        )
    told = {name.removeprefix("unet."): value for name, value in settings.items()}
    _check_settings(file, told)
    return told


def _check_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Refuse settings by which the matrices are no plain LoRA's."""
    kind = settings.get("peft_type") or "LORA"
    begun = str(settings.get("init_lora_weights")).lower()
    if settings.get("use_dora"):
        kind = "DoRA"
    elif begun.startswith(_ON_CHANGED_WEIGHTS):
        kind = f"LoRA begun with {reprlib.repr(begun)}, which changes the model's own weights too"
    if kind != "LORA":
        told = kind if isinstance(kind, str) and len(kind) < 100 else reprlib.repr(kind)
        raise AdapterError(f"{str(file)!r} is of kind {shown(told)}; {_INSTEAD}")
    if not isinstance(settings.get("use_rslora") or False, bool):
        raise AdapterError(
            f"the settings of {str(file)!r} must have true or false for use_rslora, "
            f"got {reprlib.repr(settings['use_rslora'])}"
        )


def _matrices(file: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Matrices:
    """Return A and B of every layer, alpha / r in B. Raises AdapterError."""
    ours = {name: value for name, value in tensors.items() if not is_of_text_encoder(name)}
    downs, ups, alphas = (_named(ours, pattern) for pattern in (_DOWN, _UP, _ALPHA))
    _check_names(file, tensors, downs, ups, alphas)
    matrices = []
    for name, (own, tensor) in downs.items():
        layer = layer_name(name)
        down = _matrix(file, layer, own, tensor)
        up = _matrix(file, layer, *ups[name])
        if len(down) != up.shape[1] or not len(down):
            raise AdapterError(
                f"{str(file)!r}: {shown(layer)} has matrices {list(down.shape)} and "
                f"{list(up.shape)}; their ranks must be equal and above 0"
            )
        rank = len(down)
        alpha = _alpha(layer, alphas[name][1] if name in alphas else None, settings, rank)
        up = up * (alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank))
        if not (down.isfinite().all() and up.isfinite().all()):
            raise AdapterError(
                f"{str(file)!r}: {shown(layer)} is not finite; its training has failed"
            )
        matrices.append((layer, down, up))
    return tuple(sorted(matrices, key=lambda entry: entry[0]))


_Named: TypeAlias = Mapping[str, tuple[str, Tensor]]
"""(its whole name, a tensor) by the name of its layer, as the file spells it."""


def _named(
    tensors: Mapping[str, Tensor], pattern: re.Pattern[str]
) -> dict[str, tuple[str, Tensor]]:
    """Return the tensors of a pattern by the name that is left of what it ends with."""
    found: dict[str, tuple[str, Tensor]] = {}
    for name, value in tensors.items():
        if match := pattern.fullmatch(name):
            if match[1] in found:
                raise AdapterError(
                    f"the adapter changes {shown(match[1])} more than once, by "
                    f"{shown(found[match[1]][0])} and {shown(name)}; keep one of them"
                )
            found[match[1]] = name, value
    return found


def _check_names(
    file: Path, tensors: Mapping[str, Tensor], downs: _Named, ups: _Named, alphas: _Named
) -> None:
    """Refuse a file that has other tensors than pairs of matrices, by what kind it is."""
    if family := trained_for(tensors):
        raise AdapterError(f"{str(file)!r} was made for another model, {family}")
    known = {name for found in (downs, ups, alphas) for name, _ in found.values()}
    foreign = [name for name in tensors if name not in known and not is_of_text_encoder(name)]
    if unlike := next((name for name in tensors if foreign_kind(name)), ""):
        raise AdapterError(
            f"{str(file)!r} is {foreign_kind(unlike)} (it has {shown(unlike)!r}), which is not "
            f"read; {_INSTEAD}"
        )
    if not downs or downs.keys() != ups.keys() or foreign or alphas.keys() - downs.keys():
        unpaired = next(iter(downs.keys() ^ ups.keys() or alphas.keys() - downs.keys()), "nothing")
        of_text = next((name for name in tensors if is_of_text_encoder(name)), unpaired)
        seen = foreign[0] if foreign else (of_text if not downs else unpaired)
        raise AdapterError(
            f"{str(file)!r} is not an adapter of a U-Net's linear layers: it has {shown(seen)!r}"
        )


def _remarks(tensors: Iterable[str], matrices: Matrices) -> Iterator[str]:
    """Yield what a reader ought to know of a file that is read."""
    of_text = [name for name in tensors if is_of_text_encoder(name)]
    if of_text:
        layers = {name.partition(".lora")[0].removesuffix(".alpha") for name in of_text}
        yield (
            f"also changes {len(layers)} layers of the text encoder ({shown(min(layers))}, ...); "
            "they are left out: only the U-Net is adapted"
        )
    if not any(up.any() for _, _, up in matrices):
        yield "changes nothing: its matrices B, or its alphas, are zero"


def _matrix(file: Path, layer: str, name: str, tensor: Tensor) -> Tensor:
    """Return a matrix in float32; a 1 x 1 convolution of a transformer is one too."""
    if tensor.dtype not in _FLOATS:
        raise AdapterError(
            f"{str(file)!r}: {shown(name)} is {str(tensor.dtype).removeprefix('torch.')}; "
            "an adapter's matrices are real floats"
        )
    projection = layer.endswith((".proj_in", ".proj_out"))
    if tensor.ndim == 4 and not (projection and tensor.shape[2:] == (1, 1)):
        size = "x".join(map(str, tensor.shape[2:]))
        raise AdapterError(
            f"{str(file)!r} is LoCon: it changes a convolution ({shown(layer)}, {size}), which "
            f"this engine does not adapt; train it without conv_dim, or {_INSTEAD}"
        )
    matrix = tensor.flatten(1) if tensor.ndim == 4 else tensor
    if matrix.ndim != 2:
        raise AdapterError(
            f"{str(file)!r}: {shown(name)} must be a matrix, got {list(tensor.shape)}"
        )
    return matrix.float()


def _alpha(layer: str, own: Tensor | None, settings: Mapping[str, Any], rank: int) -> float:
    """Return alpha of a layer.

    Its own tensor, else the first matching `alpha_pattern`, else `lora_alpha`, else the rank.
    PEFT's patterns are regular expressions; from a file only plain names are taken, which is what
    diffusers writes.
    """
    patterns = settings.get("alpha_pattern") or {}
    odd = [patterns]
    if isinstance(patterns, dict):
        odd = [pattern for pattern in patterns if not re.fullmatch(r"[\w.]+", pattern)]
    if odd:
        raise AdapterError(
            f"the adapter's alpha_pattern has {reprlib.repr(odd[0])}; write the layers' names out"
        )
    matching = (alpha for ending, alpha in patterns.items() if f".{layer}".endswith(f".{ending}"))
    alpha: Any = next(matching, settings.get("lora_alpha", rank))
    if own is not None:
        alpha = own.item() if own.numel() == 1 else f"a tensor {list(own.shape)}"
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or abs(alpha) > 1e30:
        raise AdapterError(
            f"the adapter's alpha of {shown(layer)} must be a number, got {reprlib.repr(alpha)}"
        )
    return float(alpha)
