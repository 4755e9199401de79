"""An entry of the store: believed only with the user's seal, and read only as far as it is."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from dragnoise.engine.cache import BrokenError
from dragnoise.engine.cache.digest import bytes_digest
from dragnoise.engine.cache.entry import read_entry, read_head, seal_entry
from dragnoise.engine.cache.sealed import seal
from stored_values import key

KEY = b"the user's"
ABOUT = {"stage": "s", "made_ms": 1.0, "structure": None}


def sealed(name: str = key(), key_: bytes = KEY, number: float = 1.0) -> bytes:
    return seal_entry(name, ABOUT, [torch.full((64,), number).view(torch.uint8)], key_)


def other_data(raw: bytes) -> bytes:
    return raw[:-4] + torch.tensor([torch.nan]).numpy().tobytes()


def redigested(raw: bytes) -> bytes:
    """Change the tensors, and every digest that can be computed without a key."""
    changed = other_data(raw)
    begin = 8 + int.from_bytes(raw[:8], "little")
    metadata = json.loads(raw[8:begin])["__metadata__"]
    changed = changed.replace(metadata["data"].encode(), bytes_digest(changed[begin:]).encode())
    blank = changed.replace(metadata["digest"].encode(), b"0" * 64)
    return changed.replace(metadata["digest"].encode(), bytes_digest(blank).encode())


def retold(**about: Any) -> Callable[[bytes], bytes]:
    """Change what the header says, and nothing else."""

    def change(raw: bytes) -> bytes:
        metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
        metadata["about"] = json.dumps(json.loads(metadata["about"]) | about)
        return save(load(raw), metadata=metadata)

    return change


def with_header(header: bytes) -> Callable[[bytes], bytes]:
    return lambda raw: len(header).to_bytes(8, "little") + header


def with_fields(**fields: Any) -> Callable[[bytes], bytes]:
    plain = {"about": "{}", "data": "0" * 64, "digest": "0" * 64}
    return with_header(json.dumps({"__metadata__": plain | fields}).encode())


FORGED: dict[str, Callable[[bytes], bytes]] = {
    "other tensors": other_data,
    "other tensors, digests put right": redigested,
    "sealed with another key": lambda raw: sealed(key_=b"another's"),
    "sealed without a key": lambda raw: sealed(key_=b""),
    "another entry's": lambda raw: sealed(key(1)),
    "of a saved file's format": lambda raw: seal(key(), ABOUT, [torch.zeros(3)]),
    "longer": lambda raw: raw + b"\0",
    "shorter": lambda raw: raw[:-1],
    "empty": lambda raw: b"",
    "eight bytes": lambda raw: raw[:8],
    "another structure": retold(structure={"value": 1}),
    "another stage": retold(stage=["s"]),
    "a number that is endless": retold(made_ms=10**400),
    "a header of 2^63 bytes": lambda raw: (2**63).to_bytes(8, "little") + raw[8:],
    "no JSON": with_header(b"pickle"),
    "nested JSON": with_header(b"[" * 100_000),
    "a list for a header": with_header(b"[]"),
    "no metadata": with_header(b"{}"),
    "metadata of another type": with_header(b'{"__metadata__": 5}'),
    "about of another type": with_fields(about=5),
    "about nested": with_fields(about="[" * 100_000),
    "about that is no object": with_fields(about="[]"),
    "a digest of another type": with_fields(digest=5),
    "a digest that is no text": with_fields(digest="\ud800" * 64),
    "data of another type": with_fields(data=[]),
    "nothing but the fields": with_fields(),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_entry_is_refused(kind: str, tmp_path: Path) -> None:
    raw = sealed()
    path = tmp_path / "entry"
    path.write_bytes(raw)
    with path.open("rb") as file:
        about, (tensor,) = read_entry(file, key(), KEY)
    assert (about["stage"], len(tensor)) == ("s", 256)
    path.write_bytes(FORGED[kind](raw))
    with path.open("rb") as file, pytest.raises(BrokenError):
        read_entry(file, key(), KEY)


def test_a_header_is_believed_before_anything_behind_it_is_read(tmp_path: Path) -> None:
    class Counting(io.FileIO):
        taken = 0

        def read(self, size: int | None = -1) -> bytes:
            raw = super().read(-1 if size is None else size)
            self.taken += len(raw)
            return raw

    raw = sealed()
    header = 8 + int.from_bytes(raw[:8], "little")
    path = tmp_path / "entry"
    path.write_bytes(raw)
    with Counting(path) as file:
        assert read_head(file, key(), KEY)["stage"] == "s"
        assert file.taken == header
    with path.open("r+b") as endless:
        endless.truncate(10 * 10**12)
    with Counting(path) as file:
        with pytest.raises(BrokenError, match="damaged, or not sealed with this user's key"):
            read_entry(file, key(), KEY)
        assert file.taken == header
