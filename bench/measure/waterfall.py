"""Measure the waterfall, or rows of it, as a command line asks for it."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.errors import ConfigError
from dragnoise.engine.system.files import write_whole

from .asked import about_of, case_of, model_of, watch
from .edits import Case, Measured, measure
from .rows import Row, rows_for

__all__ = ["Waterfall", "waterfall"]


class Waterfall(NamedTuple):
    """Whole edits, measured.

    Attributes:
        document: the record.
        model: what was edited with.
        case: what was edited.
        measured: one entry a row.
    """

    document: dict[str, Any]
    model: Model
    case: Case
    measured: Sequence[Measured]


def waterfall(parsed: Namespace, bench: str, rows: str | Sequence[Row] | None) -> Waterfall:
    """Measure whole edits. rows: rows, or their names; None: all that the device has."""
    about = about_of(parsed, bench)
    model = model_of(parsed)
    case = case_of(parsed)
    if rows is None or isinstance(rows, str):
        try:
            rows = rows_for(model.device, rows)
        except KeyError as unknown:
            raise ConfigError(f"there is no row {unknown} on {model.device.type}") from unknown
    measured = measure(model, rows, case, parsed.rounds, watch=watch)
    document = about | {
        "mask": case.mask,
        "computed": case.computed,
        "settings": case.whole.to_dict(),
        "ran": {"iterations": case.run.iterations, "active_steps": case.run.active_steps},
        "rows": [
            entry.to_dict(measured[0], measured[max(place - 1, 0)])
            for place, entry in enumerate(measured)
        ],
    }
    if parsed.profile:
        _write_trace(Path(parsed.profile), rows[-1], model, case)
    return Waterfall(document, model, case, measured)


def _write_trace(target: Path, row: Row, model: Model, case: Case) -> None:
    """Write one short edit as chrome://tracing and Perfetto read it."""
    from torch._C._profiler import _ExperimentalConfig
    from torch.profiler import profile

    editor = row.editor(model)
    inputs = case.inputs()
    all_threads = _ExperimentalConfig(profile_all_threads=True)  # the editor's worker has its own
    with profile(experimental_config=all_threads) as trace:
        editor.edit(**inputs, method=row.method)
    write_whole(target, lambda path: trace.export_chrome_trace(str(path)))
