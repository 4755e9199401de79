"""Options that are made from the dataclasses of settings."""

import dataclasses
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragnoise.engine import ConfigError, DragConfig, PersonaliseConfig, PointError, Points
from dragnoise.engine.cli import options
from dragnoise.engine.cli.options import (
    METHOD_SETTINGS,
    add_method_options,
    add_settings,
    drag_settings,
    given_settings,
    points_of,
    size,
)
from dragnoise.engine.methods import METHODS


@dataclass(frozen=True)
class Few(DragConfig):
    """Settings of a method that has one more.

    Attributes:
        extra: how much
            more, 100 % at most. Only here.
    """

    extra: int = 3


def parse(*words: str) -> Namespace:
    parser = ArgumentParser()
    add_method_options(parser)
    return parser.parse_args(words)


def test_every_method_can_be_chosen() -> None:
    assert {name: row.settings for name, row in METHODS.items()} == METHOD_SETTINGS
    assert [parse("--method", name).method for name in METHODS] == list(METHODS)
    assert tuple(name for name, row in METHODS.items() if row.grips) == options.GRIPPING_METHODS


@pytest.mark.parametrize("cls", [DragConfig, PersonaliseConfig, *METHOD_SETTINGS.values()])
def test_every_setting_is_an_option_with_help(cls: type) -> None:
    parser = ArgumentParser()
    add_settings(parser, "settings", cls)
    actions = {action.dest: action for action in parser._actions}
    for field in dataclasses.fields(cls):
        action = actions[field.name]
        assert action.option_strings == [f"--{field.name.replace('_', '-')}"]
        assert action.default is None
        assert len(str(action.help)) > 10
    parser.format_help()


def test_help_is_the_first_sentence_of_the_docstring() -> None:
    parser = ArgumentParser()
    add_settings(parser, "settings", Few, extra=5)
    (action,) = [action for action in parser._actions if action.dest == "extra"]
    assert action.help == "how much more, 100 %% at most (default: 5)"


def test_only_what_was_given_changes() -> None:
    defaults = DragConfig(steps=20, lr=0.5)
    assert drag_settings(parse(), defaults) == defaults
    changed = drag_settings(parse("--steps", "30", "--r-m", "2", "--parity"), defaults)
    assert changed == defaults.replace(steps=30, r_m=2, parity=True)
    assert given_settings(parse("--lam", "0"), DragConfig) == {"lam": 0.0}


def test_a_value_out_of_range_is_refused_before_a_model_is_loaded() -> None:
    with pytest.raises(ConfigError, match="strength must be"):
        drag_settings(parse("--strength", "2"))


def test_settings_belong_to_their_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "METHOD_SETTINGS", {"dragnoise": DragConfig, "other": Few})
    more = drag_settings(parse("--method", "other", "--extra", "9"), DragConfig(steps=7))
    assert more == Few(extra=9)
    with pytest.raises(ConfigError, match="'dragnoise' has no setting --extra; leave it out"):
        drag_settings(parse("--extra", "9"))


@given(st.integers(1, 9999), st.integers(1, 9999))
def test_a_size_is_written_as_width_by_height(width: int, height: int) -> None:
    assert size(f"{width}x{height}") == (height, width)


@pytest.mark.parametrize("text", ["", "64", "512x", "x8", "0x8", "8x0", "ax8", "8x8x8", "-8x8"])
def test_what_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is not a size; write it as WxH"):
        size(text)


def test_points_of_several_options() -> None:
    expected = Points(((1, 2), (5, 6), (0, 0)), ((3, 4), (7, 8), (9, 9)))
    assert points_of(["1,2:3,4", "5,6:7,8 0,0:9,9"]) == expected
    with pytest.raises(PointError, match="'1,2' is not a drag"):
        points_of(["1,2:3,4", "1,2"])
