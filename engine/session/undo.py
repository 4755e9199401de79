"""What can be undone and done again: a row of states and where in it we are, bounded in bytes."""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from ..errors import SessionError

__all__ = ["UndoStack"]


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


class UndoStack(Generic[T]):
    """The last state is never dropped, nor is the one that is shown; the oldest go first where all together exceed `limit` bytes."""

    def __init__(self, states: Sequence[T], at: int, limit: int) -> None:
        self._states, self._at, self.limit = list(states), at, limit

    @property
    def now(self) -> T:
        return self._states[self._at]

    @property
    def all(self) -> tuple[tuple[T, ...], int]:
        """Every state, oldest first, and which of them is shown."""
        return tuple(self._states), self._at

    def add(self, state: T) -> None:
        """After the one that is shown; what had been undone is gone."""
        self._states[self._at + 1 :] = [state]
        while len(self._states) > 1 and sum(kept.nbytes for kept in self._states) > self.limit:
            del self._states[0]
        self._at = len(self._states) - 1

    def back(self) -> T:
        if self._at == 0:
            raise SessionError(
                "there is nothing to undo: this is the first picture that is kept; raise undo_bytes to keep more"
            )
        self._at -= 1
        return self.now

    def forth(self) -> T:
        if self._at == len(self._states) - 1:
            raise SessionError("there is nothing to redo: this is the last picture")
        self._at += 1
        return self.now
