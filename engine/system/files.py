"""The gate for everything that goes out: checked before any work, written whole, cleaned after.

A file is written under a temporary name beside its target, then renamed: a reader sees the old file
or the new one, never a part. The temporary file is locked for as long as its writer lives. What a
killed process has left is not, and the next one that writes into the folder removes it.

What is there already: a file is replaced; of a link the link is replaced, never what it leads to; a
folder, FIFO, socket or device is refused.
"""

import contextlib
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

from ..errors import OutputError
from .incoming import first_line, told_as

if sys.platform != "win32":
    import fcntl

__all__ = [
    "PICTURES",
    "Outputs",
    "unfinished_folder",
    "writable",
    "writable_folder",
    "write_whole",
]

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Suffixes of the kinds of pictures that can be written."""

_Path: TypeAlias = str | os.PathLike[str]

_PREFIX = ".dragnoise-"
_UNFINISHED = re.compile(r"\.dragnoise-[0-9a-f]{16}(\.\w+)?")
_LONGEST_SUFFIX = 16

_ABANDONED_S = 24 * 3600.0
"""Age at which an unfinished file's writer is taken for dead where files cannot be locked."""

_PROBED_BYTES = 4096


def writable(path: _Path, suffixes: Sequence[str] = PICTURES) -> Path:
    """Return `path`, if a file of one of these kinds can be made there.

    It is tried: a temporary file is made in the folder and removed. What killed processes have left
    in the folder is removed, too.

    Args:
        path: Of the file.
        suffixes: The kinds, in lower case; none: any.

    Raises:
        OutputError: No file can be made there.
    """
    with told_as(OutputError, f"{path!r} is no path of a file"):
        target = Path(path)
    if suffixes and target.suffix.lower() not in suffixes:
        raise OutputError(
            f"{str(path)!r} does not end in a known kind of file; use one of {', '.join(suffixes)}"
        )
    if os.fspath(path).endswith(os.sep):
        raise OutputError(f"{str(path)!r} is the name of a folder; give that of a file")
    _check_replaceable(target)
    if not target.parent.is_dir():
        raise OutputError(f"the folder {str(target.parent)!r} does not exist; make it first")
    _try_folder(target.parent)
    return target


def writable_folder(path: _Path) -> Path:
    """Return `path`, if it is a folder that can be written to, or one that can be made.

    Raises:
        OutputError: It is another thing, or nothing can be made there.
    """
    if not os.fspath(path):
        raise OutputError("the name of a folder is empty; give one")
    cannot = f"the folder {str(path)!r} cannot be made"
    with told_as(OutputError, cannot):
        there = _nearest(Path(path))
        for name in Path(path).parts[len(there.parts) :]:
            with contextlib.suppress(FileNotFoundError):
                (there / name).lstat()  # it may be too long
    if not there.is_dir():
        raise OutputError(f"{cannot} ({str(there)!r} is none); choose another")
    _try_folder(there)
    return Path(path)


def _nearest(folder: Path) -> Path:
    """Return the folder, or what is there of the folders above it."""
    try:
        folder.stat()
    except FileNotFoundError:
        return _nearest(folder.parent)
    return folder


def write_whole(target: Path, write: Callable[[Path], object], *, mode: int = 0o666) -> Path:
    """Write a file under a temporary name beside `target`, then rename it; return `target`.

    A reader sees the old file or the new one, never a part.

    Args:
        target: The file.
        write: Called with the temporary path.
        mode: The permissions, of which the process's mask takes away; 0o600: the user's alone.

    Raises:
        OutputError: It cannot be written; nothing is left then.
    """
    with (
        told_as(OutputError, f"{str(target)!r} could not be written"),
        _unfinished_file(target.parent, target.suffix, mode) as (part, permissions),
    ):
        write(part)
        part.chmod(permissions)  # a writer may have made the file anew
        part.replace(target)
    return target


