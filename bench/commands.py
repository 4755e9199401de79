"""The commands of `python -m dragnoise.bench`: measure, print a table, and the record as JSON.

What is measured: kernels, stages, edits, sessions, personalise, precision, exports; all: the
first three; live replays a pointer and sees how the picture follows it.
work counts the work of an edit; replacement holds a block's output and sees what is kept of the
picture; dragbench edits DragBench's pictures and judges them; campaign asks a machine as much as it
can in one run; readme writes the kept records' tables into README.md and docs/.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dragnoise.engine.cli.options import METHOD_SETTINGS, set_threads, size
from dragnoise.engine.cli.program import Command, Program
from dragnoise.engine.cli.show import print_json
from dragnoise.engine.config import DragConfig
from dragnoise.engine.errors import ConfigError
from dragnoise.engine.system.files import Outputs, writable_folder, write_whole

if TYPE_CHECKING:
    import torch

    from dragnoise.engine.diffusion.model import Model

    from .measure.edits import Case, Measured
    from .measure.rows import Row

__all__ = ["BENCH"]


class Record(NamedTuple):
    """The outcome of a measurement.

    Attributes:
        document: the record, ready for JSON.
        cells: its table, the first row are the columns' names.
    """

    document: dict[str, Any]
    cells: Sequence[Sequence[str]]


# Options.


def _add_options(parser: ArgumentParser) -> None:
    _add_case_options(parser)
    _add_run_options(parser)
    parser.add_argument(
        "--keep", action="store_true", help="write the record and its plot under bench/results"
    )
    for name, metavar, about in (
        ("--out", "FOLDER", "where to keep it instead"),
        ("--csv", "FILE", "write the table as CSV too"),
        ("--profile", "TRACE.json", "write a Chrome trace of one edit of the last row"),
    ):
        parser.add_argument(name, metavar=metavar, help=about)


def _add_case_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default="embedded",
        help="embedded, golden, sd15, sd21 or a diffusers folder (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=size,
        metavar="WxH",
        help="of the picture (default: 128x128 for embedded, else 512x512)",
    )
    parser.add_argument("--no-mask", action="store_true", help="nothing must stay: no mask term")
    parser.add_argument(
        "--method",
        default="dragnoise",
        choices=METHOD_SETTINGS,
        metavar="NAME",
        help="of sessions (default: %(default)s); edits has a row for each",
    )
    parser.add_argument(
        "--iterations", type=int, default=60, help="of the whole edit (default: %(default)s)"
    )


def _add_run_options(parser: ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    parser.add_argument(
        "--dtype",
        default="float32",
        help="float32, bfloat16, (CUDA) float16; the baseline is as published",
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    parser.add_argument(
        "--run-iterations", type=int, metavar="N", help="run only so many and compute the whole"
    )
    parser.add_argument(
        "--run-steps", type=int, metavar="N", help="run only so many of the 35 steps, likewise"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="alternating rounds (default: %(default)s)"
    )
    parser.add_argument(
        "--rows",
        metavar="NAME,...",
        help="of the waterfall, or drags of precision (default: all that the device has)",
    )


def _size(parsed: Namespace) -> tuple[int, int]:
    """Return (height, width) of the picture."""
    if parsed.size is not None:
        return (parsed.size[0], parsed.size[1])
    side = 128 if parsed.model == "embedded" else 512
    return side, side


def _device(parsed: Namespace) -> "torch.device":
    from dragnoise.engine.system.device import choose_device

    return choose_device(parsed.device)


def _model(parsed: Namespace) -> "Model":
    from .measure.models import model

    return model(parsed.model, parsed.device, parsed.dtype)


def _watch(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)


def _about(parsed: Namespace, bench: str) -> dict[str, Any]:
    """Return what every record begins with, having set the number of threads."""
    from .report.machine import machine

    set_threads(parsed.threads)
    height, width = _size(parsed)
    return {
        "bench": bench,
        "model": Path(parsed.model).name,
        "size": f"{width}x{height}",
        "dtype": parsed.dtype,
        "rounds": parsed.rounds,
        "machine": machine(_device(parsed)),
    }


# Measurements.


def _kernels(parsed: Namespace) -> Record:
    from dragnoise.engine.system.device import choose_dtype

    from .measure.kernels import measure
    from .report.record import kernels_table

    about = _about(parsed, "kernels")
    device = _device(parsed)
    dtype = choose_dtype(parsed.dtype, device)
    cases = list(measure(device, dtype, max(parsed.rounds, 5), watch=_watch))
    document = about | {"model": "kernels", "size": "", "cases": cases}
    return Record(document, kernels_table(document))


def _stages(parsed: Namespace) -> Record:
    from .measure.rows import rows_for
    from .measure.stages import shares, stages_table

    last = parsed.rows or rows_for(_device(parsed))[-1].name
    waterfall = _waterfall(parsed, "stages", last)
    document = waterfall.document
    document["roofline"] = shares(waterfall.model, waterfall.case, waterfall.measured[-1])
    return Record(document, stages_table(document))


def _edits(parsed: Namespace) -> Record:
    from .report.record import edits_table

    document = _waterfall(parsed, "edits", parsed.rows).document
    return Record(document, edits_table(document))


def _sessions(parsed: Namespace) -> Record:
    from .measure.sessions import follow_a_mouse, mouse_table, session_rows
    from .report.record import edits_table, show

    waterfall = _waterfall(parsed, "sessions", session_rows(parsed.method))
    document = waterfall.document
    if parsed.model == "embedded":
        document["mouse"] = list(follow_a_mouse(waterfall.model))
        show("the target moves on by 3 pixels, 5 times", mouse_table(document["mouse"]))
    return Record(document, edits_table(document))


def _personalise(parsed: Namespace) -> Record:
    import numpy as np

    from dragnoise.engine import Image, PersonaliseConfig

    from .measure.personalise import fidelity, fidelity_table, measure, training_table
    from .report.record import show

    about = _about(parsed, "personalise")
    model = _model(parsed)
    config = PersonaliseConfig()
    height, width = _size(parsed)
    image = Image(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))
    document = about | {"training": measure(model, image, config, parsed.rounds, watch=_watch)}
    cells = training_table(document["training"])
    if parsed.model == "embedded":
        sheet = None if parsed.out is None else Path(parsed.out) / "personalise.png"
        longer = config.replace(steps=200)
        document["fidelity"] = fidelity(model, longer, watch=_watch, sheet=sheet)
        show("what an adapter of 200 steps is good for", fidelity_table(document["fidelity"]))
    return Record(document, cells)


def _exports(parsed: Namespace) -> Record:
    from dragnoise.engine.errors import DeviceError
    from dragnoise.engine.system.device import DTYPES

    from .measure.exports import edit_table, exports_table, measure
    from .report.record import show

    about = _about(parsed, "exports")
    if parsed.dtype not in DTYPES:
        raise DeviceError(f"precision {parsed.dtype!r} is not supported; use {', '.join(DTYPES)}")
    dtype = DTYPES[parsed.dtype]
    document = about | measure(
        parsed.model, _size(parsed), _device(parsed), dtype, parsed.rounds, _watch
    )
    if cells := edit_table(document):
        show("what an edit gains", cells)
    return Record(document, exports_table(document))


def _precision(parsed: Namespace) -> Record:
    from .measure.precision import DRAGS, measure, precision_table

    about = _about(parsed, "precision")
    asked = _case(parsed).run
    changes = {"iterations": asked.iterations, "strength": asked.strength}
    names = tuple(DRAGS if parsed.rows is None else parsed.rows.split(","))
    if unknown := sorted({*names} - DRAGS.keys()):
        raise ConfigError(f"there is no drag {unknown[0]!r}; use {', '.join(DRAGS)}")
    side = min(_size(parsed))
    measured = measure(parsed.model, _device(parsed), side, changes, names, watch=_watch)
    document = about | {"mask": True, "computed": False} | measured
    return Record(document, precision_table(document))


# The waterfall.


class _Waterfall(NamedTuple):
    """Whole edits, measured.

    Attributes:
        document: the record.
        model: what was edited with.
        case: what was edited.
        measured: one entry a row.
    """

    document: dict[str, Any]
    model: "Model"
    case: "Case"
    measured: "Sequence[Measured]"


def _waterfall(parsed: Namespace, bench: str, rows: "str | Sequence[Row] | None") -> _Waterfall:
    """Measure whole edits. rows: rows, or their names; None: all that the device has."""
    from .measure.edits import measure
    from .measure.rows import rows_for

    about = _about(parsed, bench)
    model = _model(parsed)
    case = _case(parsed)
    if rows is None or isinstance(rows, str):
        try:
            rows = rows_for(model.device, rows)
        except KeyError as unknown:
            raise ConfigError(f"there is no row {unknown} on {model.device.type}") from unknown
    measured = measure(model, rows, case, parsed.rounds, watch=_watch)
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
    return _Waterfall(document, model, case, measured)


def _case(parsed: Namespace) -> "Case":
    from .measure.edits import Case

    whole = DragConfig(iterations=parsed.iterations, lr=1e-4)
    strength = None if parsed.run_steps is None else parsed.run_steps / whole.steps
    run = whole.replace(iterations=parsed.run_iterations, strength=strength)
    return Case(_size(parsed), not parsed.no_mask, whole, run)


def _write_trace(target: Path, row: "Row", model: "Model", case: "Case") -> None:
    """Write one short edit as chrome://tracing and Perfetto read it."""
    from torch._C._profiler import _ExperimentalConfig
    from torch.profiler import profile

    editor = row.editor(model)
    inputs = case.inputs()
    all_threads = _ExperimentalConfig(profile_all_threads=True)  # the editor's worker has its own
    with profile(experimental_config=all_threads) as trace:
        editor.edit(**inputs, method=row.method)
    write_whole(target, lambda path: trace.export_chrome_trace(str(path)))


