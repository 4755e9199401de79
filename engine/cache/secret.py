"""The user's key: what the entries on disk are sealed with, so that nobody else's are believed.

It is a file of random bytes that only the user can read, made when it is first needed:

1. the file that DRAGNOISE_CACHE_KEY names: for machines that keep nothing but what they are told to
2. `dragnoise/cache.key` in XDG_STATE_HOME, else in `~/.local/state`
3. where there is no such place, a file of the user's own in the cache's folder
4. where nothing can be written, or permissions say nothing (Windows), bytes that this process
   forgets

Whoever reads it can make entries that are believed; without it entries are made again.
"""

import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..system.incoming import READ_ONLY

__all__ = ["user_key"]

_LENGTH = 32


def user_key(folder: Path) -> bytes:
    """Return the user's key.

    Args:
        folder: Of the cache, whose last resort it is.
    """
    for path in () if sys.platform == "win32" else _places(folder):
        with suppress(OSError, ValueError):  # ValueError: a null byte in the path
            return _read(path) or _made(path)
    return secrets.token_bytes(_LENGTH)


def _places(folder: Path) -> Iterator[Path]:
    """Yield where a key may lie, the first choice first."""
    named = os.environ.get("DRAGNOISE_CACHE_KEY")
    if named:
        yield Path(named)
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    if os.path.isabs(state):
        yield Path(state) / "dragnoise" / "cache.key"
    yield folder / f".key-{os.geteuid()}"


def _read(path: Path) -> bytes | None:
    """Return the key, or None if there is none that only the user can have read or written.

    Raises OSError if it is another user's, or cannot be read.
    """
    try:
        handle = os.open(path, READ_ONLY)
    except FileNotFoundError:
        return None
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if status.st_uid != os.geteuid():
            raise PermissionError(f"{str(path)!r} is another user's")
        alone = stat.S_ISREG(status.st_mode) and not status.st_mode & 0o077
        key = file.read(_LENGTH + 1) if alone else b""
    return key if len(key) == _LENGTH else None


def _made(path: Path) -> bytes:
    """Make a key that is whole from the first moment, and return it, or the one of who was first.

    Raises OSError if none can be made.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_LENGTH))
        try:
            os.link(part, path)
        except OSError:  # there is one, which may be unsound, or there are no links here
            if _read(path) is None:
                part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink()
    key = _read(path)
    if key is None:
        raise PermissionError(f"{str(path)!r} cannot be kept from others")
    return key
