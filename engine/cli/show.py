"""Print tables, JSON documents and progress bars."""

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..session.result import EditResult, Progress

__all__ = ["print_edits", "print_json", "print_table", "progress_bar"]


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document as the last line of stdout; a number that is none is null there."""
    print(json.dumps(_finite(document), allow_nan=False), flush=True)


def _finite(value: Any) -> Any:
    """Return the same with None for NaN and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of text under the names of their columns."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 140
    Console(highlight=False, width=width).print(table)


def _seconds(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds / 1e3:.2f}"


def print_edits(edits: Sequence[tuple[str, "EditResult"]]) -> None:
    """Print a table of named edits: iterations, whether they reached, seconds by stage.

    The check of the picture, which is no stage of the edit, has no column; the total has its time.
    """
    ran = dict.fromkeys(stage for _, result in edits for stage in result.timings_ms)
    stages = [stage for stage in ran if stage not in ("rebuild", "total")]
    stages = [*stages, "total"]
    columns = ["edit", "iterations", "reached", *(f"{stage} (s)" for stage in stages)]
    rows = []
    for name, result in edits:
        seconds = [_seconds(result.timings_ms.get(stage)) for stage in stages]
        reached = "yes" if result.reached else "no"
        rows.append([name, str(len(result.history.losses)), reached, *seconds])
    print_table(columns, rows)


@contextmanager
def progress_bar() -> Iterator["Progress"]:
    """Show what is being done and how far it is, in one line on stderr that is gone when done.

    Gives a function of (what, done, total). Where stderr is not a terminal, nothing is shown.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    stderr = Console(stderr=True)
    with Progress(
        *columns, console=stderr, transient=True, disable=not sys.stderr.isatty()
    ) as bars:
        bar = bars.add_task("")

        def report(what: str, done: int, total: int) -> None:
            bars.update(bar, description=what, completed=done, total=max(total, 1))

        yield report
