"""An entry of the store: believed only with the user's seal, and read only as far as it is."""

import io
from pathlib import Path

import pytest
import torch

from dragnoise.engine.cache import BrokenError
from dragnoise.engine.cache.entry import read_entry, read_head, seal_entry
from forged_entries import FORGED
from stored_values import key

KEY = b"the user's"
ABOUT = {"stage": "s", "made_ms": 1.0, "structure": None}


def sealed(name: str = key()) -> bytes:
    return seal_entry(name, ABOUT, [torch.ones(64).view(torch.uint8)], KEY)


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_entry_is_refused(kind: str, tmp_path: Path) -> None:
    raw = sealed()
    path = tmp_path / "entry"
    path.write_bytes(raw)
    with path.open("rb") as file:
        about, (tensor,) = read_entry(file, key(), KEY)
    assert (about["stage"], len(tensor)) == ("s", 256)
    forged = FORGED[kind](raw)
    assert forged != raw
    path.write_bytes(forged)
    with path.open("rb") as file, pytest.raises(BrokenError):
        read_entry(file, key(), KEY)


def test_another_entrys_contents_are_refused(tmp_path: Path) -> None:
    (tmp_path / "entry").write_bytes(sealed(key(1)))
    with (tmp_path / "entry").open("rb") as file, pytest.raises(BrokenError, match="another entry"):
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
