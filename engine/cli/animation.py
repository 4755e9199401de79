"""A drag as an animation: the image with its points, how it moves, the result.

On the way a frame is a preview: what the model expects the picture to be, which is the predicted
clean latent, decoded. Finished frames are what the edit would give if it stopped there: sharp, but
each costs as much as the end of an edit.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
from torch import Tensor

from .. import stages
from ..drag.loop import Iteration
from ..editor import Editor
from ..errors import ConfigError
from ..inputs.frame import Frame
from ..inputs.image import Image
from ..inputs.points import Points
from ..methods import method_row
from ..methods.draggan import StyleForward
from ..pipelines.styles import StyleRecord
from ..session.result import EditResult
from ..system.files import writable, write_whole
from .drawing import MARKERS, enlarge, with_points

__all__ = ["DragAnimation"]

_FIRST_MS = 900
_MOVING_MS = 2200
"""All frames between the first and the last together, unless there are very few."""

_LONGEST_MS = 200
_LAST_MS = 1800

_ENOUGH_PIXELS = 2**16
"""The colours are chosen from so many: from 16 times as many it takes up to 60 times as long."""


class DragAnimation:
    """A callback (`on_iteration=`) that collects a drag's iterations and draws them afterwards.

    It costs a copy of the predicted noise an iteration; of the optimised variable, if finished; of
    the picture where the method makes one anyway.

    Args:
        frames: most frames between the first and the last.
        finished: whether these frames are denoised to their end instead of being previews.
    """

    def __init__(self, frames: int = 24, finished: bool = False) -> None:
        self._frames = frames
        self._finished = finished
        self._copies: list[Any] = []

    def __call__(self, iteration: Iteration[Any]) -> None:
        """Keep an iteration. Raises ConfigError if it has no predicted noise, and no picture."""
        if isinstance(iteration.forward, StyleForward):
            self._copies.append(iteration.forward.picture.clone())
            return
        noise = iteration.forward.noise
        if noise is None:
            raise ConfigError(
                "an iteration without predicted noise cannot be drawn; "
                "pass the animation to edit(..., on_iteration=)"
            )
        if self._finished:
            self._copies.append(iteration.variable.detach().clone())
            return
        small = {name: each.clone() for name, each in vars(iteration.forward).items()}
        self._copies.append(replace(iteration.forward, **small | {"features": noise[:, :0]}))

    def frames(self, editor: Editor, image: Image, result: EditResult) -> list[PIL.Image.Image]:
        """Return the image with its points, the frames on the way with the handles, the result.

        Raises ConfigError if the result has no record.
        """
        record = result.record
        if record is None:
            raise ConfigError("an animation needs the edit's record; call edit(..., record=True)")
        frame = _frame_of(editor, image, record)

        def drawn(picture: Image, number: int) -> PIL.Image.Image:
            handles = frame.image_points(record.handles[number])
            return with_points(picture, Points(handles, result.points.targets))

        iterations = min(len(record.handles), len(self._copies))
        every = max(1, -(-iterations // self._frames))
        moving = [
            drawn(frame.image_of(self._pixels(self._copies[number], result, record)), number)
            for number in range(0, iterations, every)
        ]
        return [drawn(image, 0), *moving, enlarge(result.image)]

    def _pixels(self, copied: Any, result: EditResult, record: Any) -> Tensor:
        """Return what an iteration looks like, float32 [1, 3, H, W] in -1..1."""
        if isinstance(record, StyleRecord):
            picture: Tensor = copied
            return picture
        place = record.scene.place
        if self._finished:
            method = method_row(result.settings["method"])
            latent = stages.propagate(method, record.scene, record.optimum.constants, copied)
        else:
            latent = copied.clean(place)
        return stages.decode(place.model, latent)

    def save(self, path: Path, editor: Editor, image: Image, result: EditResult) -> Path:
        """Write the frames as an endless GIF, whole or not at all. Raises OutputError."""
        frames = _with_shared_colours(self.frames(editor, image, result))
        moving = len(frames) - 2
        each_ms = min(_LONGEST_MS, _MOVING_MS // max(moving, 1))
        return write_whole(
            writable(path, (".gif",)),
            lambda target: frames[0].save(
                target,
                format="GIF",
                save_all=True,
                append_images=frames[1:],
                duration=[_FIRST_MS, *[each_ms] * moving, _LAST_MS],
                loop=0,
            ),
        )


def _frame_of(editor: Editor, image: Image, record: Any) -> Frame:
    if isinstance(record, StyleRecord):
        return record.frame
    return Frame.of(image, editor.model.factor, record.scene.settings.parity)


def _with_shared_colours(frames: list[PIL.Image.Image]) -> list[PIL.Image.Image]:
    """Return the frames in one palette without dithering, so that colours do not flicker.

    The colours of the points have places of their own: they are too few pixels to be chosen.
    """
    chosen = _few_pixels(frames).quantize(
        256 - len(MARKERS), PIL.Image.Quantize.MEDIANCUT, kmeans=1
    )
    colours = chosen.getpalette() or []
    palette = PIL.Image.new("P", (1, 1))
    palette.putpalette([*(value for colour in MARKERS for value in colour), *colours])
    return [frame.quantize(palette=palette, dither=PIL.Image.Dither.NONE) for frame in frames]


def _few_pixels(frames: list[PIL.Image.Image]) -> PIL.Image.Image:
    """Return pixels of all frames, evenly spread, in one picture."""
    width, height = frames[0].size
    apart = math.ceil(math.sqrt(width * height * len(frames) / _ENOUGH_PIXELS))
    width, height = math.ceil(width / apart), math.ceil(height / apart)
    strip = PIL.Image.new("RGB", (width, height * len(frames)))
    for number, frame in enumerate(frames):
        few = frame.resize((width, height), PIL.Image.Resampling.NEAREST)
        strip.paste(few, (0, height * number))
    return strip
