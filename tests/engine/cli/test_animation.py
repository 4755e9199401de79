"""Pictures and animations of drags."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from dragnoise.engine import ConfigError, DragConfig, Editor, Image, Points
from dragnoise.engine.cli.animation import DragAnimation
from dragnoise.engine.cli.drawing import enlarge, sheet, with_points
from dragnoise.engine.diffusion.load import load
from dragnoise.engine.drag.loop import Iteration
from dragnoise.engine.methods.prediction import Prediction
from golden_cases import MODEL


def grey(height: int, width: int) -> Image:
    return Image(np.full((height, width, 3), 128, np.uint8))


@pytest.mark.parametrize(
    ("height", "width", "size"), [(64, 32, (128, 256)), (100, 90, (270, 300)), (300, 2, (2, 300))]
)
def test_pictures_are_enlarged_by_a_whole_factor(
    height: int, width: int, size: tuple[int, int]
) -> None:
    assert enlarge(grey(height, width)).size == size


def test_handles_are_red_and_targets_blue() -> None:
    picture = with_points(grey(64, 64), Points.of("10,20:50,40"))
    assert picture.getpixel((42, 82)) == (225, 40, 40)
    assert picture.getpixel((202, 162)) == (40, 90, 235)
    assert picture.getpixel((4, 4)) == (128, 128, 128)


def test_a_sheet_has_a_column_an_edit() -> None:
    pictures = [PIL.Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    page = sheet([pictures, pictures], ["first", "second"], ["before", "points", "after"])
    assert page.width > 2 * 40
    assert page.height > 3 * 30
    colours = {tuple(pixel) for pixel in page.pixels.reshape(-1, 3).tolist()}
    assert {(255, 0, 0), (0, 128, 0), (0, 0, 255)} <= colours


def test_frames_of_a_long_drag_are_thinned_out(tmp_path: Path) -> None:
    editor = Editor(load(MODEL, device="cpu"))
    image = Image(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    config = DragConfig(steps=10, strength=0.2, iterations=30, lr=1e-9)
    animation = DragAnimation()
    words: dict[str, Any] = {"config": config, "on_iteration": animation}
    result = editor.edit(image, "10,10:50,50", record=True, **words)
    frames = animation.frames(editor, image, result)
    assert len(frames) == 1 + 15 + 1  # the points, every second of 30 iterations, the result
    assert {frame.size for frame in frames} == {(256, 256)}
    assert np.array_equal(np.asarray(frames[-1]), np.asarray(enlarge(result.image)))
    with PIL.Image.open(animation.save(tmp_path / "a.gif", editor, image, result)) as gif:
        assert gif.info["loop"] == 0
        assert gif.info["duration"] == 900
    with pytest.raises(ConfigError, match="needs the edit's record"):
        animation.frames(editor, image, editor.edit(image, "10,10:50,50", config=config))


def test_finished_frames_are_what_the_edit_would_give() -> None:
    """After no further update, the last of them is the result."""
    editor = Editor(load(MODEL, device="cpu"))
    image = Image(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    config = DragConfig(steps=10, strength=0.2, iterations=2, lr=0.1)
    animation = DragAnimation(frames=2, finished=True)
    words: dict[str, Any] = {"config": config, "on_iteration": animation, "record": True}
    result = editor.edit(image, "10,10:50,50", **words)
    *_, last, end = animation.frames(editor, image, result)
    there = np.asarray(last) != np.asarray(end)
    assert there.any()  # the points
    assert there.mean() < 0.2


def test_an_iteration_without_noise_is_refused() -> None:
    nothing = torch.zeros(1)
    iteration = Iteration(0, nothing, nothing, Prediction(nothing, None), nothing)
    with pytest.raises(ConfigError, match="without predicted noise"):
        DragAnimation()(iteration)