@contextmanager
def unfinished_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder inside `folder`, which is made, too; it is removed with what is in it.

    Raises:
        OutputError: It cannot be made.
    """
    with told_as(OutputError, f"the folder {str(folder)!r} cannot be written to"):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        path, lock = _made_folder(folder)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _unlock(lock)


class Outputs:
    """The files that a command is to write: checked before any work, known if it is cut short."""

    def __init__(self) -> None:
        self._options: dict[str, Path] = {}
        self._before: dict[Path, object] = {}

    def add(self, option: str, path: _Path, suffixes: Sequence[str] = PICTURES) -> Path:
        """Return the path of a file that an option asks for. Raises OutputError; see `writable`."""
        target = writable(path, suffixes)
        self._options[option] = target
        self._before[target] = _seen(target)
        return target

    def check_apart(self, inputs: Mapping[str, _Path | None]) -> None:
        """Check that no output replaces an input or another output.

        Args:
            inputs: Files and folders that the command reads, by what they are; None: not given.

        Raises:
            OutputError: Two are the same file, by whatever name.
        """
        for option, target in self._options.items():
            for what, path in inputs.items():
                if path is not None and _would_replace(target, path):
                    raise OutputError(
                        f"{option} {str(target)!r} is the input {what}; write somewhere else"
                    )
        for (one, first), (other, second) in combinations(self._options.items(), 2):
            if _is_same(first, second):
                raise OutputError(f"{one} and {other} are both {str(first)!r}; name two files")

    def written(self) -> list[Path]:
        """Return the files that have been written since they were added."""
        return [path for path, before in self._before.items() if _seen(path) not in (None, before)]


def _seen(path: Path) -> object:
    """Return what tells a file from the one that replaces it; None where there is none."""
    try:
        status = path.lstat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _would_replace(target: Path, path: _Path) -> bool:
    """Whether writing `target` replaces an input, or weights in an input that is a folder."""
    if _is_same(target, path):
        return True
    if target.suffix.lower() != ".safetensors" or not target.exists() or not os.path.isdir(path):
        return False
    return Path(os.path.realpath(path)) in Path(os.path.realpath(target)).parents


def _is_same(one: _Path, other: _Path) -> bool:
    """Whether two paths lead to one file, or would if it were made."""
    try:
        if os.path.exists(one) and os.path.exists(other):
            return os.path.samefile(one, other)
        return os.path.realpath(one) == os.path.realpath(other)
    except (OSError, ValueError):  # no file has such a name
        return False


def _check_replaceable(target: Path) -> None:
    """Raise OutputError if the name cannot be a file's, or has something that is not replaced."""
    name = str(target)
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as refused:
        raise OutputError(f"{name!r} cannot be a file ({_reason(refused)}); rename it") from refused
    if target.is_dir():
        raise OutputError(f"{name!r} is a folder; give the name of a file")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise OutputError(f"{name!r} is a FIFO, socket or device; give the name of a file")


def _try_folder(folder: Path) -> None:
    """Make a file in a folder and remove it. Raises OutputError if the folder refuses."""
    _remove_abandoned(folder)
    try:
        with _unfinished_file(folder, "", 0o600) as (part, _):
            part.write_bytes(bytes(_PROBED_BYTES))
    except (OSError, ValueError) as refused:
        raise OutputError(
            f"the folder {str(folder)!r} cannot be written to ({_reason(refused)}); choose another"
        ) from refused


def _reason(error: Exception) -> str:
    """Return why, without the name that every message has already."""
    return getattr(error, "strerror", None) or first_line(error)


# Unfinished files and folders.


@contextmanager
def _unfinished_file(folder: Path, suffix: str, mode: int) -> Iterator[tuple[Path, int]]:
    """Give a new file and its permissions; it is removed unless it was renamed.

    Args:
        folder: Where it is made.
        suffix: Of its name: some writers go by it.
        mode: Its permissions, of which the umask takes its part.
    """
    path, lock, permissions = _made_file(folder, suffix[:_LONGEST_SUFFIX], mode)
    try:
        yield path, permissions
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        _unlock(lock)


def _made_file(folder: Path, suffix: str, mode: int) -> tuple[Path, int | None, int]:
    """Return a new file's path, its lock and its permissions."""
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
    while True:
        path = _new_name(folder, suffix)
        handle = os.open(path, flags, mode)
        permissions = stat.S_IMODE(os.fstat(handle).st_mode)
        if sys.platform == "win32":  # an open file cannot be renamed there
            os.close(handle)
            return path, None, permissions
        if _holds(handle, path):
            return path, handle, permissions
        os.close(handle)


def _made_folder(folder: Path) -> tuple[Path, int | None]:
    """Return a new folder's path and its lock."""
    while True:
        path = _new_name(folder, "")
        path.mkdir()
        if sys.platform == "win32":
            return path, None
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if _holds(handle, path):
            return path, handle
        os.close(handle)


def _new_name(folder: Path, suffix: str) -> Path:
    return folder / f"{_PREFIX}{secrets.token_hex(8)}{suffix}"


def _holds(handle: int, path: Path) -> bool:
    """Lock a new file; not so if another process took it for abandoned just before."""
    return _state(handle) != "in use" and path.exists()


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _state(handle: int) -> str:
    """Return whose a file is: "ours" from now on, "in use", or "unknown" without locks."""
    if sys.platform == "win32":
        return "unknown"
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "in use"
    except OSError:
        return "unknown"
    return "ours"


def _remove_abandoned(folder: Path) -> None:
    """Remove the unfinished files and folders whose writer is dead."""
    with contextlib.suppress(OSError, ValueError), os.scandir(folder) as listing:
        for entry in listing:
            if _UNFINISHED.fullmatch(entry.name) and not entry.is_symlink():
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(path: Path) -> None:
    status = path.lstat()
    old = time.time() - status.st_mtime > _ABANDONED_S
    if sys.platform == "win32":
        if old:
            _remove(path)
        return
    if status.st_uid != os.geteuid():
        return
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        state = _state(handle)
        if state == "ours" or (state == "unknown" and old):
            _remove(path)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()
