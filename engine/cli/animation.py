"""The way of a drag as an animation: what the model expects the picture to be (the predicted clean latent) at several iterations, then the result."""

from pathlib import Path
from typing import Any

import PIL.Image
from torch import Tensor

from .. import stages
from ..drag.loop import Iteration
from ..editor import Editor
from ..inputs.frame import Frame
from ..inputs.image import Image
from ..inputs.points import Points
from ..session.result import EditResult
from ..system.files import write_whole
from .drawing import enlarge, with_points

__all__ = ["Trajectory"]

_FRAMES, _FRAME_MS, _LAST_MS = 24, 90, 1500


class Trajectory:
    """Collects a drag's iterations (`on_iteration=`), then draws them. Costs a copy of the predicted noise an iteration, and a decode a frame."""

    def __init__(self) -> None:
        self._noises: list[Tensor] = []

    def __call__(self, iteration: Iteration[Any]) -> None:
        assert iteration.forward.noise is not None
        self._noises.append(iteration.forward.noise)

    def frames(self, editor: Editor, source: Image, result: EditResult) -> list[PIL.Image.Image]:
        """At most 24 previews with the handles where they were, then the result. `result` must have been recorded."""
        if result.record is None:
            raise ValueError("a trajectory needs the edit's record; call edit(..., record=True)")
        scene = result.record.scene
        frame = Frame.of(source, editor.model.factor, scene.settings.parity)
        seen = len(result.record.handles)
        every = max(1, -(-seen // _FRAMES))
        pictures = []
        for number in range(0, min(seen, len(self._noises)), every):
            clean = scene.place.schedule.clean(
                self._noises[number], scene.place.latent, scene.place.timestep
            )
            preview = frame.image_of(stages.decode(editor.model, clean))
            handles = Points(
                frame.image_points(result.record.handles[number]), result.points.targets
            )
            pictures.append(with_points(preview, handles))
        return [*pictures, enlarge(result.image)]

    def save(self, path: Path, editor: Editor, source: Image, result: EditResult) -> Path:
        """The frames as an endless GIF, written whole or not at all. Raises OutputError."""
        first, *rest = self.frames(editor, source, result)
        durations = [_FRAME_MS] * len(rest) + [_LAST_MS]
        return write_whole(
            path,
            lambda part: first.save(
                part, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0
            ),
        )
