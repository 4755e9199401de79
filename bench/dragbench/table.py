"""Sum up the samples' scores by category, the zero line (no edit) beside each row."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..fidelity.statistics import Interval, grouped_interval
from ..jobs.run import FAILED
from .judge import EDITED, UNEDITED
from .samples import CATEGORIES

__all__ = ["ALL", "Line", "cells_of", "lines_of", "markdown", "samples_cells"]

ALL = "all"

_NAMES = {EDITED: "", UNEDITED: ", no edit"}

_DIGITS = {
    "MD px": 1,
    "exact MD px": 1,
    "m-MD px": 1,
    "near MD px": 1,
    "IF": 3,
    "DAI 1": 4,
    "DAI 5": 4,
    "DAI 10": 4,
    "DAI 20": 4,
    "outside dB": 1,
    "seconds": 2,
}
"""The figures and how many decimals they are shown with."""

_PER_PAIR = {
    "MD px": "distances_px",
    "exact MD px": "exact_px",
    "m-MD px": "masked_px",
    "near MD px": "windowed_px",
}
_PER_PICTURE = {"IF": "fidelity", "outside dB": "outside_db"}


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        category: A category, or ALL.
        whose: EDITED, or UNEDITED for the zero line.
        images: How many.
        pairs: Of points, in all of them.
        figures: Means with intervals, by their names; distances over pairs, all else over images.
    """

    category: str
    whose: str
    images: int
    pairs: int
    figures: Mapping[str, Interval]

    @property
    def name(self) -> str:
        return self.category + _NAMES[self.whose]

    def to_dict(self) -> dict[str, Any]:
        """Return the line, ready for JSON."""
        figures = {name: asdict(figure) for name, figure in self.figures.items()}
        return vars(self) | {"figures": figures}


def lines_of(results: Mapping[str, Mapping[str, Any]]) -> list[Line]:
    """Return the lines of all that did not fail: of every category, then of all.

    Args:
        results: By the samples' names.
    """
    good = {name: result for name, result in results.items() if FAILED not in result}
    found = dict.fromkeys(name.partition("/")[0] for name in good)
    known = [category for category in CATEGORIES if category in found]
    categories = [*known, *sorted(found.keys() - {*known})]
    lines = []
    for category in [*categories, ALL] if good else []:
        own = [result for name, result in good.items() if category in (ALL, name.partition("/")[0])]
        lines += [_line(category, whose, own) for whose in (EDITED, UNEDITED)]
    return lines


def _line(category: str, whose: str, results: Sequence[Mapping[str, Any]]) -> Line:
    figures = {
        name: grouped_interval(groups)
        for name in _DIGITS
        if (groups := list(filter(None, (_values(name, whose, result) for result in results))))
    }
    pairs = sum(result["pairs"] for result in results)
    return Line(category, whose, len(results), pairs, figures)


def _values(name: str, whose: str, result: Mapping[str, Any]) -> list[float]:
    """Return a picture's values of a figure; none where it was not measured."""
    scores: Mapping[str, Any] = result[whose]
    if name in _PER_PAIR:
        return list(scores.get(_PER_PAIR[name], ()))
    if name == "seconds":
        return [result["times_ms"]["total"] / 1e3] if whose == EDITED else []
    if name.startswith("DAI "):
        found = scores.get("dai", {}).get(name.removeprefix("DAI "))
    else:
        found = scores.get(_PER_PICTURE[name])
    return [] if found is None else [found]


def cells_of(lines: Sequence[Line], *, intervals: bool = True) -> list[list[str]]:
    """Format the table, a header first: "mean [low, high]", or the mean alone."""
    names = [name for name in _DIGITS if any(name in line.figures for line in lines)]
    header = ["category", "images", "pairs", *names]
    return [header, *(_cells(line, names, intervals) for line in lines)]


def _cells(line: Line, names: Iterable[str], intervals: bool) -> list[str]:
    figures = [_shown(line.figures.get(name), _DIGITS[name], intervals) for name in names]
    return [line.name, str(line.images), str(line.pairs), *figures]


def _shown(figure: Interval | None, digits: int, intervals: bool) -> str:
    if figure is None:
        return ""
    mean, low, high = (f"{value:.{digits}f}" for value in (figure.mean, figure.low, figure.high))
    return f"{mean} [{low}, {high}]" if intervals and low != high else mean


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, numbers to the right."""
    header, *rows = cells
    rule = ["---", *("---:" for _ in header[1:])]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *rows))


def samples_cells(results: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Format every sample's figures and times, a header first, with full digits."""
    good = {name: result for name, result in results.items() if FAILED not in result}
    stages = [*dict.fromkeys(stage for result in good.values() for stage in result["times_ms"])]
    names = [name for name in _DIGITS if name != "seconds"]
    measured = [
        (name, whose)
        for name in names
        for whose in (EDITED, UNEDITED)
        if any(_values(name, whose, result) for result in good.values())
    ]
    header = ["sample", "failed", "pairs", "iterations", "reached"]
    header += [name + _NAMES[whose] for name, whose in measured]
    header += [f"{stage} ms" for stage in stages]
    table = [header]
    for name, result in results.items():
        if FAILED in result:
            table.append([name, result[FAILED], *("" for _ in header[2:])])
            continue
        row = [name, "", *(str(result[field]) for field in ("pairs", "iterations", "reached"))]
        row += [_mean(_values(figure, whose, result)) for figure, whose in measured]
        table.append(row + [str(result["times_ms"].get(stage, "")) for stage in stages])
    return table


def _mean(values: Sequence[float]) -> str:
    return str(math.fsum(values) / len(values)) if values else ""
