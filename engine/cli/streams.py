"""Streams that outlive their reader: work is not lost because nobody reads what is said of it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Patient", "patient_streams"]


class Patient:
    """A text stream that never raises.

    What its encoding has no room for is written as an escape. What cannot be written is dropped,
    and `refused` says why. A stream that was closed before the program began is nobody's wish to
    read: nothing is refused there.
    """

    def __init__(self, stream: Any) -> None:
        """Wrap a stream; None: it was closed."""
        self._stream = stream
        self.refused = ""

    def write(self, text: str) -> int:
        """Write what can be written; return the number of characters, as if it were all."""
        if self._takes():
            with self._noticing():
                self._stream.write(self._encodable(text))
        return len(text)

    def flush(self) -> None:
        """Hand on what was written; a stream that refuses it gets nothing any more."""
        if self._takes():
            with self._noticing():
                self._stream.flush()

    def _takes(self) -> bool:
        return self._stream is not None and not self.refused

    def isatty(self) -> bool:
        """Whether a person reads along."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _encodable(self, text: str) -> str:
        encoding = getattr(self._stream, "encoding", None)
        if encoding is None or getattr(self._stream, "errors", "strict") != "strict":
            return text
        return text.encode(encoding, "backslashreplace").decode(encoding)

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as refused:  # ValueError: it was closed meanwhile
            self.refused = getattr(refused, "strerror", None) or str(refused)
            self._drop()

    def _drop(self) -> None:
        """Lead the stream to nowhere, or the interpreter's end would try to write the rest."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def patient_streams() -> Iterator[Patient]:
    """Make stdout and stderr patient while this is open; gives stdout's."""
    _occupy_closed()
    out, err = sys.stdout, sys.stderr
    patient = Patient(out)
    streams: Any = sys
    streams.stdout, streams.stderr = patient, Patient(err)
    try:
        yield patient
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = out, err


def _occupy_closed() -> None:
    """Open stdin, stdout and stderr to nowhere where they are closed.

    The next file that is opened would take the number, and get what is meant for the stream.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)
