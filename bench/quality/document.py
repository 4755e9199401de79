"""Read the document of a quality run: who took part, and what each scored on which drags.

    {"contestants": {name: summary}, "drags": {name: {"kind", "length_px", ..., "scores": {...}}}}

`scores` holds a result a contestant. A drag or a result that failed is {"failed": why}; a score
that is not there, None or not finite counts for nothing: it is left out, never taken for 0.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from ..jobs.run import FAILED

__all__ = [
    "CONSEQUENCE",
    "DISTANCE",
    "LEFT",
    "METHOD",
    "PLAIN",
    "SCORES",
    "STANDARD",
    "Document",
    "Score",
    "contestants",
    "drags",
    "editors",
    "failures",
    "group_of",
    "kinds",
    "score_of",
    "values",
]

Document: TypeAlias = Mapping[str, Any]
Drag: TypeAlias = Mapping[str, Any]

PLAIN = "warp"
STANDARD = "standard"
METHOD = "method"

_GROUPS: Mapping[str, str] = {
    **dict.fromkeys(("nothing", "reconstruction", "oracle", "goal"), STANDARD),
    **dict.fromkeys(("constant", "random", "another"), STANDARD),
    **dict.fromkeys(("warp", "mask-warp", "elastic-warp", "warp-inpaint"), PLAIN),
}


class Score(NamedTuple):
    """A column of the tables.

    Attributes:
        name: As results have it; "left" is computed.
        title: Over its column, with the unit.
        digits: How many decimals are shown.
        better: 1 if more is better, -1 if less is, 0 if neither.
    """

    name: str
    title: str
    digits: int
    better: int


LEFT = Score("left", "way left", 2, -1)
DISTANCE = Score("distance_px", "distance px", 1, -1)
CONSEQUENCE = Score("consequence", "consequence", 2, 1)

SCORES = (
    LEFT,
    DISTANCE,
    Score("template_px", "template px", 1, -1),
    Score("completion", "completion", 2, 0),
    Score("completion_error", "|1 - completion|", 2, -1),
    CONSEQUENCE,
    Score("gain_db", "gain dB", 1, 1),
    Score("inside_db", "inside dB", 1, 1),
    Score("inside_ssim", "inside SSIM", 3, 1),
    Score("uncovered_db", "uncovered dB", 1, 1),
    Score("outside_db", "outside dB", 1, 1),
    Score("outside_source_db", "outside, source dB", 1, 1),
    Score("sharpness", "sharpness", 2, 1),
    Score("iterations", "iterations", 0, 0),
    Score("reached", "reached", 2, 0),
    Score("tflop", "TFLOP", 0, -1),
    Score("seconds", "seconds", 2, -1),
)
"""All scores, in the order of the columns."""


def score_of(name: str) -> Score:
    """Return the score of a name."""
    return next(score for score in SCORES if score.name == name)


def group_of(contestant: str) -> str:
    """Return what a contestant is: PLAIN, STANDARD (a bound or a control) or METHOD."""
    return _GROUPS.get(contestant, METHOD)


def drags(document: Document, kind: str | None = None) -> dict[str, Drag]:
    """Return the drags that did not fail, by name; of one kind, or of all."""
    found: Mapping[str, Drag] = document["drags"]
    good = {name: drag for name, drag in found.items() if FAILED not in drag}
    return {name: drag for name, drag in good.items() if kind in (None, drag["kind"])}


def kinds(document: Document) -> list[str]:
    """Return the kinds of the drags, in their order."""
    return list(dict.fromkeys(drag["kind"] for drag in drags(document).values()))


def contestants(document: Document) -> list[str]:
    """Return who has a result, in the document's order; who is not in its list comes last."""
    present = {name for drag in drags(document).values() for name in drag["scores"]}
    listed = [name for name in document["contestants"] if name in present]
    return [*listed, *sorted(present.difference(listed))]


def editors(document: Document, group: str | None = None) -> list[str]:
    """Return who competes: plain warps and methods, or one group of them."""
    groups = (PLAIN, METHOD) if group is None else (group,)
    return [name for name in contestants(document) if group_of(name) in groups]


def failures(document: Document) -> list[tuple[str, str]]:
    """Return what failed, (name of the drag or "DRAG, CONTESTANT", why)."""
    found = []
    for name, drag in document["drags"].items():
        if FAILED in drag:
            found.append((name, str(drag[FAILED])))
            continue
        for contestant, scores in drag["scores"].items():
            if FAILED in scores:
                found.append((f"{name}, {contestant}", str(scores[FAILED])))
    return found


def values(
    document: Document, contestant: str, score: Score, kind: str | None = None
) -> dict[str, float]:
    """Return a contestant's finite values of a score, by drag."""
    found = {name: _value(drag, contestant, score) for name, drag in drags(document, kind).items()}
    return dict(_finite(found.items()))


def _finite(found: Iterable[tuple[str, float | None]]) -> Iterable[tuple[str, float]]:
    for name, value in found:
        if value is not None and math.isfinite(value):
            yield name, value


def _value(drag: Drag, contestant: str, score: Score) -> float | None:
    scores: Mapping[str, Any] = drag["scores"].get(contestant, {})
    if score is not LEFT:
        value = scores.get(score.name)
        return None if value is None else float(value)
    distance_px = scores.get(DISTANCE.name)
    length_px = drag["length_px"]
    return float(distance_px / length_px) if distance_px is not None and length_px else None
