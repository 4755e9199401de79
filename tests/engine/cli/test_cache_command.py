"""`dragnoise personalise` and `dragnoise cache`: learn, edit with what was learned, look, clear."""

import shlex
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from command_line import ON_GOLDEN, printed, run
from dragnoise.engine import Adapter
from dragnoise.engine.training.lora import LoraTraining


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A picture of noise, 64 x 64 pixels."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_an_adapter_is_learned_and_kept(
    noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Learn, drag with what was learned, drag again without inverting, then look and clear."""
    folder = tmp_path / "cache"
    adapter = tmp_path / "a_adapter.safetensors"
    common = [*ON_GOLDEN, "--cache", folder, "--json"]
    learn = shlex.split("--steps 2 --rank 2 --batch 1")
    assert run("personalise", noise, *learn, *common) == 0
    document = printed(capsys)
    assert document["written"] == [str(adapter)]
    assert (len(document["losses"]), document["rank"]) == (2, 2)
    assert document["settings"]["lr"] == 5e-4
    drag = shlex.split("--drag 20,20:40,40 --steps 10 --strength 0.2 --iterations 1")
    first, second = (_edit(capsys, noise, *drag, "--adapter", adapter, *common) for _ in range(2))
    assert "invert" in first["timings_ms"]
    assert "invert" not in second["timings_ms"]
    assert second["cache"]["stages"]["invert"]["hits"] == {"disk": 1}
    assert first["settings"]["adapter"][1] == 1.0
    assert run("cache", "ls", "--folder", folder) == 0
    listed = capsys.readouterr().out
    for stage in ("embed", "encode", "rebuild", "invert", "personalise"):
        assert f"  {stage} " in listed
    _verify_and_clear(folder, capsys)


def _edit(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert run("edit", *words) == 0
    return printed(capsys)


def _verify_and_clear(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cache", "verify", "--folder", folder, "--json") == 0
    assert printed(capsys) == {"folder": str(folder), "sound": 5, "set_aside": []}
    broken = next(folder.glob("*.safetensors"))
    broken.write_bytes(broken.read_bytes()[:-1])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run("cache", "verify", "--folder", folder) == 1
    out = capsys.readouterr()
    assert "4 sound, 1 set aside" in out.out
    assert "it is damaged, or not sealed with this user's key" in out.err
    assert run("cache", "clear", "--folder", folder, "--json") == 0
    assert printed(capsys)["removed"] == 5
    assert list(folder.iterdir()) == []


def test_an_interrupted_training_goes_on(
    noise: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = tmp_path / "state.safetensors"
    whole = tmp_path / "whole.safetensors"
    learn = ["personalise", noise, *shlex.split("--steps 4 --rank 2 --batch 1 --json"), *ON_GOLDEN]
    advance = LoraTraining.advance
    trainings = []

    def interrupted(training: LoraTraining) -> float:
        trainings.append(training)
        if len(trainings) == 3:
            raise KeyboardInterrupt
        return advance(training)

    assert run(*learn, "-o", whole) == 0
    capsys.readouterr()
    monkeypatch.setattr(LoraTraining, "advance", interrupted)
    assert run(*learn, "--state", state) == 130
    assert f"interrupted; go on with --state {str(state)!r}" in capsys.readouterr().err
    monkeypatch.undo()
    assert run(*learn, "--state", state) == 0
    document = printed(capsys)
    assert len(document["losses"]) == 2
    assert not state.exists()
    assert Path(document["written"][0]).read_bytes() == whole.read_bytes()


def test_what_was_learned_is_kept_where_its_folder_has_gone(
    noise: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is written into the temporary folder instead, and said where."""
    (folder := tmp_path / "out").mkdir()
    (spare := tmp_path / "spare").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spare))
    advance = LoraTraining.advance

    def and_remove(training: LoraTraining) -> float:
        shutil.rmtree(folder, ignore_errors=True)
        return advance(training)

    monkeypatch.setattr(LoraTraining, "advance", and_remove)
    learn = ["personalise", noise, *shlex.split("--steps 1 --rank 2 --batch 1"), *ON_GOLDEN]
    assert run(*learn, "-o", folder / "a.safetensors") == 2
    (written,) = spare.rglob("a.safetensors")
    assert f"what was learned lies in {str(written)!r} instead" in capsys.readouterr().err
    assert Adapter.load(written).rank == 2
