"""Signals that end a command: each is an interruption that cleans up, like Ctrl-C.

Nothing heavy is imported here: a program that is still being loaded can be interrupted, too.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

__all__ = ["code_of", "interruptible", "process", "words_of"]

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Ctrl-C, what service managers and containers send, and a terminal that was closed."""

_BOUNCE_S = 2.0
"""For so long after a signal others are the same one: programs in between often send two."""

_SOON_S = 0.01


class _Interrupted(KeyboardInterrupt):
    """An interruption by another signal than Ctrl-C's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def code_of(interruption: BaseException) -> int:
    """Return the exit code of an interruption: 128 and the signal's number."""
    return 128 + int(getattr(interruption, "number", signal.SIGINT))


def words_of(interruption: BaseException) -> str:
    """Return what is said of an interruption first."""
    number = getattr(interruption, "number", None)
    return "interrupted" if number is None else f"ended by {signal.Signals(number).name}"


class _Handler:
    """Raises for the first signal and for one that comes later, not for its echo."""

    def __init__(self) -> None:
        self._raised_s: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self._raised_s is not None and now_s - self._raised_s < _BOUNCE_S:
            return
        self._raised_s = now_s
        raise KeyboardInterrupt if number == signal.SIGINT else _Interrupted(number)

    def again(self, number: int) -> None:
        """Raise once more for a signal whose interruption was lost, in a moment: not here."""
        self._raised_s = None
        if sys.platform == "win32":
            return
        main = threading.main_thread().ident
        threading.Timer(_SOON_S, signal.pthread_kill, [main, number]).start()


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise as Ctrl-C does while this is open.

    A signal that is ignored, or that the program around handles, stays as it is. Outside the main
    thread nothing changes.
    """
    hook = sys.unraisablehook
    before = _take_over()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


def _take_over() -> dict[signal.Signals, Any]:
    """Handle the signals that nobody handles; return what handled them before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    ours = {number: there for number, there in before.items() if there in usual}
    handler = _Handler()
    hook = sys.unraisablehook

    def lost(unraisable: Any) -> None:
        """Raise an interruption again that came where none can be raised, as in a finaliser."""
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            handler.again(getattr(unraisable.exc_value, "number", signal.SIGINT))
        else:
            hook(unraisable)

    if ours:
        sys.unraisablehook = lost
    for number in ours:
        signal.signal(number, handler)
    return ours


def process(name: str, main: Callable[[], int]) -> NoReturn:
    """Run a program as a process, from its first import on, and end with its exit code.

    Args:
        name: Stands before what is said on stderr.
        main: Imports what it needs and returns the exit code.
    """
    _take_over()
    try:
        code = main()
    except KeyboardInterrupt as interruption:
        code = code_of(interruption)
        print(f"{name}: {words_of(interruption)}", file=sys.stderr)
    finally:  # nothing interrupts the interpreter's end: what was to be done is done
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    sys.exit(code)