# Commands.


def _finish(parsed: Namespace, record: Record) -> None:
    """Show a record, write it where it was asked for, and print it."""
    from .report.record import show, to_csv

    document, cells = record
    threads = document["machine"]["threads"]
    what = f"{document['model']} {document['size']} {document['dtype']}"
    title = f"{document['bench']}: {what}, {threads} threads"
    if document.get("computed"):
        title += " (whole edits computed from a few iterations)"
    show(title, cells)
    if parsed.csv:
        table = to_csv(cells)
        write_whole(Path(parsed.csv), lambda path: path.write_text(table, encoding="utf-8"))
    if parsed.keep or parsed.out:
        for path in _kept(parsed, document):
            print(f"wrote {path}", file=sys.stderr)
    print_json(document)


def _check_outputs(parsed: Namespace) -> None:
    """Raise OutputError if something cannot be written, before minutes of work."""
    outputs: Outputs = parsed.outputs
    for option, path in (("--csv", parsed.csv), ("--profile", parsed.profile)):
        if path is not None:
            outputs.add(option, path, ())
    outputs.check_apart({"model": parsed.model})
    if parsed.out is not None:
        writable_folder(parsed.out)


def _kept(parsed: Namespace, document: dict[str, Any]) -> Iterator[Path]:
    """Write the record, and a plot of edits; yield their files."""
    from .report.machine import device_slug
    from .report.record import RESULTS, keep

    folder = Path(parsed.out) if parsed.out else RESULTS
    path = keep(document, device_slug(_device(parsed)), folder)
    yield path
    if document["bench"] == "edits":
        from .report.plot import plot

        yield plot(document, path.with_suffix(".png"))


