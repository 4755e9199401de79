"""A picture on a host's canvas, and what a person does with it there.

    canvas -- asks: grab, move, move, ... --> Desk --> a session, its live drag

Every call blocks, in whatever thread the host keeps for that: never its own loop. The canvas asks
for one frame at a time, of the newest targets, so nothing queues; what it shows between two frames
it moves itself. `cancel` ends what runs.
"""

import base64
import binascii
import functools
import io
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ..editor import Editor
from ..errors import (
    CancelledError,
    ConfigError,
    DeadlineError,
    DragnoiseError,
    ImageError,
    SessionError,
)
from ..inputs.image import Image, ImageLike
from ..inputs.mask import Mask
from ..inputs.points import Points, PointsLike
from ..serve.settings import SERVICE_LIMITS
from ..session.live import Live
from ..session.request import row_of
from ..session.result import EditResult, Progress
from ..session.session import Session

__all__ = ["REFUSED", "Answer", "Desk", "address_of", "embedded", "file_of"]

Drag: TypeAlias = tuple[float, float, float, float]
"""A handle and its target, (hx, hy, tx, ty) in pixels of the picture."""

Answer: TypeAlias = tuple[dict[str, Any], bytes | None]
"""What the canvas is told, ready for JSON, and a picture's file where there is one."""

REFUSED = (DragnoiseError, CancelledError, DeadlineError)
"""Whatever a person is told, in one line."""

_QUALITY = 90
"""Of a frame's JPEG: it is seen for a moment."""

_FREE_S = 10.0
_FRAME_S = 60.0
_DRAG_S = 300.0


_LOADING = threading.Lock()


def embedded() -> Editor:
    """Return an editor on the embedded model: one for all hosts of this process."""
    with _LOADING:  # a second caller waits, and loads nothing
        return _loaded()


@functools.cache
def _loaded() -> Editor:
    return Editor.from_pretrained()


