"""README's code runs as it stands, its commands exist, its first screen is as it should be."""

import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import documents
from dragnoise.engine import Image
from dragnoise.engine.cli import demo

README = documents.ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


@pytest.fixture
def in_a_folder_with_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Image.of(demo.samples()[0].image).save(tmp_path / "picture.png")
    PIL.Image.fromarray(np.full((128, 128), 255, np.uint8)).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_first_edit(in_a_folder_with_a_picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents.run_python(documents.named()["first-edit"])
    assert "'drag':" in capsys.readouterr().out
    assert (in_a_folder_with_a_picture / "edited.png").exists()


def test_first_commands(in_a_folder_with_a_picture: Path) -> None:
    documents.run_shell(
        documents.named()["first-commands"], "--iterations", "2", "--steps", "5", "--device", "cpu"
    )
    for name in ("edited.png", "way.gif", "boat.png", "boat_dragged.png"):
        assert (in_a_folder_with_a_picture / name).exists(), name


@pytest.mark.parametrize("name", ["make-targets", "contributing-make"])
def test_make_targets(name: str) -> None:
    makefile = (documents.ROOT / "Makefile").read_text(encoding="utf-8")
    for make, target in documents.shell_lines(documents.named()[name]):
        assert make == "make"
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_first_screen() -> None:
    """A picture, what has not been run, and how to install, before anything else; two tables."""
    lines = TEXT.splitlines()
    assert len(lines) <= 100
    screen = "\n".join(lines[:30])
    assert "![" in screen
    assert "A GPU has run it for" in screen
    assert "pip install" in screen
    assert TEXT.count("<!-- presets:begin -->") == TEXT.count("<!-- summary:begin -->") == 1
    assert TEXT.index("<!-- presets:begin -->") < TEXT.index("<!-- summary:begin -->")
    tables = [line for line in lines if line.startswith("|---|")]
    assert len(tables) <= 2
