"""Sealed files: values come back as they were; everything else is refused with a reason."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from dragnoise.engine.cache import BrokenError, read_sealed, write_sealed
from dragnoise.engine.cache.sealed import Json, LayoutError
from dragnoise.engine.errors import OutputError

ABOUT: dict[str, Json] = {
    "model": "abc",
    "version": "the caller's own",
    "settings": {"lr": 0.1, "size": [1, 2]},
}


class Track(NamedTuple):
    point: Tensor
    losses: tuple[float, ...]


def value() -> tuple[Track, None, str]:
    return Track(torch.arange(6.0).view(2, 3).t(), (0.5, 0.25)), None, 'a "ring"'


def test_a_value_comes_back_with_what_was_said_about_it(tmp_path: Path) -> None:
    path = write_sealed(tmp_path / "a.safetensors", "tracks", ABOUT, value(), (Track,), version=3)
    sealed = read_sealed(path, "tracks", (Track,), version=3)
    assert sealed.about == ABOUT
    track, nothing, text = sealed.value
    assert (nothing, text) == (None, 'a "ring"')
    assert type(track) is Track
    assert torch.equal(track.point, value()[0].point)
    assert track.point.stride() == value()[0].point.stride()
    assert track.losses == (0.5, 0.25)


def test_it_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not end in a known kind of file"):
        write_sealed(tmp_path / "a.png", "tracks", {}, value(), (Track,))
    with pytest.raises(TypeError, match="Track is no kind that can be kept"):
        write_sealed(tmp_path / "a.safetensors", "tracks", {}, value())
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_missing_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokenError, match="no file at"):
        read_sealed(tmp_path / "a.safetensors", "tracks")
    path = write_sealed(tmp_path / "a.safetensors", "tracks", ABOUT, value(), (Track,))
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(BrokenError, match="its digest does not match"):
        read_sealed(path, "tracks", (Track,))
    path.write_bytes(raw[:20])
    with pytest.raises(BrokenError, match="its header cannot be read"):
        read_sealed(path, "tracks", (Track,))


def test_a_file_of_another_sort_or_release_is_refused(tmp_path: Path) -> None:
    path = write_sealed(tmp_path / "a.safetensors", "tracks", ABOUT, value(), (Track,))
    with pytest.raises(BrokenError, match="another format or another entry"):
        read_sealed(path, "session", (Track,))
    with pytest.raises(LayoutError, match=r"layout is 1, this release reads 2; read it with drag"):
        read_sealed(path, "tracks", (Track,), version=2)
    with pytest.raises(LayoutError, match="layout is 1, this release reads 0; update dragnoise"):
        read_sealed(path, "tracks", (Track,), version=0)
    with pytest.raises(BrokenError, match="not what was written: no value can be built"):
        read_sealed(path, "tracks")


def test_another_layout_is_told_before_its_digest(tmp_path: Path) -> None:
    path = write_sealed(tmp_path / "a.safetensors", "tracks", ABOUT, value(), (Track,), version=7)
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(LayoutError, match="update dragnoise"):
        read_sealed(path, "tracks", (Track,))


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.touch(0o644)
    write_sealed(path, "tracks", ABOUT, value(), (Track,))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_small_file_has_no_large_tensors(tmp_path: Path) -> None:
    bomb = torch.zeros(1).expand(10**6, 10**6)
    views = tuple(torch.zeros(100).as_strided((50 + n,), (1,)) for n in range(50))
    memory = torch.zeros(100)
    shared = tuple(memory[: 50 + n] for n in range(50))
    for number, (wrong, fine) in enumerate([(bomb, False), (shared, False), (views, True)]):
        path = write_sealed(tmp_path / f"{number}.safetensors", "bomb", {}, wrong)
        assert path.stat().st_size < 40_000
        if fine:
            read_sealed(path, "bomb")
        else:
            with pytest.raises(BrokenError, match="its tensors have more than"):
                read_sealed(path, "bomb")
