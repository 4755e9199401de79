"""Put into tables what presets cost, how near they come, and how a picture follows a pointer."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..quality.document import CONSEQUENCE, LEFT, Document, contestants, score_of
from ..quality.table import mean_cell
from .record import number

__all__ = ["LIVE_HEADER", "live_cells", "live_row", "presets_cells"]

LIVE_HEADER = (
    "model",
    "frames a second",
    "move to frame, p50 / p95 (ms)",
    "any move to a frame as new, p50 / p95 (ms)",
    "stale",
    "published / frame",
    "published / fast",
    "first frame (ms)",
    "grown kB / 1000 events",
)

_PRESETS: Sequence[tuple[str, str, str, str | None]] = (
    ("`published`: DragNoise to the letter", "published", "published", None),
    ("`fast`: latent moved, five updates", "fast", "fast", "published / fast"),
    ("`live`: latent moved, a frame", "live", "frame", "published / frame"),
    ("`warp`: pixels moved, no model", "elastic-warp", "", None),
)
"""(what it is, its name in the quality bench, its counted work, its ratio in the live bench)."""


def presets_cells(quality: Document, live: Mapping[str, Any]) -> list[list[str]]:
    """Return a row a preset, a header first."""
    header = [
        "preset",
        "way left",
        "consequence",
        "sharpness",
        "TFLOP, next drag of SD 1.5 at 512",
        "times as fast, embedded model, CPU",
    ]
    there = contestants(quality)
    rows = []
    for title, name, counted, faster in _PRESETS:
        if name in there:
            scores = [
                mean_cell(quality, name, score)
                for score in (LEFT, CONSEQUENCE, score_of("sharpness"))
            ]
            work = live["next_tflop"].get(counted)
            ratio = "1" if name == "published" else "-"
            if faster in live["ratios"]:
                ratio = number(live["ratios"][faster]["median"])
            rows.append([title, *scores, "0" if work is None else number(work), ratio])
    return [header, *rows]


def live_row(record: Mapping[str, Any]) -> list[str]:
    """Return a record's row, without its conditions."""
    pointer = record["pointer"]
    grown = record["grown_bytes_per_1000_events"]
    return [
        f"{record['model']} {record['size']}, {record['dtype']}, preset {record['variant']}",
        number(pointer["frames_per_s"]),
        _marks(pointer["latency_ms"]),
        _marks(pointer["event_ms"]),
        str(pointer["stale"]),
        _ratio(record, "published / frame"),
        _ratio(record, "published / fast"),
        number(record["first_frame_ms"]),
        "-" if grown is None else number(grown / 1e3),
    ]


def live_cells(record: Mapping[str, Any]) -> list[list[str]]:
    """Return a record's table, a header first."""
    return [list(LIVE_HEADER), live_row(record)]


def _marks(marks: Mapping[str, float]) -> str:
    return f"{number(marks['p50'])} / {number(marks['p95'])}" if marks else "-"


def _ratio(record: Mapping[str, Any], name: str) -> str:
    return number(record["ratios"][name]["median"]) if name in record["ratios"] else "-"
