"""Draw a run of DragBench: what was reached in every category, and where the time went."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from dragnoise.engine.system.files import write_whole

from ..jobs.run import FAILED
from .judge import EDITED, UNEDITED
from .table import ALL, Line

__all__ = ["plot"]

_SHOWN = ("MD px", "m-MD px", "IF", "outside dB")


def plot(lines: Sequence[Line], results: Mapping[str, Mapping[str, Any]], target: Path) -> Path:
    """Write a PNG: a panel a figure with its zero line, and the seconds by stage."""
    edited = [line for line in lines if line.whose == EDITED]
    names = [name for name in _SHOWN if all(name in line.figures for line in edited)]
    height = 1.5 + 0.35 * len(edited)
    figure, axes = pyplot.subplots(
        1,
        len(names) + 1,
        figsize=(3.6 * (len(names) + 1), height),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    for axis, name in zip(axes[0], names, strict=False):
        _draw_figure(axis, lines, name)
    _draw_times(axes[0][-1], edited, results)
    axes[0][0].invert_yaxis()
    write_whole(target, lambda temporary: figure.savefig(temporary, dpi=110))
    pyplot.close(figure)
    return target


def _draw_figure(axis: Any, lines: Sequence[Line], name: str) -> None:
    """Draw a figure's means with intervals, of edits and of the zero line."""
    for whose, colour, label in ((UNEDITED, "#999999", "no edit"), (EDITED, "#117733", "edited")):
        if whose == UNEDITED and name == "outside dB":
            continue  # equal pictures' 114 dB would leave no room for the others
        own = [line for line in lines if line.whose == whose and name in line.figures]
        means = [line.figures[name].mean for line in own]
        below = [line.figures[name].mean - line.figures[name].low for line in own]
        above = [line.figures[name].high - line.figures[name].mean for line in own]
        axis.errorbar(
            means,
            [line.category for line in own],
            xerr=[below, above],
            fmt="o",
            color=colour,
            label=label,
            capsize=3,
        )
    axis.set_xlabel(name)
    axis.legend(fontsize="small")


def _draw_times(
    axis: Any, edited: Sequence[Line], results: Mapping[str, Mapping[str, Any]]
) -> None:
    """Draw the mean seconds of every category by stage, one after the other."""
    good = {name: result for name, result in results.items() if FAILED not in result}
    stages = dict.fromkeys(stage for result in good.values() for stage in result["times_ms"])
    stages.pop("total", None)
    categories = [line.category for line in edited]
    left = [0.0] * len(categories)
    for stage in stages:
        widths = [_seconds(good, category, stage) for category in categories]
        axis.barh(categories, widths, left=left, label=stage)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axis.set_xlabel("seconds of an edit")
    axis.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def _seconds(results: Mapping[str, Mapping[str, Any]], category: str, stage: str) -> float:
    own = [
        result["times_ms"].get(stage, 0.0)
        for name, result in results.items()
        if category in (ALL, name.partition("/")[0])
    ]
    return float(sum(own) / len(own) / 1e3)
