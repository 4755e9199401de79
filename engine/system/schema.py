"""Say what a value that somebody else wrote must be, and tell where it is something else.

A rule is data: of what kind, in which range, how many. `check` walks a value beside its rule and
raises MismatchError, in one line, at the first difference. Texts are never quoted in it: they may
be somebody's prompt.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = [
    "ANY_TEXT",
    "FLAG",
    "Each",
    "Fields",
    "Maybe",
    "MismatchError",
    "Plain",
    "Real",
    "Row",
    "Rule",
    "Text",
    "Whole",
    "mismatch",
]


class MismatchError(ValueError):
    """A value that is not what its rule says."""


class Rule(Protocol):
    """What a value must be."""

    def check(self, value: Any, where: str) -> None:
        """Raise MismatchError, which names the place, for any other value."""
        ...


def mismatch(where: str, wanted: str, value: Any) -> MismatchError:
    """Return the error of a value that is not what is wanted."""
    return MismatchError(f"{where} must be {wanted}, got {_seen(value)}")


def _seen(value: Any) -> str:
    """Describe a value without quoting what a person wrote."""
    if value is None or isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if abs(value) < 10**18 else "a whole number of that many digits"
    if isinstance(value, str):
        return f"a text of {len(value)} characters"
    if isinstance(value, (tuple, list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


@dataclass(frozen=True)
class Whole:
    """A whole number in a range, ends included."""

    low: int = 0
    high: int | None = None

    def check(self, value: Any, where: str) -> None:
        most = math.inf if self.high is None else self.high
        if type(value) is not int or not self.low <= value <= most:
            upwards = "or more" if self.high is None else f"to {self.high}"
            raise mismatch(where, f"a whole number, {self.low} {upwards}", value)


@dataclass(frozen=True)
class Real:
    """A number in a range, ends included: finite, unless an end is not."""

    low: float = -math.nextafter(math.inf, 0)
    high: float = math.nextafter(math.inf, 0)

    def check(self, value: Any, where: str) -> None:
        if type(value) not in (int, float) or not self.low <= value <= self.high:
            raise mismatch(where, f"a number from {self.low:g} to {self.high:g}", value)


@dataclass(frozen=True)
class Text:
    """A text that can be written in UTF-8.

    Attributes:
        longest: Characters that it may have; None: any number.
        among: The texts that it may be; empty: any.
    """

    longest: int | None = None
    among: tuple[str, ...] = ()

    def check(self, value: Any, where: str) -> None:
        if type(value) is not str or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise mismatch(where, "a text in UTF-8", value)
        if self.longest is not None and len(value) > self.longest:
            raise mismatch(where, f"a text of at most {self.longest} characters", value)
        if self.among and value not in self.among:
            raise mismatch(where, f"one of {', '.join(self.among)}", value)


@dataclass(frozen=True)
class _Flag:
    """True or False."""

    def check(self, value: Any, where: str) -> None:
        if type(value) is not bool:
            raise mismatch(where, "true or false", value)


@dataclass(frozen=True)
class Maybe:
    """A value by another rule, or None."""

    rule: Rule

    def check(self, value: Any, where: str) -> None:
        if value is not None:
            self.rule.check(value, where)


@dataclass(frozen=True)
class Each:
    """A tuple or list of any length, of values by one rule.

    Attributes:
        rule: Of every value.
        least: How many there are at least.
        most: How many there are at most; None: any number.
    """

    rule: Rule
    least: int = 0
    most: int | None = None

    def check(self, value: Any, where: str) -> None:
        count = len(value) if type(value) in (tuple, list) else -1
        if not self.least <= count <= (math.inf if self.most is None else self.most):
            how_many = f"{self.least} or more" if self.most is None else f"up to {self.most}"
            raise mismatch(where, f"{how_many} values", value)
        for number, item in enumerate(value):
            self.rule.check(item, f"{where}[{number}]")


@dataclass(frozen=True)
class Row:
    """A tuple or list of values, each by a rule of its own."""

    rules: Sequence[Rule]

    def check(self, value: Any, where: str) -> None:
        if type(value) not in (tuple, list) or len(value) != len(self.rules):
            raise mismatch(where, f"{len(self.rules)} values", value)
        for number, (rule, item) in enumerate(zip(self.rules, value, strict=True)):
            rule.check(item, f"{where}[{number}]")


@dataclass(frozen=True)
class Fields:
    """A dict, or an object of a kind, with all these fields.

    Attributes:
        rules: By name.
        kind: Of the object.
        more: Whether a dict may have other fields too.
    """

    rules: Mapping[str, Rule]
    kind: type = dict
    more: bool = False

    def check(self, value: Any, where: str) -> None:
        if type(value) is not self.kind:
            raise mismatch(where, f"a {self.kind.__name__}", value)
        fields = value if isinstance(value, dict) else vars(value)
        missing = [name for name in self.rules if name not in fields]
        foreign = [] if self.more else [name for name in fields if name not in self.rules]
        if missing or foreign:
            wrong = f"no {missing[0]}" if missing else f"{len(foreign)} fields that it cannot have"
            raise MismatchError(f"{where} has {wrong}")
        for name, rule in self.rules.items():
            rule.check(fields[name], f"{where}.{name}" if where else name)


@dataclass(frozen=True)
class Plain:
    """Whatever JSON holds, of a bounded depth and with finite numbers."""

    depth: int = 16
    _real: Real = field(default=Real(), repr=False)

    def check(self, value: Any, where: str) -> None:
        if isinstance(value, (dict, list)):
            if not self.depth:
                raise MismatchError(f"{where} is nested too deep")
            inside = value.values() if isinstance(value, dict) else value
            for item in inside:
                Plain(self.depth - 1).check(item, where)
        elif isinstance(value, float):
            self._real.check(value, where)


FLAG = _Flag()
ANY_TEXT = Text()
