"""Keep and show records: one JSON document a run, in the device's folder, and tables to read."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dragnoise.engine.system.files import write_whole

__all__ = [
    "RESULTS",
    "edits_table",
    "keep",
    "kernels_table",
    "name_of",
    "newest",
    "number",
    "show",
    "to_csv",
]

RESULTS = Path(__file__).parents[1] / "results"

_KIND = ("bench", "model", "dtype", "size", "variant")
"""What records must have in common for the newest to stand for the others."""


def keep(
    document: Mapping[str, Any], slug: str, folder: Path = RESULTS, indent: int | None = 1
) -> Path:
    """Write a record as `folder/<slug>/<name>.json`, whole or not at all, and return the path.

    Args:
        document: The record.
        slug: The device's folder, as `device_slug` names it.
        folder: The folder of all records.
        indent: Of the JSON; None: all in one line, for what has many numbers.
    """
    target = folder / slug / f"{name_of(document)}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=indent) + "\n"
    return write_whole(
        target,
        lambda temporary: temporary.write_text(text, encoding="utf-8"),
    )


def name_of(document: Mapping[str, Any]) -> str:
    """Name the file of a record, and of its plot, without the ending.

    `variant`, where a record has one, tells apart what one machine measures of one model.
    """
    machine = document["machine"]
    what = [document[name] for name in ("bench", "model", "variant", "dtype") if name in document]
    return "-".join([machine["date"][:10], machine["commit"] or "no-commit", *what])


def newest(folder: Path = RESULTS) -> list[tuple[str, dict[str, Any]]]:
    """Read the newest record of every device and kind.

    Returns:
        (device's folder, record), in the order of the names.
    """
    records: list[tuple[str, dict[str, Any]]] = [
        (path.parent.name, json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(folder.glob("*/*.json"))
    ]
    last: dict[tuple[str, ...], tuple[str, dict[str, Any]]] = {}
    for slug, record in sorted(records, key=lambda pair: str(pair[1]["machine"]["date"])):
        kind = [str(record.get(name, "")) for name in _KIND]
        last[(slug, *kind)] = (slug, record)
    return [last[kind] for kind in sorted(last)]


def number(value: float) -> str:
    """Format a number with three digits, and no exponent where there is a whole part."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def edits_table(document: Mapping[str, Any]) -> list[list[str]]:
    """Format the waterfall, a header first: seconds by stage, ratios, the picture's difference."""
    rows = document["rows"]
    names = dict.fromkeys(name for row in rows for name in row["stages_ms"])
    stages = [name for name in names if name not in ("embed", "condition", "start")]
    header = [
        "row",
        *(f"{name} s" for name in stages),
        "edit s",
        "iteration ms",
        "to first",
        "to above",
        "largest difference",
    ]
    return [header, *(_cells(row, stages) for row in rows)]


def _cells(row: Mapping[str, Any], stages: Sequence[str]) -> list[str]:
    stages_ms = row["stages_ms"]
    iteration_ms = row["turns_ms"].get("drag")
    return [
        row["row"],
        *(number(stages_ms[name]["median"] / 1e3) if name in stages_ms else "" for name in stages),
        number(row["total_ms"]["median"] / 1e3),
        "" if iteration_ms is None else number(iteration_ms["median"]),
        f"{row['ratio_to_first']['median']:.2f}",
        f"{row['ratio_to_above']['median']:.2f}",
        f"{row['image_difference']['largest']} of 255",
    ]


def kernels_table(document: Mapping[str, Any]) -> list[list[str]]:
    """Format the times of kernels and formulas, in microseconds, a header first."""
    table = [["kernel", "case", "formula us", "kernel us", "ratio"]]
    for case in document["cases"]:
        formula_us = number(case["formula_ms"]["median"] * 1e3)
        kernel_us = number(case["kernel_ms"]["median"] * 1e3)
        spread = case["ratio"]
        ratio = f"{spread['median']:.2f} ({spread['low']:.2f} to {spread['high']:.2f})"
        slower = "".join(f", {name} launched by Python" for name in case.get("launched", ()))
        table.append([case["kernel"], case["case"] + slower, formula_us, kernel_us, ratio])
    return table


def show(title: str, cells: Sequence[Sequence[str]]) -> None:
    """Print a table, a header first."""
    table = Table(*cells[0], title=title, title_justify="left", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in cells[1:]:
        table.add_row(*row)
    Console(highlight=False, width=180).print(table)


def to_csv(cells: Sequence[Sequence[str]]) -> str:
    """Return a table as CSV."""
    text = io.StringIO()
    csv.writer(text).writerows(cells)
    return text.getvalue()
