"""Lay out counted work, and what devices need for it at the least: as tables, and as a record."""

from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from .ceilings import CEILINGS, Ceiling, Forecast, forecast, measured
from .counts import Counts
from .work import Work

__all__ = ["ceilings_of", "document_of", "show"]


def ceilings_of(dtype: torch.dtype) -> list[Ceiling]:
    """Return the known devices' ceilings, and this CPU's, measured."""
    here = [] if dtype == torch.float16 else [measured(torch.device("cpu"), dtype)]
    return [*CEILINGS.values(), *here]  # the engine does not run float16 on a CPU


def document_of(work: Work, ceilings: Sequence[Ceiling]) -> dict[str, Any]:
    """Return the work with its forecasts, ready for JSON."""
    return work.record() | {"forecast": [_foreseen(work, ceiling) for ceiling in ceilings]}


def show(work: Work, ceilings: Sequence[Ceiling]) -> None:
    """Print the work, its forecasts, and where the ceilings are from."""
    console = Console(highlight=False, width=150)
    console.print(_counted(work))
    console.print(_forecasts(work, ceilings))
    console.print(*(f"{ceiling.name}: {ceiling.source}" for ceiling in ceilings), sep="\n")


def _rows(work: Work, ceiling: Ceiling) -> dict[str, Forecast]:
    """Return the forecast of every stage and of all together."""
    return {name: forecast(counts, ceiling) for name, counts in _counts(work)}


def _counts(work: Work) -> list[tuple[str, Counts]]:
    return [*work.stages.items(), ("total", work.total)]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _foreseen(work: Work, ceiling: Ceiling) -> dict[str, Any]:
    """Return a device's forecast, ready for JSON."""
    return {
        "name": ceiling.name,
        "source": ceiling.source,
        "flops_per_s": {_name(dtype): flops for dtype, flops in ceiling.flops_per_s.items()},
        "bytes_per_s": ceiling.bytes_per_s,
        "stages": {name: vars(row) for name, row in _rows(work, ceiling).items()},
    }


def _counted(work: Work) -> Table:
    """Return the table of what was counted, one row a stage."""
    case = work.case
    height, width = case.size
    what = f"{case.method}, {case.arch}, {width}x{height}, {_name(case.dtype)}"
    mask = "mask" if case.mask else "no mask"
    how = f"{work.active_steps} steps, {work.iterations} iterations, {mask}"
    moved = ("weights read GB", "read GB", "written GB")
    table = _table(
        f"work, counted: {what}, {how}",
        ("TFLOP", *moved, "operators", "launches", "waits", "peak GB"),
    )
    for name, counts in _counts(work):
        table.add_row(
            name,
            f"{counts.flops / 1e12:.2f}",
            f"{counts.weight_bytes / 1e9:.2f}",
            f"{counts.activation_bytes_read / 1e9:.2f}",
            f"{counts.activation_bytes_written / 1e9:.2f}",
            f"{counts.operators:,}",
            f"{counts.launches:,}",
            f"{counts.synchronisations:,}",
            f"{counts.peak_bytes / 1e9:.2f}",
        )
    return table


def _forecasts(work: Work, ceilings: Sequence[Ceiling]) -> Table:
    """Return the table of what devices need at the least, one row a stage."""
    table = _table(
        "forecast (ms): what these devices need at the least, "
        "everything else fused away / as launched",
        [ceiling.name for ceiling in ceilings],
    )
    columns = [_rows(work, ceiling) for ceiling in ceilings]
    for name, _ in _counts(work):
        cells = [
            f"{rows[name].fused_ms:,.1f} / {rows[name].dispatched_ms:,.1f}" for rows in columns
        ]
        table.add_row(name, *cells)
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, box=None, title_justify="left")
    table.add_column("stage")
    for column in columns:
        table.add_column(column, justify="right")
    return table
