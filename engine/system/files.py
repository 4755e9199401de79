"""Write files whole or not at all, and refuse before any work is done if they cannot be written."""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import OutputError

__all__ = ["PICTURES", "writable", "write_whole"]

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Suffixes of the kinds of pictures that can be written."""


def writable(path: str | os.PathLike[str], suffixes: Sequence[str] = PICTURES) -> Path:
    """Return `path`, if a file of one of these kinds can be made there.

    Raises OutputError otherwise, before any work is done.
    """
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise OutputError(
            f"{str(path)!r} does not end in a known kind of file; use one of {', '.join(suffixes)}"
        )
    if target.is_dir():
        raise OutputError(f"{str(path)!r} is a folder; give the name of a file")
    if not target.parent.is_dir():
        raise OutputError(f"the folder {str(target.parent)!r} does not exist; make it first")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"the folder {str(target.parent)!r} cannot be written to; choose another")
    return target


def write_whole(target: Path, write: Callable[[Path], object], *, mode: int = 0o666) -> Path:
    """Write a file under a temporary name beside `target`, then rename it; return `target`.

    A reader sees the old file or the new one, never a part.

    Args:
        target: The file.
        write: Called with the temporary path.
        mode: The permissions, of which the process's mask takes away; 0o600: the user's alone.

    Raises:
        OutputError: The disk refuses; the temporary file is gone then.
    """
    handle, name = tempfile.mkstemp(
        prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent
    )
    os.close(handle)
    unfinished = Path(name)
    try:
        write(unfinished)
        mask = os.umask(0)
        os.umask(mask)
        unfinished.chmod(mode & ~mask)
        unfinished.replace(target)
    except OSError as refused:
        raise OutputError(f"{str(target)!r} could not be written ({refused})") from refused
    finally:
        unfinished.unlink(missing_ok=True)
    return target
