"""Files in general."""

import os
from functools import partial
from pathlib import Path

import pytest

from dragnoise.engine.errors import SessionError
from dragnoise.engine.system.incoming import open_regular, read_bounded, read_json
from tally import Tally


def _fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def _link(path: Path, to: str) -> Path:
    path.symlink_to(to)
    return path


def test_things_that_are_no_regular_files(tmp_path: Path, tally: Tally) -> None:
    """FIFO, device, folder, dangling link, loop, nothing, null byte."""
    loop = _link(tmp_path / "loop", "loop")
    for path in (
        _fifo(tmp_path / "fifo"),
        _link(tmp_path / "zero", "/dev/zero"),
        _link(tmp_path / "fifo-link", "fifo"),
        Path("/dev/null"),
        tmp_path,
        _link(tmp_path / "dangling", "nowhere"),
        loop,
        tmp_path / "nothing",
        Path("null\0byte"),
        tmp_path / ("long" * 100),
    ):
        tally.refused(str(path), partial(open_regular, path, SessionError), SessionError)


@pytest.mark.parametrize("at_most", [1000])
def test_longer_than_allowed(tmp_path: Path, tally: Tally, at_most: int) -> None:
    """Sparse file of 10 TB, one byte too many."""
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(10 * 10**12)
    (tmp_path / "long").write_bytes(bytes(at_most + 1))
    for path in (sparse, tmp_path / "long"):
        tally.refused(path.name, partial(read_bounded, path, SessionError, at_most))


def test_broken_json(tmp_path: Path, tally: Tally) -> None:
    """JSON that is nested, endless, of another encoding, or cut."""
    whole = b'{"a": [1, 2.5, "x", null, true]}'
    file = tmp_path / "some.json"
    contents = [b"[" * 10**6, b"9" * 10**5, "{}".encode("utf-16"), b"\xff", b"", b"{} {}"]
    for content in contents:
        file.write_bytes(content)
        tally.refused(repr(content[:20]), lambda: read_json(file, SessionError), SessionError)
    for chance in tally.lot(small=20, whole=500):
        flipped = bytearray(whole)
        flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        file.write_bytes(flipped)
        tally.refused_or(repr(flipped), lambda: read_json(file, SessionError), lambda _: True)


def test_a_byte_order_mark_is_let_pass(tmp_path: Path) -> None:
    (tmp_path / "bom.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "bom.json", SessionError) == {"a": 1}
