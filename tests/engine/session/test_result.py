"""A result says everything as JSON, warnings included."""

import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from dragnoise.engine import Editor, EditResult, Image, InputWarning, Store
from golden_cases import MODEL
from sessions import MASK, PICTURE, POINTS, QUICK, editor, opened

LONG = "disc " * 200
BLACK = np.zeros((64, 64), np.bool_)
CUT = "the prompt has 802 tokens, the model reads 77; the rest is ignored"


def silently(editor: Editor, **how: object) -> EditResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        return editor.edit(PICTURE, POINTS, config=QUICK, **how)  # type: ignore[arg-type]


def test_as_json() -> None:
    result = opened().drag(POINTS, mask=MASK)
    document = json.loads(json.dumps(result.to_dict()))
    assert document["reached"] is result.reached
    assert document["iterations"] == len(document["losses"]) == 3
    assert document["points"] == [{"ended": list(result.points.handles[0]), "target": [40.0, 34.0]}]
    assert document["settings"]["config"] == QUICK.to_dict()
    assert document["settings"]["method"] == "dragnoise"
    assert document["settings"]["base"] == "source"
    assert document["timings_ms"].keys() == result.timings_ms.keys()
    assert document["warnings"] == []


def test_every_client_sees_its_warnings(tmp_path: Path) -> None:
    """The second one too, whose embedding is found, and who is told nothing by Python any more."""
    stored = Editor.from_pretrained(
        MODEL, device="cpu", cache=Store(folder=tmp_path), check_pictures=False
    )
    for _ in range(2):
        result = silently(stored, prompt=LONG, mask=BLACK)
        assert [warning[:23] for warning in result.warnings] == [
            "the mask marks nothing ",
            "the prompt has 802 toke",
        ]
    assert result.warnings[1] == CUT
    assert result.to_dict()["warnings"] == list(result.warnings)


def test_a_session_says_it_at_every_drag() -> None:
    session = editor().open(PICTURE, prompt="a face", negative_prompt="a disc", config=QUICK)
    with pytest.warns(InputWarning, match="does nothing without guidance"):
        first = session.drag(POINTS)
    assert session.drag(POINTS).warnings == first.warnings
    assert first.warnings == (
        "a negative prompt does nothing without guidance; set guidance above 1",
    )
    guided = session.drag(POINTS, config=QUICK.replace(guidance=2.0))
    assert guided.warnings == ()


def test_what_was_said_of_files_stands_in_the_result(tmp_path: Path) -> None:
    """Of the picture and of the mask as they were read, at every drag on them."""
    clear = PIL.Image.new("RGBA", (PICTURE.width, PICTURE.height), (9, 9, 9, 0))
    picture, mask = tmp_path / "picture.png", tmp_path / "mask.png"
    for file in (picture, mask):
        clear.save(file)
    with pytest.warns(InputWarning, match="picture.png.* is transparent everywhere"):
        image = Image.of(picture)
    [notice] = image.notices
    assert notice.endswith("so it is white; save it without transparency")
    assert pickle.loads(pickle.dumps(image)).notices == image.notices  # noqa: S301
    assert Image.of(image.pixels).notices == ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        session = editor().open(picture, config=QUICK)
        for _ in range(2):
            of_mask, of_limit, of_picture = session.drag(POINTS, mask=mask).warnings
            assert of_picture == notice
            assert "mask.png' is a mask that is transparent everywhere" in of_mask
            assert of_limit.startswith("the mask marks nothing")


def test_a_stream_says_it_too() -> None:
    with pytest.warns(InputWarning, match="marks nothing"):
        *_, last = opened().drag_stream(POINTS, mask=BLACK)
    assert last.result is not None
    assert len(last.result.warnings) == 1


def test_a_generated_picture_warns_of_its_prompt() -> None:
    with pytest.warns(InputWarning, match="802 tokens"):
        editor().generate(LONG, config=QUICK)
