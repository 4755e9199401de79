"""Every example runs, on the embedded model with few steps."""

from pathlib import Path

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


def test_every_example_has_a_test() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    tested.add("exported_parts")  # in test_docs.py, where parts have been exported
    assert {path.stem for path in (documents.ROOT / "examples").glob("*.py")} <= tested
