"""Check a value and return it as Python's own, or say in one line what it must be."""

import math
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ..errors import ConfigError

__all__ = ["checked_priority", "flag", "function", "of_kind", "real", "seconds", "shown", "whole"]

F = TypeVar("F")
K = TypeVar("K")


def shown(value: object) -> str:
    """Return what a message shows of a value: its repr, in one line of at most 120 letters."""
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # a whole number of thousands of digits; a nested list
        text = f"a value of type {type(value).__name__} that is too long to show"
    return text if len(text) <= 120 else f"{text[:117]}..."


def whole(
    name: str, value: Any, low: int, high: int | None = None, allowed: str | None = None
) -> int:
    """Return a whole number of any library's kind (NumPy's, for example) as Python's.

    Args:
        name: What a message calls it.
        value: The number.
        low: The least.
        high: The greatest; None: as large as one likes.
        allowed: The range, in words; None: its numbers.

    Raises:
        ConfigError: Naming the value and its range.
    """
    if isinstance(value, (int, np.integer)) and type(value) is not bool:
        number = int(value)
        if low <= number and (high is None or number <= high):
            return number
    if allowed is None:
        allowed = f"{low} or more" if high is None else f"a whole number from {low} to {high}"
    raise ConfigError(f"{name} must be {allowed}, got {shown(value)}")


def real(name: str, value: Any, allowed: str, holds: Callable[[float], bool]) -> float:
    """Return a finite number of any library's kind as Python's; a whole one stays whole.

    Args:
        name: What a message calls it.
        value: The number.
        allowed: The range, in words.
        holds: Whether a number is in the range.

    Raises:
        ConfigError: Naming the value and its range.
    """
    if isinstance(value, (int, float, np.integer, np.floating)) and type(value) is not bool:
        try:
            number = int(value) if isinstance(value, (int, np.integer)) else float(value)
            if math.isfinite(number) and holds(number):
                return number
        except OverflowError:  # no float is as large
            pass
    raise ConfigError(f"{name} must be a number {allowed}, got {shown(value)}")


def flag(name: str, value: object) -> bool:
    """Return True or False, Python's or NumPy's. Raises ConfigError for anything else."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise ConfigError(f"{name} must be True or False, got {shown(value)}")


def seconds(name: str, value: Any) -> float | None:
    """Return seconds above 0, as large as one likes; None for None. Raises ConfigError."""
    if value is None:
        return None
    number = isinstance(value, (int, float, np.integer, np.floating))
    if not number or not value > 0:
        raise ConfigError(f"{name} must be above 0, got {shown(value)}")
    return float(min(value, sys.float_info.max))


def function(name: str, value: F | None) -> F | None:
    """Return what can be called, or None. Raises ConfigError for anything else."""
    if value is None or callable(value):
        return value
    raise ConfigError(f"{name} must be a function, got {shown(value)}")


def of_kind(name: str, value: Any, kind: type[K]) -> K:
    """Return a thing of this kind. Raises ConfigError for anything else."""
    if isinstance(value, kind):
        return value
    raise ConfigError(f"{name} must be a {kind.__name__}, got {shown(value)}")


def checked_priority(value: Any) -> int:
    """Return a job's priority, of which higher ones run first. Raises ConfigError."""
    return whole("priority", value, -(2**63), 2**63)
