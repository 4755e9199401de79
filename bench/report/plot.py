"""A record as a picture: the waterfall, and where the time of each row goes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from dragnoise.engine.system.files import write_whole

from .record import number

__all__ = ["plot"]

_COLOURS = {
    "encode": "#8c8c8c",
    "invert": "#4477aa",
    "drag": "#cc6677",
    "propagate": "#117733",
    "decode": "#ddcc77",
    "other": "#dddddd",
}


def plot(document: Mapping[str, Any], target: Path) -> Path:
    """Write one PNG: seconds of the whole edit a row, by stage, with the ratio to the first row beside it."""
    rows = document["rows"]
    figure, axes = pyplot.subplots(figsize=(9, 1.6 + 0.5 * len(rows)), layout="constrained")
    names = [row["row"] for row in rows]
    left = [0.0] * len(rows)
    for stage, colour in _COLOURS.items():
        widths = [_seconds(row, stage) for row in rows]
        axes.barh(names, widths, left=left, color=colour, label=stage)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, (row, end) in enumerate(zip(rows, left, strict=True)):
        axes.annotate(
            f" {number(end)} s, {row['ratio_to_first']['median']:.1f} x", (end, place), va="center"
        )
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(left))
    axes.set_xlabel(
        f"seconds of one edit{' (computed from a few turns)' if document['computed'] else ''}"
    )
    axes.legend(loc="lower right", fontsize="small")
    about, settings = document["machine"], document["settings"]
    axes.set_title(
        f"{document['model']}, {document['size']}, {document['dtype']}, {settings['iterations']} iterations; "
        f"{about['threads']} threads, {about['cpu'] if about['device'] == 'cpu' else about['gpu'].get('name')}",
        fontsize="medium",
    )
    write_whole(target, lambda part: figure.savefig(part, dpi=110))
    pyplot.close(figure)
    return target


def _seconds(row: Mapping[str, Any], stage: str) -> float:
    stages: Mapping[str, Mapping[str, float]] = row["stages_ms"]
    wanted = [
        name for name in stages if name == stage or (stage == "other" and name not in _COLOURS)
    ]
    return sum(stages[name]["median"] for name in wanted) / 1e3
