"""Dragging in a notebook: a widget that shows a picture and drags it, without a server.

    from dragnoise.jupyter import Drag
    drag = Drag("picture.png", prompt="a boat")
    drag            # shows it; afterwards: drag.image, drag.drags, drag.mask

The canvas asks over the notebook's own line (a comm), and pictures are binary buffers on it. The
kernel's thread hands what is asked to threads of the widget's and is free at once; the canvas has
one move unanswered at a time, so nothing queues. While a cell runs, a kernel hears nothing: the
picture follows the pointer all the same, by its own pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anywidget
import traitlets

from ..editor import Editor
from ..inputs.image import Image, ImageLike
from ..inputs.mask import Mask, MaskLike
from ..inputs.points import PointsLike
from ..inputs.preset import preset_of
from ..session.result import EditResult
from ..session.session import Session
from .bundle import bundle, glue
from .desk import REFUSED, Desk, embedded

__all__ = ["Drag"]

_THREADS = 4
"""A drag, a frame, and what ends them."""


class Drag(anywidget.AnyWidget):  # type: ignore[misc]
    """A picture to drag in a notebook.

    `observe` tells of `image` and `drags` as they change.

    Args:
        image: The picture: whatever `Image.of` takes.
        prompt: What it shows.
        editor: None: on the embedded model, which is loaded meanwhile, in another thread.
        negative_prompt: What guidance draws away from.
        mask: Where it may change; it can be painted, too.
        preset: How it is refined after the release: a name in `PRESETS`.
        height: Of the canvas, in pixels.
    """

    _esm = bundle() + glue("jupyter")

    preset = traitlets.Unicode("fast").tag(sync=True)
    height = traitlets.Int(440).tag(sync=True)
    image = traitlets.Any(read_only=True, help="The picture that is seen, an Image.")
    drags = traitlets.Tuple(read_only=True, help="What was dragged last: (hx, hy, tx, ty).")

    def __init__(
        self,
        image: ImageLike,
        prompt: str = "",
        *,
        editor: Editor | None = None,
        negative_prompt: str = "",
        mask: MaskLike | None = None,
        preset: str = "fast",
        height: int = 440,
    ) -> None:
        preset_of(preset)
        load: Callable[[], Editor] = embedded if editor is None else lambda: editor
        self._desk = Desk(image, load, prompt, negative_prompt)
        self._desk.mask = self._mask_of(mask)
        self._threads = ThreadPoolExecutor(_THREADS, "dragnoise-jupyter")
        super().__init__(preset=preset, height=height)
        self._tell()
        self.on_msg(self._heard)
        self._threads.submit(load)

    @property
    def mask(self) -> Mask | None:
        """Where the picture may change; None: everywhere."""
        return self._desk.mask

    @property
    def grip(self) -> Mask | None:
        """What moves as one piece; None: a disc about each handle."""
        return self._desk.grip

    @property
    def session(self) -> Session:
        """The engine's session: for what this widget has no word for."""
        return self._desk.session

    def drag(self, points: PointsLike, *, preset: str | None = None) -> EditResult:
        """Drag from a cell; the canvas shows it. Raises what `Session.drag` raises."""
        try:
            return self._desk.drag(points, preset=preset or self.preset, progress=self._report)
        finally:
            self._tell()

    def undo(self) -> Image:
        """Show the picture before, and return it. Raises SessionError where there is none."""
        self._desk.undo()
        self._tell()
        return self._desk.image

    def redo(self) -> Image:
        """Show what was undone last, and return it. Raises SessionError where there is none."""
        self._desk.redo()
        self._tell()
        return self._desk.image

    def close(self) -> None:
        """End what runs, and the widget."""
        if hasattr(self, "_threads"):  # it may not have come to be: the picture was none
            self._desk.cancel()
            self._threads.shutdown(wait=False, cancel_futures=True)
        super().close()

    def _mask_of(self, mask: MaskLike | None) -> Mask | None:
        picture = self._desk.image
        return None if mask is None else Mask.of(mask, picture.width, picture.height)

    def _heard(self, _: object, said: Mapping[str, Any], pictures: Sequence[Any]) -> None:
        """Hand on what a canvas asks: the kernel's own thread does nothing that takes time."""
        self._threads.submit(self._answer, said, bytes(pictures[0]) if pictures else None)

    def _answer(self, said: Mapping[str, Any], picture: bytes | None) -> None:
        before = self._desk.version
        made: bytes | None = None
        try:
            about, made = self._desk.answer(said.get("asked") or {}, picture, self._report)
        except REFUSED as refused:
            about = {"error": str(refused)}
        except Exception as error:  # noqa: BLE001 there is nobody else to tell: this is a thread
            about = {"error": f"{type(error).__name__}: {error}"}
        content = {"view": said.get("view"), "number": said.get("number"), "answer": about}
        self.send(content, [] if made is None else [made])
        if self._desk.version != before:
            self._tell()

    def _report(self, stage: str, done: int, of: int) -> None:
        self.send({"progress": {"stage": stage, "done": done, "of": of}})

    def _tell(self) -> None:
        """Tell whoever observes, and every canvas of this widget, what is seen now."""
        self.set_trait("image", self._desk.image)
        self.set_trait("drags", self._desk.drags)
        self.send({"version": self._desk.version})
