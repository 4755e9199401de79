"""Where the time of an edit goes, beside what the counted work of each stage takes at this machine's own speed: the share of the roofline."""

from collections.abc import Mapping, Sequence
from typing import Any

from dragnoise.engine.diffusion.model import Model

from ..report.record import number
from ..work.ceilings import forecast, measured
from ..work.work import count
from .edits import Case, Measured
from .timing import Spread

__all__ = ["shares", "stages_table"]


def shares(model: Model, case: Case, row: Measured) -> dict[str, Any]:
    """By stage: milliseconds, the forecast of the counted work (as dispatched), and their ratio. Counted for the method that runs.

    The ceiling is measured now, on the same device.
    """
    ceiling = measured(model.device, model.dtype)
    active = case.whole.active_steps
    work = count(
        model.name,
        case.size,
        case.whole.iterations,
        case.mask,
        "dragnoise",
        dtype=model.dtype,
        active_steps=active,
    )
    rows: dict[str, Any] = {}
    for name, counts in work.stages.items():
        floor = forecast(counts, ceiling)
        took = Spread.of(row.stages_ms[name]).median
        rows[name] = {
            "ms": float(f"{took:.4g}"),
            "tflop": float(f"{counts.flops / 1e12:.4g}"),
            "floor_ms": float(f"{floor.fused_ms:.4g}"),
            "as_dispatched_ms": float(f"{floor.dispatched_ms:.4g}"),
            "share": float(f"{floor.fused_ms / took:.3g}") if took else None,
        }
    peaks = {
        str(dtype).removeprefix("torch."): value for dtype, value in ceiling.flops_per_s.items()
    }
    return {
        "ceiling": {
            "name": ceiling.name,
            "source": ceiling.source,
            "flops_per_s": peaks,
            "bytes_per_s": ceiling.bytes_per_s,
        },
        "stages": rows,
    }


def stages_table(document: Mapping[str, Any]) -> Sequence[Sequence[str]]:
    """A header first: measured, floor, share."""
    header = ["stage", "ms", "TFLOP", "floor ms", "as dispatched ms", "share of the roofline"]
    rows = [
        [
            name,
            number(row["ms"]),
            number(row["tflop"]),
            number(row["floor_ms"]),
            number(row["as_dispatched_ms"]),
            f"{100 * row['share']:.0f} %" if row["share"] else "",
        ]
        for name, row in document["roofline"]["stages"].items()
    ]
    return [header, *rows]
