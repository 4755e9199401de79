"""The README's Python runs as it stands, and its commands exist."""

import re
import shlex
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from dragnoise.engine import Image
from dragnoise.engine.cli import demo
from dragnoise.engine.cli.main import main
from dragnoise.export.__main__ import main as export

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def in_a_folder_with_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Image.of(demo.samples()[0].image).save(tmp_path / "picture.png")
    PIL.Image.fromarray(np.full((128, 128), 255, np.uint8)).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_sessions(in_a_folder_with_a_picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, code, *_ = blocks("python")
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    assert len(capsys.readouterr().out.splitlines()) > 3
    assert (in_a_folder_with_a_picture / "before.png").exists()
    assert (in_a_folder_with_a_picture / "work.safetensors").exists()
    assert list((in_a_folder_with_a_picture / "cache").glob("*.safetensors"))


def test_python(in_a_folder_with_a_picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, *_ = blocks("python")
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    said = capsys.readouterr().out
    assert "'drag':" in said
    assert "torch.Size([1, 4, 32, 32])" in said
    assert (in_a_folder_with_a_picture / "edited.png").exists()


def test_exported_parts(
    in_a_folder_with_a_picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exported and built with two commands, then edited with, from the command line and from Python."""
    lines = [line.split("#")[0] for block in blocks("sh") for line in block.splitlines()]
    commands = [
        shlex.split(line)[3:] for line in lines if line.startswith("python -m dragnoise.export ")
    ]
    assert [command[0] for command in commands] == ["onnx", "plan", "ls"]
    assert [export(command) for command in commands] == [0, 0, 0]
    edits = [
        shlex.split(line)[1:]
        for line in lines
        if line.startswith("dragnoise edit") and "--exported" in line
    ]
    assert main([*edits[0], "--device", "cpu"]) == 0
    assert (in_a_folder_with_a_picture / "edited.png").exists()
    *_, code = blocks("python")
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    assert "drag=packed,down=onnxruntime,up=onnxruntime" in capsys.readouterr().out


def test_first_command(in_a_folder_with_a_picture: Path) -> None:
    commands = [
        line
        for block in blocks("sh")
        for line in block.splitlines()
        if line.startswith("dragnoise edit")
    ]
    assert len(commands) == 4
    assert main([*shlex.split(commands[0])[1:], "--device", "cpu"]) == 0
    assert (in_a_folder_with_a_picture / "edited.png").exists()
    assert (in_a_folder_with_a_picture / "way.gif").exists()


def test_make_targets() -> None:
    targets = re.findall(r"^make (\w+)", README, flags=re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_links() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[1] / target).exists(), target
