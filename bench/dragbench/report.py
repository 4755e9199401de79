"""Write what a run of DragBench gave: tables, a plot, contact sheets, the record."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dragnoise.engine.cli.options import set_threads
from dragnoise.engine.system.device import choose_device
from dragnoise.engine.system.files import write_whole

from ..jobs.run import FAILED
from ..report.machine import machine
from ..report.record import to_csv
from .asked import EMBEDDED, Asked
from .plots import plot
from .sheets import write_sheets
from .table import cells_of, lines_of, markdown, samples_cells

__all__ = ["write_report"]


def write_report(
    asked: Asked,
    about: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any]],
    count: int,
) -> tuple[dict[str, Any], list[list[str]]]:
    """Write all files of a run; return its record, ready for JSON, and a table of means.

    Args:
        asked: The run.
        about: What its results depend on.
        results: By the samples' names, as far as there are any.
        count: How many samples there are.
    """
    set_threads(asked.editor.threads)
    lines = lines_of(results)
    cells = cells_of(lines)
    failed = {name: result[FAILED] for name, result in results.items() if FAILED in result}
    files = [
        _written(asked.out / "table.md", _page(about, cells, len(results), count, failed)),
        _written(asked.out / "table.csv", to_csv(cells)),
        _written(asked.out / "samples.csv", to_csv(samples_cells(results))),
    ]
    if lines:
        files += [plot(lines, results, asked.out / "plot.png"), *write_sheets(asked, results)]
    document = {
        "bench": "dragbench",
        "model": Path(asked.editor.model or EMBEDDED).name,
        "size": "",
        "dtype": asked.editor.dtype,
        "machine": machine(choose_device(asked.editor.device)),
        "about": dict(about),
        "samples": {"all": count, "done": len(results) - len(failed), "failed": failed},
        "lines": [line.to_dict() for line in lines],
        "files": [str(file) for file in files],
    }
    _written(asked.out / "record.json", json.dumps(document, indent=1) + "\n")
    return document, cells_of(lines, intervals=False)


def _written(target: Path, text: str) -> Path:
    return write_whole(target, lambda path: path.write_text(text, encoding="utf-8"))


def _page(
    about: Mapping[str, Any],
    cells: list[list[str]],
    done: int,
    count: int,
    failed: Mapping[str, str],
) -> str:
    """Return the page of a run: what was asked, the table, what failed."""
    settings = ", ".join(f"{name} = {value}" for name, value in about["settings"].items())
    learned = f"{about['personalise']} steps of learning each picture; " * bool(
        about["personalise"]
    )
    text = (
        f"# DragBench: {about['method']}\n\n"
        f"{done} of {count} samples; settings: {settings or 'the defaults'}; {learned}"
        "distances are means over pairs of points, all else over pictures, with 95 % bootstrap "
        'intervals over pictures. "No edit" is the zero line: the picture as it was.\n\n'
        f"{markdown(cells)}"
    )
    lost = "".join(f"- {name}: {reason}\n" for name, reason in failed.items())
    return f"{text}\nFailed:\n\n{lost}" if lost else text
