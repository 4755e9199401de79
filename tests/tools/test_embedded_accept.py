"""Judge edits whose figures are known."""

import dataclasses

import PIL.Image
import pytest

from dragnoise.engine import Editor
from embedded_model import accept
from embedded_model.accept import Row


def row(**changes: object) -> Row:
    good = Row(
        kind="sun",
        leverage=0.8,
        completion=0.9,
        start_px=20.0,
        end_px=2.0,
        outside_db=40.0,
        gain_db=8.0,
        sharpness=0.9,
        rebuilt_db=33.0,
        vae_db=36.0,
        iterations=30,
        reached=True,
        oracle=1.0,
        controls=(0.0, 0.0, 0.1),
    )
    return dataclasses.replace(good, **changes)  # type: ignore[arg-type]


def test_a_good_model_is_accepted() -> None:
    assert accept.verdict([row(), row(kind="house")])["accepted"]


@pytest.mark.parametrize(
    ("change", "unmet"),
    [
        ({"leverage": 0.1}, "leverage >= 0.5"),
        ({"sharpness": 0.2}, "sharpness >= 0.8"),
        ({"kind": "boat", "end_px": 7.0}, "distance <= 0.3 of the start on every kind that moves"),
        ({"controls": (0.0, 0.9, 0.0)}, "controls <= 0.1"),
        ({"outside_db": 10.0}, "outside >= 30 dB"),
        ({"vae_db": 20.0}, "VAE >= 35 dB"),
    ],
)
def test_each_thing_that_is_wanted_can_be_missed(change: dict[str, object], unmet: str) -> None:
    verdict = accept.verdict([row(), row(**change)])
    assert not verdict["accepted"]
    assert [name for name, met in verdict["wanted"].items() if not met] == [unmet]


def test_what_only_changes_its_form_need_not_come_near() -> None:
    assert accept.verdict([row(), row(kind="peak", end_px=9.0)])["accepted"]


def test_the_table_has_a_line_for_each_kind_and_one_for_all() -> None:
    lines = accept.table([row(), row(kind="house")]).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["sun", "house", "all"]


def test_an_edit_is_judged_from_source_to_sheet() -> None:
    editor = Editor.from_pretrained()
    config = editor.defaults.replace(steps=6, iterations=2)
    said = list[str]()
    rows, trials = accept.accept(editor, 1, config, said.append, kinds=("sun", "house"))
    assert len(said) == 2
    assert [one.kind for one in rows] == ["sun", "house"]
    assert rows[0].controls[0] == pytest.approx(0, abs=0.1)
    assert rows[0].controls[2] == rows[0].controls[0]
    picture = accept.sheet(trials * 2)
    assert isinstance(picture, PIL.Image.Image)
    assert picture.size == (8 * 128, 2 * 128)
