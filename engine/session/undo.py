"""An undo stack: a row of states and a place in it, bounded in bytes."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from ..errors import SessionError

__all__ = ["UndoStack"]


T = TypeVar("T")


class UndoStack(Generic[T]):
    """A row of states, the oldest first, one of which is shown.

    The last state is never dropped, nor is the one that is shown; the oldest go first where all
    together exceed `limit_bytes`.

    Args:
        states: The oldest first.
        at: The number of the one that is shown.
        limit_bytes: That all together may have.
        held_bytes: Says how many bytes states keep together.
    """

    def __init__(
        self,
        states: Sequence[T],
        at: int,
        limit_bytes: int,
        held_bytes: Callable[[Sequence[T]], int],
    ) -> None:
        self._states = list(states)
        self._at = at
        self.limit_bytes = limit_bytes
        self._held_bytes = held_bytes

    @property
    def now(self) -> T:
        """The state that is shown."""
        return self._states[self._at]

    @property
    def at(self) -> int:
        """Its number, from the oldest."""
        return self._at

    @property
    def states(self) -> tuple[T, ...]:
        """Every state, the oldest first."""
        return tuple(self._states)

    def add(self, state: T) -> None:
        """Put a state after the one that is shown, and show it; what had been undone is gone."""
        self._states[self._at + 1 :] = [state]
        while len(self._states) > 1 and self._held_bytes(self._states) > self.limit_bytes:
            del self._states[0]
        self._at = len(self._states) - 1

    def undo(self) -> T:
        """Show the state before, and return it. Raises SessionError where there is none."""
        if self._at == 0:
            raise SessionError(
                "there is nothing to undo: this is the first picture that is kept; "
                "raise undo_bytes to keep more"
            )
        self._at -= 1
        return self.now

    def redo(self) -> T:
        """Show the state after, and return it. Raises SessionError where there is none."""
        if self._at == len(self._states) - 1:
            raise SessionError("there is nothing to redo: this is the last picture")
        self._at += 1
        return self.now
