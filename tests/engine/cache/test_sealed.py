"""Sealed files: values come back as they were; everything else is refused with a reason."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from dragnoise.engine.cache import BrokenError, read_sealed, write_sealed
from dragnoise.engine.cache.sealed import Json
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
    with pytest.raises(BrokenError, match="No such file"):
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
    with pytest.raises(BrokenError, match="its layout is 1, this release reads 2"):
        read_sealed(path, "tracks", (Track,), version=2)
    with pytest.raises(BrokenError, match="another release: no value can be built"):
        read_sealed(path, "tracks")
