"""Presets: a method with its settings, by one word."""

from pathlib import Path
from typing import Any

import pytest

from command_line import ON_GOLDEN, printed, run
from dragnoise.engine import PRESETS, ConfigError, Editor, EditResult, FastConfig, Image
from dragnoise.engine.inputs.preset import preset_of
from dragnoise.engine.methods import METHODS
from golden_cases import GOLDEN
from sessions import editor

PICTURE = Image(Image.of(GOLDEN / "images" / "face_256x256.png").pixels[64:128, 64:128])
POINTS = [((20, 24), (40, 30))]


def edit(**how: Any) -> EditResult:
    return editor().edit(PICTURE, POINTS, **how)


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_method_is_there_and_has_its_settings(name: str) -> None:
    preset = preset_of(name)
    settings = METHODS[preset.method].settings().replace(**preset.changes).to_dict()
    assert {setting: settings[setting] for setting in preset.changes} == dict(preset.changes)
    assert preset.summary


def test_an_edit_by_preset_is_one_by_its_method_and_settings() -> None:
    own = editor().defaults_of("fast")
    preset = edit(preset="live")
    assert preset.settings["method"] == "fast"
    assert preset.settings["config"] == own.replace(steps=5, iterations=0)
    method = edit(method="fast", config=own.replace(steps=5, iterations=0))
    assert (preset.image.pixels == method.image.pixels).all()


def test_a_session_drags_and_prepares_by_preset() -> None:
    session = editor().open(PICTURE)
    session.prepare(preset="live")
    result = session.drag(POINTS, preset="live")
    assert "invert" not in result.timings_ms
    assert (result.image.pixels == edit(preset="live").image.pixels).all()


def test_published_is_the_models_own() -> None:
    session = Editor.open(editor(), PICTURE, config=editor().defaults.replace(iterations=1))
    result = session.drag(POINTS, preset="published")
    assert result.settings["method"] == "dragnoise"
    assert result.settings["config"] == editor().defaults.replace(iterations=1)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"preset": "quick"}, "there is no preset 'quick'; known: published, fast, live"),
        ({"preset": 5}, "there is no preset 5"),
        ({"preset": "fast", "method": "fast"}, "the preset 'fast' brings its method"),
        ({"preset": "fast", "config": FastConfig()}, "the preset 'fast' brings its settings"),
    ],
)
def test_what_is_no_preset_is_refused(how: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        edit(**how)
    if "config" not in how:
        with pytest.raises(ConfigError, match=says):
            editor().open(PICTURE).prepare(**how)


def test_the_command_line_takes_a_preset_and_changes_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = PICTURE.save(tmp_path / "picture.png")
    how = ("edit", picture, "--drag", "20,24:40,30", *ON_GOLDEN, "--no-check", "--json")
    assert run(*how, "--preset", "live", "--iterations", "2") == 0
    settings = printed(capsys)["settings"]
    config = settings["config"]
    assert (settings["method"], config["steps"], config["iterations"]) == ("fast", 5, 2)
    with pytest.raises(SystemExit):
        run(*how, "--preset", "live", "--method", "fast")
    assert "not allowed with" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(*how, "--preset", "quick")
    assert "invalid choice: 'quick'" in capsys.readouterr().err
