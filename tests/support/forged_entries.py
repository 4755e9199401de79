"""Entries of a cache that somebody else has made: each kind is a change of a sound one."""

import json
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load, save

from dragnoise.engine.cache.digest import bytes_digest
from dragnoise.engine.cache.entry import seal_entry
from dragnoise.engine.cache.sealed import seal

__all__ = ["FORGED"]

_ABOUT = {"stage": "s", "made_ms": 1.0, "structure": None}


def _metadata(raw: bytes) -> dict[str, str]:
    return dict(json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"])


def _name(raw: bytes) -> str:
    return str(json.loads(_metadata(raw)["about"])["name"])


def _with_nan(raw: bytes) -> bytes:
    return raw[:-4] + torch.tensor([torch.nan]).numpy().tobytes()


def _redigested(raw: bytes) -> bytes:
    """Change the tensors, and every digest that can be computed without a key."""
    metadata = _metadata(raw)
    begin = 8 + int.from_bytes(raw[:8], "little")
    changed = _with_nan(raw)
    changed = changed.replace(metadata["data"].encode(), bytes_digest(changed[begin:]).encode())
    blank = changed.replace(metadata["digest"].encode(), b"0" * 64)
    return changed.replace(metadata["digest"].encode(), bytes_digest(blank).encode())


def _sealed(key: bytes) -> Callable[[bytes], bytes]:
    """Make another entry of the same name with another key."""
    return lambda raw: seal_entry(_name(raw), json.loads(_metadata(raw)["about"]), _spans(raw), key)


def _spans(raw: bytes) -> list[torch.Tensor]:
    return [torch.zeros_like(span) for span in load(raw).values()]


def _retold(**about: Any) -> Callable[[bytes], bytes]:
    """Change what the header says, and nothing else."""

    def change(raw: bytes) -> bytes:
        metadata = _metadata(raw)
        metadata["about"] = json.dumps(json.loads(metadata["about"]) | about)
        return save(load(raw), metadata=metadata)

    return change


def _with_header(header: bytes) -> Callable[[bytes], bytes]:
    return lambda raw: len(header).to_bytes(8, "little") + header


def _with_fields(**fields: Any) -> Callable[[bytes], bytes]:
    plain = {"about": "{}", "data": "0" * 64, "digest": "0" * 64}
    return _with_header(json.dumps({"__metadata__": plain | fields}).encode())


FORGED: dict[str, Callable[[bytes], bytes]] = {
    "NaN in its tensors": _with_nan,
    "NaN in its tensors, digests put right": _redigested,
    "sealed with another key": _sealed(b"another's"),
    "sealed without a key": _sealed(b""),
    "of a saved file's format": lambda raw: seal(_name(raw), _ABOUT, _spans(raw)),
    "longer": lambda raw: raw + b"\0",
    "shorter": lambda raw: raw[:-1],
    "empty": lambda raw: b"",
    "eight bytes": lambda raw: raw[:8],
    "another structure": _retold(structure={"value": 1}),
    "a structure without a bottom": _retold(structure=json.loads("[" * 900 + "]" * 900)),
    "another stage": _retold(stage=["s"]),
    "another name": _retold(name="f" * 64),
    "a number that is endless": _retold(made_ms=10**400),
    "a header of 2^63 bytes": lambda raw: (2**63).to_bytes(8, "little") + raw[8:],
    "a header of 2^64 - 1 bytes": lambda raw: (2**64 - 1).to_bytes(8, "little") + raw[8:],
    "no JSON": _with_header(b"pickle"),
    "nested JSON": _with_header(b"[" * 100_000),
    "a list for a header": _with_header(b"[]"),
    "no metadata": _with_header(b"{}"),
    "metadata of another type": _with_header(b'{"__metadata__": 5}'),
    "about of another type": _with_fields(about=5),
    "about nested": _with_fields(about="[" * 100_000),
    "about that is no object": _with_fields(about="[]"),
    "a digest of another type": _with_fields(digest=5),
    "a digest that is no text": _with_fields(digest="\ud800" * 64),
    "data of another type": _with_fields(data=[]),
    "nothing but the fields": _with_fields(),
}
"""By name, what makes a forged entry of the bytes of a sound one."""