def _measurement(name: str, summary: str, measure: Callable[[Namespace], Record]) -> Command:
    def run(parsed: Namespace) -> int:
        _check_outputs(parsed)
        _finish(parsed, measure(parsed))
        return 0

    return Command(name, summary, _add_options, run)


MEASUREMENTS = (
    _measurement("kernels", "every kernel beside its formula", _kernels),
    _measurement("stages", "where the time goes, and the share of the roofline", _stages),
    _measurement("edits", "whole edits, from the published algorithm to ours", _edits),
    _measurement("sessions", "the first edit, and what comes after it", _sessions),
    _measurement(
        "personalise", "learning a picture beside a plain loop; what it is good for", _personalise
    ),
    _measurement("precision", "drags in lower precisions beside float32's", _precision),
    _measurement(
        "exports", "every part as a graph and a plan: size, time, memory, error, speed", _exports
    ),
)


def _run_all(parsed: Namespace) -> int:
    _check_outputs(parsed)
    for measure in (_kernels, _stages, _edits):
        _finish(parsed, measure(parsed))
    return 0


def _in_its_room(name: str, summary: str) -> Command:
    """Return a command that stands in `NAME/cli.py`, which is imported when it is wanted."""

    def add_options(parser: ArgumentParser) -> None:
        import_module(f".{name}.cli", __package__).add_options(parser)

    def run(parsed: Namespace) -> int:
        return int(import_module(f".{name}.cli", __package__).run(parsed))

    return Command(name, summary, add_options, run)


def _add_readme_options(parser: ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")


def _run_readme(parsed: Namespace) -> int:
    from .report.readme import refresh

    current = refresh(check=parsed.check)
    return 1 if parsed.check and not current else 0


def _add_campaign_options(parser: ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="FOLDER", help="logs and records lie there")
    parser.add_argument(
        "--budget", type=float, default=480, metavar="S", help="seconds (default: %(default)s)"
    )
    parser.add_argument("--only", metavar="NAME,...", help="ask only these")
    parser.add_argument("--from", dest="first", metavar="NAME", help="begin with this one")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="everything small: are the commands well formed?"
    )


def _run_campaign(parsed: Namespace) -> int:
    from .campaign.run import campaign, chosen
    from .campaign.steps import Asked

    steps = chosen(parsed.only, parsed.first)
    out = writable_folder(parsed.out)
    asked = Asked(_device(parsed).type, parsed.quick, out / "records")
    outcomes = campaign(steps, asked, out, parsed.budget)
    print_json({"steps": outcomes})
    return 0 if all(outcome["rc"] == 0 for outcome in outcomes) else 1


ALL = Command("all", "kernels, stages and edits", _add_options, _run_all)
ROOMS = (
    _in_its_room("work", "the work of an edit, counted on the real code"),
    _in_its_room("replacement", "which block of the U-Net holds what, and from when on"),
    _in_its_room("live", "how a picture follows a pointer: frames a second, latency, ratios"),
    _in_its_room("quality", "every way to drag, judged where the result is known"),
    _in_its_room("dragbench", "edit DragBench's pictures and judge what became of them"),
)
CAMPAIGN = Command(
    "campaign",
    "all that a machine can tell in a given time, most valuable first",
    _add_campaign_options,
    _run_campaign,
)
README = Command(
    "readme",
    "write the kept records' tables into README.md and docs/",
    _add_readme_options,
    _run_readme,
)

BENCH = Program(
    name="dragnoise.bench",
    usage="python -m dragnoise.bench",
    description="What an edit costs.",
    commands=(*MEASUREMENTS, ALL, *ROOMS, CAMPAIGN, README),
)