class Desk:
    """A picture, what is painted on it and placed on it, and a session to drag it in.

    Attributes:
        drags: What is placed, or was dragged last: (hx, hy, tx, ty) in pixels.
        mask: Where the picture may change; None: everywhere.
        grip: What moves as one piece; None: a disc about each handle.
        version: Rises with every change of what is seen.
    """

    def __init__(
        self,
        image: ImageLike | bytes,
        editor: Callable[[], Editor] | None = None,
        prompt: str = "",
        negative_prompt: str = "",
    ) -> None:
        if isinstance(image, bytes):
            self._image = Image.from_bytes(image, SERVICE_LIMITS)
        else:
            self._image = Image.of(image)
        self._editor = editor
        self._prompts = (prompt, negative_prompt)
        self._session: Session | None = None
        self._live: Live | None = None
        self._grabs = 0
        self._holding = threading.Lock()
        self._opening = threading.Lock()
        self.drags: tuple[Drag, ...] = ()
        self.mask: Mask | None = None
        self.grip: Mask | None = None
        self.version = 1
        self._kind: str | None = None

    @property
    def image(self) -> Image:
        """The picture that is seen."""
        return self._image if self._session is None else self._session.image

    @property
    def source(self) -> Image:
        """The picture that it began with."""
        return self._image if self._session is None else self._session.source

    @property
    def prompt(self) -> str:
        """What the picture shows, as it was told."""
        return self._prompts[0]

    @property
    def session(self) -> Session:
        """The engine's session, opened when it is first wanted.

        Raises:
            SessionError: The host has no editor.
        """
        with self._opening:
            if self._session is None:
                if self._editor is None:
                    raise SessionError("there is no model here; give the component an editor")
                prompt, negative = self._prompts
                self._session = self._editor().open(
                    self._image, prompt=prompt, negative_prompt=negative
                )
            return self._session

    def state(self) -> dict[str, Any]:
        """Return what the canvas is told of it."""
        session = self._session
        return {
            "version": self.version,
            "width": self.image.width,
            "height": self.image.height,
            "can_undo": session is not None and session.can_undo,
            "can_redo": session is not None and session.can_redo,
            "kind": self._kind,
        }

    # What a person does.

    def describe(self, prompt: str, negative_prompt: str = "") -> None:
        """Say what the picture shows: what is seen begins anew, and cannot be undone."""
        self.cancel()
        with self._opening:
            self._image, self._session = self.image, None
            self._prompts = (prompt, negative_prompt)
        self._changed(None)

    def paint(self, layer: str, mask: Mask | None) -> None:
        """Set the mask or the grip. Raises ConfigError for another layer."""
        if layer not in ("mask", "grip"):
            raise ConfigError(f"there is no layer {layer!r}; paint the mask or the grip")
        setattr(self, layer, mask)

    def place(self, drags: PointsLike) -> None:
        """Set what a drag moves; [] is nothing. Raises PointError for what are no pairs."""
        points = Points.of(drags) if drags != [] else None
        pairs = zip(points.handles, points.targets, strict=True) if points else ()
        self.drags = tuple((*handle, *target) for handle, target in pairs)

    def grab(self, handles: Any) -> None:
        """Take hold of the picture at handles, [[x, y]]; what was held before is let go."""
        self.let_go()
        mine = self._grabs
        live = self.session.live(
            handles, base=self._base(), mask=self.mask, grip=self.grip, timeout_s=_FREE_S
        )
        with self._holding:
            if mine == self._grabs:
                self._live = live
                return
        live.close()  # it was let go before it was held

    def frame(self, targets: Any) -> Image | None:
        """Return the model's picture of targets, [[x, y]]; None: it was let go meanwhile."""
        live = self._live
        if live is None:
            return None
        try:
            live.move(targets)
            return live.frame(_FRAME_S).image
        except SessionError:
            if self._live is live:
                raise
            return None

    def let_go(self) -> None:
        """Hold nothing any more."""
        with self._holding:
            self._grabs += 1
            live, self._live = self._live, None
        if live is not None:
            live.close()

    def drag(
        self,
        drags: PointsLike | None = None,
        *,
        preset: str = "fast",
        progress: Progress | None = None,
        timeout_s: float = _DRAG_S,
    ) -> EditResult:
        """Drag, and show the result.

        Args:
            drags: In any form that `Points.of` takes; None: what is placed.
            preset: A name in `PRESETS`.
            progress: Told of the long stages' steps.
            timeout_s: Seconds that it may take.

        Raises:
            PointError: There are no drags, or one leads outside the picture.
            CancelledError: The picture is then as it was.
        """
        if drags is not None:
            self.place(drags)
        self.let_go()
        result = self.session.drag(
            self.drags,
            base=self._base(),
            mask=self.mask,
            grip=self.grip if row_of(None, preset).grips else None,
            preset=preset,
            progress=progress,
            timeout_s=timeout_s,
        )
        self._changed("refined")
        return result

    def undo(self) -> None:
        """Show the picture before. Raises SessionError where there is none."""
        self.let_go()
        self.session.undo()
        self._changed(None)

    def redo(self) -> None:
        """Show what was undone last. Raises SessionError where there is none."""
        self.let_go()
        self.session.redo()
        self._changed(None)

    def cancel(self) -> None:
        """End what runs, and let go: the picture is as it was."""
        if self._session is not None:
            self._session.cancel()
        self.let_go()

    def _changed(self, kind: str | None) -> None:
        """Note that another picture is seen, and what made it."""
        self.version += 1
        self._kind = kind

    def _base(self) -> Any:
        """Return where a drag begins: at what is seen."""
        return "result" if self.session.can_undo else "source"

    # What the canvas asks.

    def answer(
        self,
        asked: Mapping[str, Any],
        picture: bytes | None = None,
        progress: Progress | None = None,
    ) -> Answer:
        """Do what the canvas asks (page/board.js), and return what it is told.

        Args:
            asked: {"do": ...} and what that needs.
            picture: A file's content: of what is painted.
            progress: Told of a drag's steps.

        Raises:
            DragnoiseError: It cannot be done.
        """
        match asked.get("do"):
            case "seen":
                return self.state(), self.image.to_bytes("png")
            case "before":
                return self.state(), self.source.to_bytes("png")
            case "layer":
                mask = self.mask if asked.get("layer") == "mask" else self.grip
                return {}, None if mask is None else _white(mask)
            case "paint":
                size = (self.image.width, self.image.height)
                mask = None if picture is None else Mask.from_bytes(picture, *size)
                self.paint(str(asked.get("layer")), mask)
                return {}, None
            case "grab":
                self.grab(asked.get("handles"))
                return {}, None
            case "move":
                image = self.frame(asked.get("targets"))
                return {}, None if image is None else _jpeg(image)
            case "release":
                self.drag(
                    asked.get("drags"), preset=asked.get("preset") or "fast", progress=progress
                )
            case "undo":
                self.undo()
            case "redo":
                self.redo()
            case "cancel":
                self.cancel()
                return self.state(), None
            case other:
                raise ConfigError(f"a canvas asks for no {str(other)[:20]!r}")
        return self.state(), self.image.to_bytes("png")


def address_of(picture: bytes) -> str:
    """Return a picture's file as an address that holds it, for hosts that send text alone."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def file_of(address: object) -> bytes:
    """Return the file that such an address holds. Raises ImageError."""
    begin, _, content = address.partition(",") if isinstance(address, str) else ("", "", "")
    if not (begin.startswith("data:image/") and begin.endswith(";base64")):
        raise ImageError("a picture is sent as data:image/png;base64,...")
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as broken:
        raise ImageError(f"a picture's base64 is broken: {broken}") from None


def _jpeg(image: Image) -> bytes:
    content = io.BytesIO()
    image.to_pil().save(content, "JPEG", quality=_QUALITY)
    return content.getvalue()


def _white(mask: Mask) -> bytes:
    """Return a mask's file: white where it is set."""
    return Image.of(mask.editable).to_bytes("png")
