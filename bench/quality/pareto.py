"""Draw how near warps and methods come against what they cost."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from dragnoise.engine.system.files import write_whole

from ..fidelity.statistics import Interval, interval
from .document import DISTANCE, PLAIN, Document, Score, editors, group_of, score_of, values

__all__ = ["draw_pareto"]

_PANELS: Mapping[str, str] = {
    "tflop": "counted work of Stable Diffusion 1.5 at 512, TFLOP",
    "seconds": "seconds of an edit as measured",
}
_LINES: Mapping[str, str] = {"nothing": "no edit: the zero line", "oracle": "the truth itself"}
_COLOURS = (
    "#4477aa",
    "#cc6677",
    "#117733",
    "#ddcc77",
    "#882255",
    "#44aa99",
    "#999933",
    "#88ccee",
    "#000000",
    "#e07b00",
    "#6a3d9a",
    "#b15928",
)
_MARKERS: Mapping[str, str] = {PLAIN: "s"}


class _Point(NamedTuple):
    """Where a contestant stands.

    Attributes:
        name: The contestant's.
        cost: With its interval; None if it was not counted.
        distance: From the target in pixels, with its interval.
    """

    name: str
    cost: Interval | None
    distance: Interval


def draw_pareto(document: Document, target: Path) -> Path:
    """Write a PNG: distance against counted work, and against seconds, with 95 % intervals.

    Costs are on a logarithmic scale. Who costs no counted work stands at the left edge.
    """
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.4), layout="constrained", sharey=True)
    for (name, label), axes in zip(_PANELS.items(), panels, strict=True):
        _draw_panel(axes, document, score_of(name))
        axes.set_xlabel(label)
    panels[0].set_ylabel("distance from the target, px")
    panels[0].set_ylim(bottom=0)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right center", fontsize="small")
    figure.suptitle(_title(document), fontsize="medium")
    write_whole(target, lambda temporary: figure.savefig(temporary, dpi=100, format="png"))
    pyplot.close(figure)
    return target


def _title(document: Document) -> str:
    about = [f"{document[name]}" for name in ("model", "size", "dtype") if name in document]
    return f"{', '.join(about)}, {len(document['drags'])} drags; nearer to the corner is better"


def _draw_panel(axes: Any, document: Document, cost: Score) -> None:
    """Draw every contestant at its cost and distance, and the lines that bound them."""
    points = list(_points(document, cost))
    edge = _left_edge(points)
    for point, colour in zip(points, _colours(len(points)), strict=True):
        axes.errorbar(
            edge if point.cost is None else point.cost.mean,
            point.distance.mean,
            xerr=None if point.cost is None else _around(point.cost),
            yerr=_around(point.distance),
            fmt=_MARKERS.get(group_of(point.name), "o"),
            color=colour,
            label=point.name,
            capsize=3,
        )
    for name, label in _LINES.items():
        if found := values(document, name, DISTANCE):
            style = "--" if name == "nothing" else ":"
            height = interval(list(found.values())).mean
            axes.axhline(height, color="#777777", linestyle=style, linewidth=1, label=label)
    axes.set_xscale("log")
    if points and all(point.cost is None for point in points):
        axes.set_xticks([edge], ["none"])
    elif any(point.cost is None for point in points):
        axes.set_xlim(left=edge / 2)
        axes.annotate("none counted", (edge / 1.4, 0.5), xycoords=_EDGE, **_NOTE)
    axes.grid(alpha=0.25)


_EDGE = ("data", "axes fraction")
_NOTE: Mapping[str, Any] = {
    "ha": "center",
    "va": "center",
    "rotation": 90,
    "fontsize": 8,
    "color": "#777777",
}


def _points(document: Document, cost: Score) -> Sequence[_Point]:
    found = []
    for name in editors(document):
        distances = list(values(document, name, DISTANCE).values())
        costs = [value for value in values(document, name, cost).values() if value > 0]
        if distances:
            found.append(_Point(name, interval(costs) if costs else None, interval(distances)))
    return found


def _left_edge(points: Sequence[_Point]) -> float:
    """Return a cost well below all others, a power of ten."""
    costs = [point.cost.low for point in points if point.cost is not None]
    return float(10 ** math.floor(math.log10(min(costs)) - 0.5)) if costs else 1.0


def _around(found: Interval) -> list[list[float]]:
    return [[found.mean - found.low], [found.high - found.mean]]


def _colours(count: int) -> list[str]:
    return [_COLOURS[place % len(_COLOURS)] for place in range(count)]
