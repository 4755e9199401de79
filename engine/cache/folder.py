"""A folder in which anybody may have put anything under our names.

Names are opened one by one inside the folder that was opened, never through a link, and never
waiting for anybody. Nothing that is another user's, and nothing of another name, is touched.
"""

import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..system.incoming import kind_of
from .sealed import BrokenError

if sys.platform != "win32":
    import fcntl

__all__ = [
    "Listed",
    "file_name",
    "listed",
    "move",
    "open_folder",
    "open_own",
    "put",
    "remove",
    "remove_abandoned",
]

_SUFFIX = ".safetensors"
_OURS = re.compile(r"[0-9a-f]{64}\.safetensors")
_PART = re.compile(r"\.dragnoise-[0-9a-zA-Z_]+\.part")

_ABANDONED_S = 3600.0
"""Age at which an unfinished file's writer is taken for dead where files cannot be locked."""


class Listed(NamedTuple):
    """A file of ours.

    Attributes:
        used: When it was last read or written, in seconds since 1970.
        nbytes: Its size.
        name: Inside its folder.
        regular: Whether it is a regular file; else a link, a FIFO, a socket or a device.
    """

    used: float
    nbytes: int
    name: str
    regular: bool


def file_name(name: str) -> str:
    """Return the file's name of an entry."""
    return name + _SUFFIX


@contextmanager
def open_folder(path: str | Path, inside: int | None = None) -> Iterator[int]:
    """Open a folder, for the functions below.

    Args:
        path: The folder; it may be a link.
        inside: Another folder that it lies in; it may be no link then.

    Raises:
        OSError: There is none, it cannot be read, or the system opens no names inside a folder.
    """
    if os.open not in os.supports_dir_fd:
        raise OSError(f"{sys.platform} opens no names inside a folder")
    how = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    handle = os.open(path, how if inside is None else how | os.O_NOFOLLOW, dir_fd=inside)
    try:
        yield handle
    finally:
        os.close(handle)


def _own(status: os.stat_result) -> bool:
    """Whether a file is this user's; to root every file is."""
    return os.geteuid() in (0, status.st_uid)


def open_own(folder: int, name: str) -> BinaryIO:
    """Open a regular file for reading.

    Raises FileNotFoundError, BrokenError if it is another thing, OSError if it cannot be opened.
    """
    how = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    kind = kind_of(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    if kind == "a file":  # opening can do things to a device; what it became since is seen below
        handle = os.open(name, how, dir_fd=folder)
        kind = kind_of(os.fstat(handle).st_mode)
        if kind == "a file":
            return open(handle, "rb")
        os.close(handle)
    raise BrokenError(f"it is {kind}")


def listed(folder: int) -> list[Listed]:
    """Return what is ours by name and owner, but no folders, the longest unused first."""
    files = []
    with os.scandir(folder) as listing:
        for file in listing:
            if not _OURS.fullmatch(file.name):
                continue
            with suppress(OSError):
                status = file.stat(follow_symlinks=False)
                if _own(status) and not stat.S_ISDIR(status.st_mode):
                    regular = stat.S_ISREG(status.st_mode)
                    files.append(Listed(status.st_mtime, status.st_size, file.name, regular))
    return sorted(files)


def move(name: str, folder: int, other: int) -> bool:
    """Move a name of this user's to another folder; return whether it is. Raises OSError."""
    if not _own(os.stat(name, dir_fd=folder, follow_symlinks=False)):
        return False
    os.replace(name, name, src_dir_fd=folder, dst_dir_fd=other)
    return True


def remove(folder: int, name: str) -> bool:
    """Remove a name; return whether it is gone. Links are removed, not what they lead to."""
    with suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=folder)
        except OSError:
            return False
    return True


def remove_abandoned(folder: int) -> int:
    """Remove unfinished files whose writers were killed; return their number."""
    with os.scandir(folder) as listing:
        names = [file.name for file in listing if _PART.fullmatch(file.name)]
    return sum(_remove_abandoned(folder, name) for name in names)


def _remove_abandoned(folder: int, name: str) -> bool:
    """Remove an unfinished file unless it has a writer, which holds a lock on it."""
    with suppress(OSError, BrokenError), open_own(folder, name) as file:
        status = os.fstat(file.fileno())
        if not _own(status):
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # not every disk has locks
            if time.time() - status.st_mtime < _ABANDONED_S:
                return False
        return remove(folder, name)
    return False


def put(folder: int, name: str, raw: bytes) -> None:
    """Write an entry under a temporary name, flush and rename it.

    Raises:
        BrokenError: What lies under the name cannot be replaced.
        OSError: The folder refuses.
    """
    part, handle = _new_part(folder)
    try:
        with open(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(handle)
            _rename(folder, part, name)
    finally:
        remove(folder, part)


def _rename(folder: int, part: str, name: str) -> None:
    try:
        os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    except (IsADirectoryError, PermissionError) as blocked:  # a folder, or another user's file
        raise BrokenError(f"what has its name cannot be replaced: {blocked.strerror}") from blocked


def _new_part(folder: int) -> tuple[str, int]:
    """Make an empty file of a new name that is locked for as long as its writer lives."""
    while True:
        name = f".dragnoise-{secrets.token_hex(8)}.part"
        handle = os.open(
            name,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=folder,
        )
        with suppress(OSError):  # not every disk has locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return name, handle
        os.close(handle)  # it was taken for abandoned before it was locked
