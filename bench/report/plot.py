"""Draw a record: the waterfall, and where the time of each row goes."""

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
    """Write a PNG of each row's seconds by stage, with its ratio to the first row."""
    rows = document["rows"]
    figure, axes = pyplot.subplots(figsize=(9, 1.6 + 0.5 * len(rows)), layout="constrained")
    names = [row["row"] for row in rows]
    left = [0.0] * len(rows)
    for stage, colour in _COLOURS.items():
        widths = [_seconds(row, stage) for row in rows]
        axes.barh(names, widths, left=left, color=colour, label=stage)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, (row, end) in enumerate(zip(rows, left, strict=True)):
        label = f" {number(end)} s, {row['ratio_to_first']['median']:.1f} x"
        axes.annotate(label, (end, place), va="center")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(left))
    computed = " (computed from a few steps and iterations)" if document["computed"] else ""
    axes.set_xlabel(f"seconds of one edit{computed}")
    axes.legend(loc="lower right", fontsize="small")
    axes.set_title(_title(document), fontsize="medium")
    write_whole(target, lambda temporary: figure.savefig(temporary, dpi=110))
    pyplot.close(figure)
    return target


def _title(document: Mapping[str, Any]) -> str:
    machine = document["machine"]
    device = machine["cpu"] if machine["device"] == "cpu" else machine["gpu"].get("name")
    return (
        f"{document['model']}, {document['size']}, {document['dtype']}, "
        f"{document['settings']['iterations']} iterations; {machine['threads']} threads, {device}"
    )


def _seconds(row: Mapping[str, Any], stage: str) -> float:
    stages: Mapping[str, Mapping[str, float]] = row["stages_ms"]
    others = [name for name in stages if name not in _COLOURS]
    names = others if stage == "other" else [stage]
    return sum(stages[name]["median"] for name in names if name in stages) / 1e3
