"""A drag as an animation: the image with its points, previews of several iterations, the result.

A preview is what the model expects the picture to be: the predicted clean latent, decoded.
"""

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
from ..session.result import EditResult, Record
from ..system.files import write_whole
from .drawing import MARKERS, enlarge, with_points

__all__ = ["DragAnimation"]

_PREVIEWS = 24
_FIRST_MS = 700
_PREVIEW_MS = 90
_LAST_MS = 1500


class DragAnimation:
    """A callback (`on_iteration=`) that collects a drag's iterations and draws them afterwards.

    It costs a copy of the predicted noise an iteration, and a decode a preview.
    """

    def __init__(self) -> None:
        self._noises: list[Tensor] = []

    def __call__(self, iteration: Iteration[Any]) -> None:
        """Keep an iteration's predicted noise. Raises ConfigError if it has none."""
        if iteration.forward.noise is None:
            raise ConfigError(
                "an iteration without predicted noise cannot be drawn; "
                "pass the animation to edit(..., on_iteration=)"
            )
        self._noises.append(iteration.forward.noise)

    def frames(self, editor: Editor, image: Image, result: EditResult) -> list[PIL.Image.Image]:
        """Return the image with its points, at most 24 previews with the handles, and the result.

        Raises ConfigError if the result has no record.
        """
        if result.record is None:
            raise ConfigError("an animation needs the edit's record; call edit(..., record=True)")
        first = with_points(image, _points_at(0, image, editor, result.record, result.points))
        return [first, *self._previews(editor, image, result, result.record), enlarge(result.image)]

    def _previews(
        self, editor: Editor, image: Image, result: EditResult, record: Record
    ) -> list[PIL.Image.Image]:
        scene = record.scene
        place = scene.place
        frame = Frame.of(image, editor.model.factor, scene.settings.parity)
        iterations = min(len(record.handles), len(self._noises))
        every = max(1, -(-iterations // _PREVIEWS))
        previews = []
        for number in range(0, iterations, every):
            clean = place.schedule.clean(self._noises[number], place.latent, place.timestep)
            preview = frame.image_of(stages.decode(editor.model, clean))
            points = _points_at(number, image, editor, record, result.points)
            previews.append(with_points(preview, points))
        return previews

    def save(self, path: Path, editor: Editor, image: Image, result: EditResult) -> Path:
        """Write the frames as an endless GIF, whole or not at all. Raises OutputError."""
        frames = _with_shared_colours(self.frames(editor, image, result))
        durations = [_FIRST_MS, *[_PREVIEW_MS] * (len(frames) - 2), _LAST_MS]
        return write_whole(
            path,
            lambda target: frames[0].save(
                target,
                format="GIF",
                save_all=True,
                append_images=frames[1:],
                duration=durations,
                loop=0,
            ),
        )


def _points_at(number: int, image: Image, editor: Editor, record: Record, points: Points) -> Points:
    """Return the handles before iteration `number`, with the edit's targets, in image pixels."""
    frame = Frame.of(image, editor.model.factor, record.scene.settings.parity)
    return Points(frame.image_points(record.handles[number]), points.targets)


def _with_shared_colours(frames: list[PIL.Image.Image]) -> list[PIL.Image.Image]:
    """Return the frames in one palette without dithering, so that colours do not flicker.

    The colours of the points have places of their own: they are too few pixels to be chosen.
    """
    width, height = frames[0].size
    strip = PIL.Image.new("RGB", (width, height * len(frames)))
    for number, frame in enumerate(frames):
        strip.paste(frame, (0, height * number))
    chosen = strip.quantize(256 - len(MARKERS), PIL.Image.Quantize.MEDIANCUT, kmeans=1)
    colours = chosen.getpalette() or []
    palette = PIL.Image.new("P", (1, 1))
    palette.putpalette([*(value for colour in MARKERS for value in colour), *colours])
    return [frame.quantize(palette=palette, dither=PIL.Image.Dither.NONE) for frame in frames]
