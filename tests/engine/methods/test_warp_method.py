"""The method without a model: what an edit and a session make of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragnoise.engine import ConfigError, EditResult, Image, SessionError, WarpConfig
from dragnoise.engine.pipelines.pixels import PixelRecord
from sessions import PICTURE, editor

MASK = np.zeros((64, 64), np.bool_)
MASK[8:56, 8:56] = True
GRIP = np.zeros((64, 64), np.bool_)
GRIP[20:30, 18:32] = True
POINTS = [((24, 24), (34, 40))]
STILL = [((24, 24), (24, 24))]


def dragged(points: Any = POINTS, **given: Any) -> EditResult:
    how: dict[str, Any] = {"mask": MASK, "grip": GRIP}
    return editor().edit(PICTURE, points, method="warp", **how | given)


@pytest.mark.parametrize(
    "given", [{}, {"grip": None}, {"mask": None}, {"mask": None, "grip": None}]
)
def test_without_a_drag_it_is_the_pictures_own_bytes(given: dict[str, Any]) -> None:
    assert (dragged(STILL, **given).image.pixels == PICTURE.pixels).all()


def test_the_grip_lies_at_the_target_and_what_must_stay_stays() -> None:
    result = dragged()
    assert (result.image.pixels[36:46, 28:42] == PICTURE.pixels[20:30, 18:32]).all()
    assert (result.image.pixels[~MASK] == PICTURE.pixels[~MASK]).all()
    assert result.points.handles == result.points.targets == ((34.0, 40.0),)
    assert (dragged().image.pixels == result.image.pixels).all()


def test_no_stage_of_a_model_runs() -> None:
    result = dragged()
    assert {"encode", "invert", "propagate", "decode"}.isdisjoint(result.timings_ms)
    assert "aim" in result.timings_ms
    assert len(result.history.losses) == 0
    assert result.settings["method"] == "warp"


def test_a_path_that_returns_gives_the_bits_of_no_path(tmp_path: Path) -> None:
    session = editor().open(PICTURE)
    how: dict[str, Any] = {"method": "warp", "mask": MASK, "grip": GRIP}
    first = session.drag(POINTS, **how)
    session.drag([((24, 24), (12, 50))], **how)
    assert (session.drag(POINTS, **how).image.pixels == first.image.pixels).all()
    with pytest.raises(SessionError, match="the method warp ends elsewhere than it begins"):
        session.drag(POINTS, **how, base="last")
    second = session.drag([((34, 40), (24, 24))], method="warp", mask=MASK, base="result")
    assert (second.image.pixels != first.image.pixels).any()
    restored = editor().restore(session.save(tmp_path / "s.safetensors"))
    assert (restored.image.pixels == second.image.pixels).all()
    assert (restored.undo().pixels == first.image.pixels).all()


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (37, 64)])
def test_any_picture(size: tuple[int, int]) -> None:
    picture = Image(PICTURE.pixels[: size[0], : size[1]])
    end = (size[1] - 1, size[0] - 1)
    result = editor().edit(picture, [((0, 0), end), (end, (0, 0))], method="warp", record=True)
    assert result.image.pixels.shape == picture.pixels.shape
    assert isinstance(result.record, PixelRecord)


def test_settings() -> None:
    assert editor().defaults_of("warp") == WarpConfig()
    near, far = (dragged(grip=None, config=WarpConfig(grip_px=size)) for size in (2.0, 12.0))
    assert (near.image.pixels != far.image.pixels).any()
    with pytest.raises(ConfigError, match="fit must be rigid or similarity or affine, got 'no'"):
        WarpConfig(fit="no")
    with pytest.raises(ConfigError, match="grip_px must be a number from 0 to 1000"):
        WarpConfig(grip_px=-1)


def test_a_stream_has_nothing_but_its_end() -> None:
    (event,) = editor().open(PICTURE).drag_stream(POINTS, method="warp", mask=MASK)
    assert event.result is not None
    assert (event.result.image.pixels == dragged(grip=None).image.pixels).all()
