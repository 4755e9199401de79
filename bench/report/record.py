"""Records: one JSON document a run, kept in a folder of the device's, and the tables that people read."""

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


def keep(document: Mapping[str, Any], slug: str, folder: Path = RESULTS) -> Path:
    """Write a record to `folder/<slug>/<date>-<commit>-<bench>-<model>.json`: whole, or not at all."""
    target = folder / slug / f"{name_of(document)}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(
        target,
        lambda part: part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8"),
    )


def name_of(document: Mapping[str, Any]) -> str:
    """Of a record's file, and of its plot's, without the ending."""
    about = document["machine"]
    parts = (
        about["date"][:10],
        about["commit"] or "no-commit",
        *(document[name] for name in ("bench", "model", "dtype")),
    )
    return "-".join(parts)


def newest(folder: Path = RESULTS) -> list[tuple[str, dict[str, Any]]]:
    """(device, record): of every device and kind of record the last, in the order of their names."""
    found: dict[tuple[str, ...], tuple[str, dict[str, Any]]] = {}
    for path in sorted(
        folder.glob("*/*.json"), key=lambda path: json.loads(path.read_text())["machine"]["date"]
    ):
        record = json.loads(path.read_text(encoding="utf-8"))
        kind = (
            path.parent.name,
            *(str(record[name]) for name in ("bench", "model", "dtype", "size")),
        )
        found[kind] = (path.parent.name, record)
    return [found[kind] for kind in sorted(found)]


def number(value: float) -> str:
    """Three digits, and no exponent where there is a whole part."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def edits_table(document: Mapping[str, Any]) -> list[list[str]]:
    """The waterfall, a header first: seconds by stage, ratios, the picture's difference."""
    rows = document["rows"]
    ran = dict.fromkeys(name for row in rows for name in row["stages_ms"])
    stages = [name for name in ran if name not in ("embed", "condition", "start")]
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
    return [
        row["row"],
        *(
            number(row["stages_ms"][name]["median"] / 1e3) if name in row["stages_ms"] else ""
            for name in stages
        ),
        number(row["total_ms"]["median"] / 1e3),
        number(row["turns_ms"]["drag"]["median"]) if "drag" in row["turns_ms"] else "",
        f"{row['ratio_to_first']['median']:.2f}",
        f"{row['ratio_to_above']['median']:.2f}",
        f"{row['image_difference']['largest']} of 255",
    ]


def kernels_table(document: Mapping[str, Any]) -> list[list[str]]:
    """Microseconds of formula and kernel, and how many times faster the kernel is."""
    header = ["kernel", "case", "formula us", "kernel us", "ratio"]
    return [
        header,
        *(
            [
                case["kernel"],
                case["case"],
                number(case["formula_ms"]["median"] * 1e3),
                number(case["kernel_ms"]["median"] * 1e3),
                f"{case['ratio']['median']:.2f} ({case['ratio']['low']:.2f} to {case['ratio']['high']:.2f})",
            ]
            for case in document["cases"]
        ),
    ]


def show(title: str, cells: Sequence[Sequence[str]]) -> None:
    table = Table(*cells[0], title=title, title_justify="left", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in cells[1:]:
        table.add_row(*row)
    Console(highlight=False, width=180).print(table)


def to_csv(cells: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(cells)
    return text.getvalue()
