"""Settings are checked once, and say what is wrong with them."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import dragnoise.engine.config as room
from dragnoise.engine import ConfigError, DragConfig


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0), ("steps", 1001), ("steps", 50.0), ("steps", True), ("steps", "50"),
        ("iterations", -1), ("end_step", -1), ("end_step", 51),
        ("r_m", -1), ("r_m", 33), ("r_p", 1.5),
        ("strength", 0), ("strength", 1.01), ("strength", float("nan")), ("strength", "1"),
        ("lr", 0), ("lr", -0.1), ("lr", float("inf")), ("lam", -1), ("lam", None),
    ],
)  # fmt: skip
def test_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be .*{value!r}"):
        DragConfig(**{name: value})


def test_no_step_is_left() -> None:
    with pytest.raises(ConfigError, match="less than one step"):
        DragConfig(steps=10, strength=0.01)


def test_derived() -> None:
    assert DragConfig().active_steps == 35
    assert DragConfig(strength=0.61).active_steps == 30
    assert DragConfig(end_step=10).injected_steps == 40
    assert DragConfig(steps=30, end_step=10).injected_steps == 20
    assert DragConfig(steps=30, end_step=10, parity=True).injected_steps == 40


def test_but() -> None:
    assert DragConfig().replace(lr=0.5, lam=None) == DragConfig(lr=0.5)
    with pytest.raises(ConfigError, match="learning_rate: no such setting"):
        DragConfig().replace(learning_rate=1)


def test_card(tmp_path: Path) -> None:
    card = tmp_path / "drag.json"
    card.write_text(json.dumps({"lr": 0.2, "end_step": 3}))
    assert DragConfig.from_card(card) == DragConfig(lr=0.2, end_step=3)
    for text, says in (
        ("{", "is not JSON"),
        ("[]", "JSON object"),
        ('{"rate": 1}', "no such setting"),
        ('{"lr": -1}', "lr must be"),
    ):
        card.write_text(text)
        with pytest.raises(ConfigError, match=says):
            DragConfig.from_card(card)


def test_every_setting_is_found_in_the_room_wherever_it_stands() -> None:
    assert room.__file__ is not None
    files = [path.stem for path in Path(room.__file__).parent.glob("[a-z]*.py")]
    names = [
        name for file in files for name in import_module(f"dragnoise.engine.config.{file}").__all__
    ]
    assert len(names) == len(set(names))
    assert set(room.__all__) == set(names) - {"Inversion"}
    assert all(hasattr(room, name) for name in room.__all__)
