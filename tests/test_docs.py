"""The documentation's code runs, its links and the files that it names exist, and it builds."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import documents
from dragnoise import engine
from dragnoise.bench.__main__ import main as bench
from dragnoise.engine import DragConfig, Editor, Image
from dragnoise.engine.cli import demo
from dragnoise.engine.cli import main as dragnoise

BLOCKS = documents.named()
ELSEWHERE = {"first-edit", "first-commands", "make-targets", "contributing-make"}
ELSEWHERE |= {"export-commands", "exported-parts"}
QUICK = ("--iterations", "2", "--steps", "5", "--device", "cpu")
PICTURES = ("edited.png", "made.png", "dragged.png", "boat.png", "before.png")

NOT_THERE = {"kernels/__init__.py", "export/embedded"}
"""Files that must not be there, or are named because they have gone."""

every_page = pytest.mark.parametrize("page", documents.PAGES, ids=lambda page: page.name)


def names(language: str) -> list[str]:
    kept = [name for name, block in BLOCKS.items() if block.language == language]
    return [name for name in kept if name not in ELSEWHERE]


@pytest.fixture
def in_a_folder_with_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Image.of(demo.samples()[0].image).save(tmp_path / "picture.png")
    PIL.Image.fromarray(np.full((128, 128), 255, np.uint8)).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two iterations and two steps where a block names no settings."""

    def defaults(editor: Editor) -> DragConfig:
        return editor.model.defaults.replace(iterations=2, strength=0.04)

    monkeypatch.setattr(Editor, "defaults", property(defaults))


@pytest.mark.parametrize("name", names("python"))
@pytest.mark.usefixtures("quick")
def test_python(name: str, in_a_folder_with_a_picture: Path) -> None:
    host = name.partition("-")[0]
    if host in ("gradio", "jupyter"):
        pytest.importorskip(f"dragnoise.{host}", reason=f"{host} is not installed")
    documents.run_python(BLOCKS[name])
    written = [path for path in PICTURES if path in BLOCKS[name].text]
    assert all((in_a_folder_with_a_picture / path).exists() for path in written)


@pytest.mark.parametrize("name", names("sh"))
def test_shell(name: str, in_a_folder_with_a_picture: Path) -> None:
    documents.run_shell(BLOCKS[name], *QUICK)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_exported_parts(
    in_a_folder_with_a_picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exported and built with two commands, then edited with: by command, by block, by example."""
    documents.run_shell(BLOCKS["export-commands"], "--device", "cpu")
    documents.run_python(BLOCKS["exported-parts"])
    assert "drag=packed,down=onnxruntime,up=onnxruntime" in capsys.readouterr().out
    example = documents.example("exported_parts")
    result = example.main("picture.png", "60,40:80,40", "edited.png", "exported", iterations=1)
    assert len(result.settings["exported"]["onnxruntime"]) >= 3
    assert (in_a_folder_with_a_picture / "edited.png").exists()


@every_page
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    for block in documents.blocks(page):
        assert block.name or block.note.startswith("not run: "), f"{block.page}:\n{block.text}"


HELP: dict[str, Callable[[list[str]], int]] = {
    "dragnoise": dragnoise,
    "python -m dragnoise.bench": bench,
}


@every_page
def test_options_of_commands_that_are_not_run_exist(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = [block for block in documents.blocks(page) if block.language == "sh"]
    unrun = [block for block in shell if block.note.startswith("not run: ")]
    for words in (line for block in unrun for line in documents.shell_lines(block)):
        start = "dragnoise" if words[0] == "dragnoise" else " ".join(words[:3])
        if start in HELP:
            command = words[len(start.split())]
            with pytest.raises(SystemExit):
                HELP[start]([command, "--help"])
            described = capsys.readouterr().out
            for option in (word for word in words if word.startswith("--")):
                assert re.search(rf"{option}\b", described), f"{command} has no {option}"


@every_page
def test_links(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            assert file.exists() or is_included(file), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


def is_included(file: Path) -> bool:
    """Whether it is a link of a file that the documentation shows under another name."""
    return (documents.ROOT / "docs" / file.name).exists()


def anchors(file: Path) -> set[str]:
    text = file.read_text(encoding="utf-8")
    included = re.fullmatch(r'--8<-- "(.*)"\n', text)
    if included:
        text = (documents.ROOT / included[1]).read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.name == "open.md":
        text = (documents.ROOT / "bench/results/OPEN.md").read_text(encoding="utf-8")
    rooms = "kernels|engine|export|bench|tests|tools|docs|examples"
    for name in re.findall(rf"(?<![\w/.])((?:{rooms})/[\w/.-]*\w)", text):
        if "yours" not in name and name not in NOT_THERE:
            assert (documents.ROOT / name).exists(), f"{page.name}: {name}"


def test_hooks_are_what_ci_runs_first() -> None:
    hooks = (documents.ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    script = (documents.ROOT / ".ci" / "run").read_text(encoding="utf-8")
    entries = re.findall(r"entry: (.*)", hooks)
    assert entries == re.findall(r"^make .*", script, re.MULTILINE)[: len(entries)]


def test_the_architecture_page_has_the_rooms_in_their_order() -> None:
    rooms = (documents.ROOT / "tests" / "test_rooms.py").read_text(encoding="utf-8")
    enforced = re.search(r"^ENGINE = \(?(.*?)\.split", rooms, re.MULTILINE | re.DOTALL)
    page = (documents.ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = re.search(r"inside the engine:\n\n(.*?)\n\n", page, re.DOTALL)
    assert enforced is not None
    assert drawn is not None
    assert re.findall(r"[a-z]+", drawn[1]) == re.findall(r"[a-z]+", enforced[1])


def test_lines_are_short() -> None:
    long = [
        f"{page.name}: {line}"
        for page in [*documents.PAGES, *documents.ROOT.glob("*.md")]
        for line in page.read_text(encoding="utf-8").splitlines()
        if len(line) > 100 and not line.startswith("|")
    ]
    assert not long


_HOMES = {"PRESETS": "dragnoise.engine.inputs.preset"}
"""Where tables stand: unlike classes and functions they do not say it."""


@pytest.mark.parametrize("name", dir(engine))
def test_every_public_name_has_a_reference(name: str) -> None:
    pages = (documents.ROOT / "docs" / "api").glob("*.md")
    shown = {
        target
        for page in pages
        for target in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    home = getattr(getattr(engine, name), "__module__", _HOMES.get(name))
    assert shown & {home, f"{home}.{name}"}


@pytest.mark.slow
def test_it_builds(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=documents.ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "api" / "editor.html").read_text(encoding="utf-8")
    assert "from_pretrained" in page
