"""`dragnoise demo` and `dragnoise info`."""

import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from command_line import ON_GOLDEN, printed, run
from dragnoise.engine import Image
from dragnoise.engine.cli import demo
from dragnoise.engine.gan.writing import write_folder
from generators import generator_model

WRITTEN = ("before", "after", "fast", "live")


def test_it_writes_a_sheet_and_an_animation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two of the shipped samples, with the embedded model and its own settings."""
    shipped = demo.samples()
    assert len(shipped) >= 3
    chosen = tuple(sample for sample in shipped if sample.name in ("sun", "peak"))
    monkeypatch.setattr(demo, "samples", lambda: chosen)
    monkeypatch.setattr(demo, "_FRAMES", 4)  # each costs as much as the end of an edit
    folder = tmp_path / "sheets"
    assert run("demo", "-o", folder, "--device", "cpu", "--json") == 0
    document = printed(capsys)
    names = [sample.name for sample in chosen]
    assert list(document["edits"]) == names
    assert document["written"] == str(folder / "sheet.png")
    assert document["animation"] == str(folder / "drag.gif")
    pictures = [f"{name}_{which}.png" for name in names for which in WRITTEN]
    assert sorted(os.listdir(folder)) == sorted([*pictures, "sheet.png", "drag.gif"])
    for name in names:
        before = Image.of(folder / f"{name}_before.png").pixels.astype(int)
        after = Image.of(folder / f"{name}_after.png").pixels.astype(int)
        assert np.abs(after - before).max() > 64
        for which in ("fast", "live"):
            other = Image.of(folder / f"{name}_{which}.png").pixels.astype(int)
            assert np.abs(other - before).max() > 64
    assert (folder / "drag.gif").stat().st_size < 300_000
    with PIL.Image.open(folder / "drag.gif") as animation:
        assert getattr(animation, "n_frames", 1) == 1 + 4 + 1


def test_draggan_drags_a_generators_own_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A generator without samples: its first pictures, whose middle is dragged to the right."""
    generator, folder = tmp_path / "generator", tmp_path / "sheets"
    generator.mkdir()
    write_folder(generator, generator_model().network)
    (generator / "drag.json").write_text('{"iterations": 8, "lr": 0.05, "rows": 4, "block": 3}')
    words = ("--method", "draggan", "--generator", generator, "--device", "cpu", "--json")
    assert run("demo", *words, "-o", folder) == 0
    document = printed(capsys)
    assert list(document["edits"]) == ["seed0", "seed1", "seed2", "seed3"]
    settings = document["edits"]["seed0"]["settings"]
    assert (settings["method"], settings["config"]["lr"]) == ("draggan", 0.05)
    before, after = (
        Image.of(folder / f"seed0_{which}.png").pixels.astype(int) for which in ("before", "after")
    )
    assert before.shape == (32, 32, 3)
    assert np.abs(after - before).max() > 4
    with PIL.Image.open(folder / "drag.gif") as animation:
        assert getattr(animation, "n_frames", 1) > 2


def test_it_refuses_a_file_as_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run("demo", "-o", tmp_path / "file") == 2
    assert "cannot be made" in capsys.readouterr().err


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", "--device", "cpu", "--json") == 0
    document = printed(capsys)
    assert document["native"] == "built"
    assert document["torch"] != "-"
    assert document["model parameters"] > 1e6
    assert "dragnoise" in document["methods"]
    assert run("info", *ON_GOLDEN) == 0
    assert "model parameters" in capsys.readouterr().out
