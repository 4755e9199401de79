"""Every example runs, on the embedded model with few steps."""

import json
from pathlib import Path
from typing import Any

import pytest

import documents
from dragnoise.engine import ConfigError, DragConfig, Editor, Image
from dragnoise.engine.cli import demo

DRAG = "57,49:40,68"


@pytest.fixture
def picture(tmp_path: Path) -> str:
    return str(Image.of(demo.samples()[0].image).save(tmp_path / "picture.png"))


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def defaults(editor: Editor) -> DragConfig:
        return editor.model.defaults.replace(strength=0.04)

    monkeypatch.setattr(Editor, "defaults", property(defaults))


def test_edit(picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "edited.png"
    documents.example("edit").main(picture, DRAG, str(output), iterations=2)
    assert output.exists()
    assert "its target at (40.0, 68.0)" in capsys.readouterr().out


def test_session(picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "edited.png"
    session = documents.example("session").main(
        picture, [DRAG, "57,49:38,70"], str(output), iterations=2
    )
    assert output.exists()
    assert "drag 1:" in capsys.readouterr().out
    session.redo()
    assert (session.image.pixels == Image.of(output).pixels).all()


def test_own_method(picture: str, tmp_path: Path) -> None:
    own = documents.example("own_method")
    output = tmp_path / "edited.png"
    result = own.main(picture, DRAG, str(output), iterations=2)
    assert output.exists()
    assert result.settings["method"] == "faithful"
    assert result.settings["config"] == own.FaithfulConfig(
        iterations=2, lr=0.8, lam=0.02, faith=0.2
    )
    with pytest.raises(ConfigError, match="faith must be a number 0 or more"):
        own.FaithfulConfig(faith=-1)


def cells(name: str) -> list[str]:
    """Return the code of a notebook's cells."""
    notebook = json.loads((documents.ROOT / "examples" / name).read_text(encoding="utf-8"))
    kinds = {cell["cell_type"] for cell in notebook["cells"]}
    assert (notebook["nbformat"], kinds) == (4, {"markdown", "code"})
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    return ["".join(cell["source"]) for cell in code]


def test_drag_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notebook's cells run one after the other, without a notebook."""
    pytest.importorskip("dragnoise.jupyter", reason="anywidget is not installed")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in cells("drag.ipynb"):
        exec(cell, names)  # noqa: S102 it is ours
    assert Image.of("dragged.png").pixels.shape == (128, 128, 3)
    assert names["drag"].drags == ((50.0, 75.0, 64.0, 75.0),)
    names["drag"].close()


@pytest.mark.slow
def test_drag_notebook_in_a_kernel(tmp_path: Path) -> None:
    """The whole thing, where nbclient and ipykernel are installed: they are no part of `dev`."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(documents.ROOT / "examples" / "drag.ipynb", 4)
    where = {"metadata": {"path": str(tmp_path)}}
    done = nbclient.NotebookClient(notebook, timeout=120, resources=where).execute()
    shown = done.cells[1].outputs[0]["data"]
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert (tmp_path / "dragged.png").exists()


def test_every_example_has_a_test() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    tested.add("exported_parts")  # in test_docs.py, where parts have been exported
    assert {path.stem for path in (documents.ROOT / "examples").glob("*.py")} <= tested
