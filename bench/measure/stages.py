"""Compare the time of each stage with what its counted work takes at this machine's speed.

The quotient is the share of the roofline.
"""

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
    """Compare the stages of a measured row, with the method `dragnoise`, with their counted work.

    The ceiling is measured now, on the same device.

    Returns:
        The ceiling; and by stage milliseconds, the forecast of the work, and their quotient, as the
        record holds them.
    """
    ceiling = measured(model.device, model.dtype)
    work = count(
        model.name,
        case.size,
        case.whole.iterations,
        case.mask,
        "dragnoise",
        dtype=model.dtype,
        active_steps=case.whole.active_steps,
    )
    rows: dict[str, Any] = {}
    for name, counts in work.stages.items():
        floor = forecast(counts, ceiling)
        median_ms = Spread.of(row.stages_ms[name]).median
        rows[name] = {
            "ms": float(f"{median_ms:.4g}"),
            "tflop": float(f"{counts.flops / 1e12:.4g}"),
            "floor_ms": float(f"{floor.fused_ms:.4g}"),
            "as_dispatched_ms": float(f"{floor.dispatched_ms:.4g}"),
            "share": float(f"{floor.fused_ms / median_ms:.3g}") if median_ms else None,
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
    """Format a record as a table of times, floors and shares, a header first."""
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
