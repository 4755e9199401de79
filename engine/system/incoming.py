"""Read what comes from outside: only regular files, of bounded size, with one kind of error.

Every file that somebody else may have made (a picture, a model folder's, an adapter, a session, a
report, an entry of the cache) is opened here, and whatever a library raises about it is turned into
an error of ours here.
"""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeAlias

from ..errors import DragnoiseError

__all__ = [
    "READ_ONLY",
    "Raised",
    "first_line",
    "kind_of",
    "open_regular",
    "read_bounded",
    "read_json",
    "shown",
    "told_as",
]

Raised: TypeAlias = type[ValueError]
"""The kind of error that a reader raises: one of ours, or what a reader of ours turns into one."""

READ_ONLY = sum(
    getattr(os, flag, 0) for flag in ("O_RDONLY", "O_CLOEXEC", "O_NONBLOCK", "O_BINARY")
)
"""How files from outside are opened; no system has all of these."""

JSON_BYTES = 64 * 2**20
"""The longest text that is read as JSON: a tokenizer's vocabulary has 1 to 3 MB."""


def open_regular(path: str | os.PathLike[str], error: Raised) -> BinaryIO:
    """Open a regular file, or a link to one, for reading, without waiting for anybody.

    A FIFO, a socket, a device and a folder are refused: the first would wait for ever, the third
    never end.

    Args:
        path: Of the file.
        error: Raised, with the path, if there is no such file or it is another thing.
    """
    try:
        handle = os.open(path, READ_ONLY)
    except FileNotFoundError as missing:
        raise error(f"no file at {str(path)!r}; give the path of one") from missing
    except (OSError, ValueError, TypeError) as refused:  # a null byte; what is no path
        raise error(f"{str(path)!r} cannot be opened ({first_line(refused)})") from refused
    kind = kind_of(os.fstat(handle).st_mode)
    if kind != "a file":
        os.close(handle)
        raise error(f"{str(path)!r} is {kind}; give the path of a regular file")
    return open(handle, "rb")


def kind_of(mode: int) -> str:
    """Return what a file's mode says it is, in words."""
    for is_kind, name in (
        (stat.S_ISLNK, "a link"),
        (stat.S_ISREG, "a file"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if is_kind(mode):
            return name
    return "a device"


def read_bounded(path: str | os.PathLike[str], error: Raised, at_most: int) -> bytes:
    """Return the whole content of a regular file of at most so many bytes.

    Args:
        path: Of the file.
        error: Raised for anything else, before its content is read.
        at_most: In bytes.
    """
    with open_regular(path, error) as file, told_as(error, f"{str(path)!r} cannot be read"):
        too_long = os.fstat(file.fileno()).st_size > at_most
        content = b"" if too_long else file.read(at_most + 1)
    if too_long or len(content) > at_most:
        raise error(f"{str(path)!r} has more than the {at_most} bytes that such a file may have")
    return content


def read_json(path: str | os.PathLike[str], error: Raised, at_most: int = JSON_BYTES) -> Any:
    """Return what a JSON file holds; a byte order mark before it is let pass.

    Args:
        path: Of a file in UTF-8.
        error: Raised if it is no regular file, too long, or no JSON (nested too deep included).
        at_most: In bytes.
    """
    content = read_bounded(path, error, at_most)
    with told_as(error, f"{str(path)!r} is no JSON that can be read"):
        return json.loads(content.decode("utf-8-sig"))


@contextmanager
def told_as(error: Raised, what: str) -> Iterator[None]:
    """Raise whatever a library raises while this is open as `error`, in one line.

    The only place that catches every Exception: libraries that read what others made raise
    anything. Errors of ours pass, and so does a lack of memory.

    Args:
        error: Raised instead.
        what: The first words of its message; the library's first line follows in parentheses.
    """
    try:
        yield
    except (DragnoiseError, MemoryError):
        raise
    except Exception as failed:
        raise error(f"{what} ({first_line(failed)})") from failed


def shown(text: str, at_most: int = 120) -> str:
    """Return a name from outside as it can stand in a message: in one line, and not too long."""
    told = text if text.isprintable() else text.encode("unicode_escape").decode()
    return told if len(told) <= at_most else f"{told[:at_most]}..."


def first_line(error: BaseException) -> str:
    """Return an error's first line; two of them where the first ends in a colon, as PyTorch's."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:200]
