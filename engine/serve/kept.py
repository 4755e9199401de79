"""Sessions in a folder, so that they outlive the process.

    ID.safetensors    what `Session.save` writes
    ID.json           the version, and whether there is a mask and a grip
    ID.mask.png, ID.grip.png

The folder is its owner's alone. Nothing else in it is read or removed.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import PIL.Image

from ..editor import Editor
from ..errors import DragnoiseError, OutputError, SessionError
from ..inputs.mask import Mask
from ..session.session import Session
from ..system.files import write_whole
from ..system.incoming import read_json
from .held import Held

__all__ = ["Folder"]

_ID = re.compile(r"[0-9a-f]{32}")
_SUFFIXES = (".json", ".safetensors", ".mask.png", ".grip.png")
_MOST = 10_000
"""Sessions that are kept; the oldest go first."""

_LAYERS = ("mask", "grip")


class Folder:
    """The folder of kept sessions; all of it blocks.

    Args:
        path: Of the folder; it is made.
        keep_s: Seconds after which a session that nobody used is removed.

    Raises:
        OutputError: It cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str], keep_s: float) -> None:
        self._path = Path(path)
        self._keep_s = keep_s
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as refused:
            raise OutputError(
                f"the folder {str(path)!r} cannot be made ({refused.strerror}); choose another"
            ) from refused

    def save(self, held: Held) -> None:
        """Keep a session as it is now. Raises OutputError where it cannot be written."""
        held.session.save(self._file(held.id, ".safetensors"))
        layers = {"mask": held.mask, "grip": held.grip}
        for name, layer in layers.items():
            target = self._file(held.id, f".{name}.png")
            if layer is None:
                target.unlink(missing_ok=True)
            else:
                picture = PIL.Image.fromarray(layer.editable)
                write_whole(target, picture.save, mode=0o600)
        about = {"version": held.version, **{name: layers[name] is not None for name in _LAYERS}}
        text = json.dumps(about)
        write_whole(self._file(held.id, ".json"), lambda part: part.write_text(text), mode=0o600)

    def restore(self, id: str, editor: Editor, undo_bytes: int) -> Held | None:
        """Return a session that was kept; None: there is none, or it cannot be used any more."""
        if _ID.fullmatch(id) is None or not self._file(id, ".json").exists():
            return None
        try:
            about = read_json(self._file(id, ".json"), SessionError, 2**16)
            session = editor.restore(
                self._file(id, ".safetensors"), undo_bytes=undo_bytes, tenant=id
            )
            held = Held(id, session, _version(about))
            held.mask, held.grip = (self._layer(id, name, about, session) for name in _LAYERS)
        except DragnoiseError:
            return None
        held.unsaved = False
        return held

    def forget(self, id: str) -> None:
        """Remove what is kept of a session."""
        for suffix in _SUFFIXES:
            with suppress(OSError):
                self._file(id, suffix).unlink(missing_ok=True)

    def forget_old(self) -> None:
        """Remove the sessions that nobody has used for long."""
        newest_first = sorted(self._ages(), key=lambda row: row[1])
        for number, (id, age_s) in enumerate(newest_first):
            if number >= _MOST or age_s > self._keep_s:
                self.forget(id)

    def _ages(self) -> Iterator[tuple[str, float]]:
        now_s = time.time()
        for path in self._path.glob("*.json"):
            with suppress(OSError):
                if _ID.fullmatch(path.stem):
                    yield path.stem, now_s - path.stat().st_mtime

    def _layer(self, id: str, name: str, about: Any, session: Session) -> Mask | None:
        """Return a mask or a grip. Raises MaskError where it is damaged."""
        if not about.get(name):
            return None
        image = session.source
        return Mask.of(self._file(id, f".{name}.png"), image.width, image.height)

    def _file(self, id: str, suffix: str) -> Path:
        return self._path / f"{id}{suffix}"


def _version(about: Any) -> int:
    if not isinstance(about, dict) or not isinstance(about.get("version"), int):
        raise SessionError("a kept session has no version; it was not written by a service")
    return int(about["version"])
