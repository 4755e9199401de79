"""Say what a person should know of an input: as a warning, and to who makes a result of it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..errors import InputWarning

__all__ = ["listening", "say"]

_HEARD: ContextVar[list[str] | None] = ContextVar("heard", default=None)
"""Where the caller that listens keeps what is said."""


def say(notice: str) -> None:
    """Warn (InputWarning), and tell the caller that listens."""
    heard = _HEARD.get()
    if heard is not None:
        heard.append(notice)
    warnings.warn(notice, InputWarning, stacklevel=3)


@contextmanager
def listening() -> Iterator[list[str]]:
    """Listen to what is said while this is open, in this thread; Python warns of a text once."""
    heard: list[str] = []
    before = _HEARD.set(heard)
    try:
        yield heard
    finally:
        _HEARD.reset(before)
