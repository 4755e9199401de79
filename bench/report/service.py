"""Put into tables how a service starts, what one client waits for, and what many visitors do."""

from collections.abc import Mapping
from typing import Any

from .record import number

__all__ = ["CELLS", "alone_cells", "pointer_cells", "start_cells", "visits_cells"]


def start_cells(record: Mapping[str, Any]) -> list[list[str]]:
    """Return the seconds from the process's start, a header first."""
    start = record["start"]
    times = [number(start["page_s"]), number(start["ready_s"])]
    return [["seconds to the page", "to the model"], times]


def alone_cells(record: Mapping[str, Any]) -> list[list[str]]:
    """Return what one client waits for, a row a size of picture."""
    header = ["one client", "move to frame, p50 / p95 (ms)", "of it the service's (ms)"]
    rows = [
        [
            f"{side}x{side}",
            f"{number(row['p50'])} / {number(row['p95'])}",
            f"{number(row['over_p50'])} / {number(row['over_p95'])}",
        ]
        for side, row in record["alone"].items()
    ]
    return [header, *rows]


def pointer_cells(record: Mapping[str, Any]) -> list[list[str]]:
    """Return how frames follow a pointer that does not wait for them."""
    row = record["pointer"]
    header = ["a pointer", "frames", "move to its frame, p50 / p95 (ms)", "grown kB / 1000 events"]
    cells = [
        f"{row['events']} events, {row['rate_hz']} a second",
        str(row["frames"]),
        f"{number(row['p50'])} / {number(row['p95'])}",
        number(row["grown_bytes_per_1000_events"] / 1e3),
    ]
    return [header, cells]


def visits_cells(record: Mapping[str, Any]) -> list[list[str]]:
    """Return what visitors met, a row a kind."""
    visits = record["visits"]
    header = [f"{record['users']} visitors", "times", "failed", "no room (429)", "p50 / p95 (ms)"]
    rows = [
        [
            name,
            str(row["count"]),
            str(row["failed"]),
            str(visits["refused"].get(name, 0)),
            f"{number(row['p50_ms'])} / {number(row['p95_ms'])}",
        ]
        for name, row in sorted(visits["kinds"].items())
    ]
    return [header, *rows]


CELLS = (start_cells, alone_cells, pointer_cells, visits_cells)
"""Every table of a record, in the order in which they are read."""
