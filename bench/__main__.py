"""`python -m dragnoise.bench kernels | stages | edits | sessions | personalise | exports | all | work | readme`.

Measures, prints a table, and the record as one JSON document in the last line.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dragnoise.engine.config import DragConfig
from dragnoise.engine.errors import ConfigError, DragnoiseError
from dragnoise.engine.system.files import write_whole
from dragnoise.engine.system.openmp import tune_openmp

tune_openmp()  # before PyTorch is imported


def _parser() -> argparse.ArgumentParser:
    from .work import cli as work_cli

    parser = argparse.ArgumentParser(
        prog="python -m dragnoise.bench", description="What an edit costs."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, says in {
        "kernels": "every kernel beside its formula",
        "stages": "where the time goes, and the share of the roofline",
        "edits": "the waterfall: whole edits from the published algorithm to ours",
        "sessions": "the first edit, and what comes after it",
        "personalise": "learning a picture beside a plain loop; what it is good for",
        "exports": "every part as a graph and a plan: size, time to make, memory, error, speed",
        "all": "kernels, stages and edits",
    }.items():
        command = commands.add_parser(name, help=says)
        command.add_argument(
            "--model",
            default="embedded",
            help="embedded, golden, sd15, sd21 or a diffusers folder (default: %(default)s)",
        )
        command.add_argument(
            "--size",
            metavar="WIDTHxHEIGHT",
            help="of the picture (default: 128x128 for embedded, else 512x512)",
        )
        command.add_argument(
            "--device", default="auto", help="auto, cpu, cuda (default: %(default)s)"
        )
        command.add_argument(
            "--dtype",
            default="float32",
            help="float32, bfloat16, (CUDA) float16; the baseline is as published",
        )
        command.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
        command.add_argument(
            "--iterations", type=int, default=60, help="of the whole edit (default: %(default)s)"
        )
        command.add_argument(
            "--run-iterations", type=int, metavar="N", help="run only so many and compute the whole"
        )
        command.add_argument(
            "--run-steps", type=int, metavar="N", help="run only so many of the 35 steps, likewise"
        )
        command.add_argument(
            "--no-mask", action="store_true", help="nothing must stay: no mask term"
        )
        command.add_argument(
            "--rounds", type=int, default=3, help="alternating rounds (default: %(default)s)"
        )
        command.add_argument(
            "--rows", metavar="NAME,...", help="of the waterfall (default: all that the device has)"
        )
        command.add_argument(
            "--keep", action="store_true", help="write the record and its plot under bench/results"
        )
        command.add_argument("--out", metavar="FOLDER", help="where to keep it instead")
        command.add_argument("--csv", metavar="FILE", help="write the table as CSV too")
        command.add_argument(
            "--profile",
            metavar="TRACE.json",
            help="write a Chrome trace of one edit of the last row",
        )
    work_cli.add_arguments(
        commands.add_parser("work", help="the work of an edit, counted on the real code")
    )
    readme = commands.add_parser("readme", help="write the kept records' tables into the README")
    readme.add_argument("--check", action="store_true", help="only say whether it is up to date")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        if asked.command == "work":
            from .work import cli as work_cli

            return work_cli.run(asked)
        if asked.command == "readme":
            from .report.readme import refresh

            return 0 if refresh(check=asked.check) or not asked.check else 1
        for name in ("kernels", "stages", "edits") if asked.command == "all" else (asked.command,):
            _finish(
                asked,
                {
                    "kernels": _kernels,
                    "stages": _stages,
                    "edits": _edits,
                    "sessions": _sessions,
                    "personalise": _personalise,
                    "exports": _exports,
                }[name](asked),
            )
    except DragnoiseError as wrong:
        print(f"dragnoise.bench: error: {wrong}", file=sys.stderr)
        return 2
    return 0


def _watch(said: str) -> None:
    print(f"{said} ...", file=sys.stderr, flush=True)


def _about(asked: argparse.Namespace, bench: str) -> dict[str, Any]:
    import torch

    from dragnoise.engine.system.device import choose_device

    from .report.machine import machine

    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    device = choose_device(asked.device)
    return {
        "bench": bench,
        "model": Path(asked.model).name,
        "size": asked.size or ("128x128" if asked.model == "embedded" else "512x512"),
        "dtype": asked.dtype,
        "rounds": asked.rounds,
        "machine": machine(device),
    }


def _kernels(asked: argparse.Namespace) -> tuple[dict[str, Any], list[list[str]]]:
    from dragnoise.engine.system.device import choose_device, choose_dtype

    from .measure.kernels import measure
    from .report.record import kernels_table

    about, device = _about(asked, "kernels"), choose_device(asked.device)
    cases = list(
        measure(device, choose_dtype(asked.dtype, device), max(asked.rounds, 5), watch=_watch)
    )
    document = about | {"model": "kernels", "size": "", "cases": cases}
    return document, kernels_table(document)


def _measured(
    asked: argparse.Namespace, bench: str, rows: Any
) -> tuple[dict[str, Any], Any, Any, Any]:
    from .measure.edits import Case, measure
    from .measure.models import model
    from .measure.rows import rows_for

    about = _about(asked, bench)
    loaded = model(asked.model, asked.device, asked.dtype)
    size = _size(about["size"])
    whole = DragConfig(iterations=asked.iterations, lr=1e-4)
    strength = None if asked.run_steps is None else asked.run_steps / whole.steps
    run = whole.replace(iterations=asked.run_iterations, strength=strength)
    case = Case(size, not asked.no_mask, whole, run)
    try:
        chosen = rows_for(loaded.device, rows) if rows is None or isinstance(rows, str) else rows
    except KeyError as unknown:
        raise ConfigError(f"there is no row {unknown} on {loaded.device.type}") from unknown
    measured = measure(loaded, chosen, case, asked.rounds, watch=_watch)
    document = about | {
        "mask": case.mask,
        "computed": case.computed,
        "settings": dataclasses.asdict(whole),
        "ran": {"iterations": run.iterations, "active_steps": run.active_steps},
        "rows": [
            one.to_dict(measured[0], measured[max(place - 1, 0)])
            for place, one in enumerate(measured)
        ],
    }
    if asked.profile:
        _profile(Path(asked.profile), chosen[-1], loaded, case)
    return document, loaded, case, measured


def _edits(asked: argparse.Namespace) -> tuple[dict[str, Any], list[list[str]]]:
    from .report.record import edits_table

    document, *_ = _measured(asked, "edits", asked.rows)
    return document, edits_table(document)


def _sessions(asked: argparse.Namespace) -> tuple[dict[str, Any], list[list[str]]]:
    from .measure.sessions import follow_a_mouse, mouse_table, session_rows
    from .report.record import edits_table, show

    document, loaded, *_ = _measured(asked, "sessions", session_rows())
    cells = edits_table(document)
    if asked.model == "embedded":
        document["mouse"] = list(follow_a_mouse(loaded))
        show("the target moves on by 3 pixels, 5 times", mouse_table(document["mouse"]))
    return document, cells


def _personalise(asked: argparse.Namespace) -> tuple[dict[str, Any], list[list[str]]]:
    import numpy as np

    from dragnoise.engine import Image, PersonaliseConfig

    from .measure.models import model
    from .measure.personalise import fidelity, fidelity_table, measure, training_table
    from .report.record import show

    about, loaded, config = (
        _about(asked, "personalise"),
        model(asked.model, asked.device, asked.dtype),
        PersonaliseConfig(),
    )
    height, width = _size(about["size"])
    image = Image(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))
    document = about | {"training": measure(loaded, image, config, asked.rounds, watch=_watch)}
    cells = training_table(document["training"])
    if asked.model == "embedded":
        sheet = None if asked.out is None else Path(asked.out) / "personalise.png"
        document["fidelity"] = fidelity(
            loaded, config.replace(steps=200), watch=_watch, sheet=sheet
        )
        show("what an adapter of 200 steps is good for", fidelity_table(document["fidelity"]))
    return document, cells


def _exports(asked: argparse.Namespace) -> tuple[dict[str, Any], list[list[str]]]:
    from dragnoise.engine.errors import DeviceError
    from dragnoise.engine.system.device import DTYPES, choose_device

    from .measure.exports import edit_table, exports_table, measure
    from .report.record import show

    about = _about(asked, "exports")
    if asked.dtype not in DTYPES:
        raise DeviceError(f"precision {asked.dtype!r} is not supported; use {', '.join(DTYPES)}")
    size, device = _size(about["size"]), choose_device(asked.device)
    document = about | measure(asked.model, size, device, DTYPES[asked.dtype], asked.rounds, _watch)
    if cells := edit_table(document):
        show("what an edit gains", cells)
    return document, exports_table(document)


def _size(told: str) -> tuple[int, int]:
    """(height, width)"""
    width, _, height = told.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ConfigError(f"--size must be WIDTHxHEIGHT, like 512x512, got {told!r}")
    return int(height), int(width)


def _stages(asked: argparse.Namespace) -> tuple[dict[str, Any], Any]:
    from .measure.rows import rows_for
    from .measure.stages import shares, stages_table

    last = asked.rows or rows_for(_device(asked))[-1].name
    document, loaded, case, measured = _measured(asked, "stages", last)
    document["roofline"] = shares(loaded, case, measured[-1])
    return document, stages_table(document)


def _device(asked: argparse.Namespace) -> Any:
    from dragnoise.engine.system.device import choose_device

    return choose_device(asked.device)


def _profile(target: Path, row: Any, loaded: Any, case: Any) -> None:
    """One short edit, as chrome://tracing and Perfetto read it."""
    from torch.profiler import profile

    editor, inputs = row.editor(loaded), case.inputs()
    with profile() as seen:
        editor.edit(**inputs, method=row.method)
    write_whole(target, lambda part: seen.export_chrome_trace(str(part)))


def _finish(asked: argparse.Namespace, found: tuple[dict[str, Any], Any]) -> None:
    from .report.machine import device_slug
    from .report.record import RESULTS, keep, show, to_csv

    document, cells = found
    title = f"{document['bench']}: {document['model']} {document['size']} {document['dtype']}, {document['machine']['threads']} threads"
    show(
        title + (" (whole edits computed from a few turns)" if document.get("computed") else ""),
        cells,
    )
    if asked.csv:
        write_whole(Path(asked.csv), lambda part: part.write_text(to_csv(cells), encoding="utf-8"))
    if asked.keep or asked.out:
        kept = keep(
            document, device_slug(_device(asked)), Path(asked.out) if asked.out else RESULTS
        )
        print(f"kept {kept}", file=sys.stderr)
        if document["bench"] == "edits":
            from .report.plot import plot

            print(f"drew {plot(document, kept.with_suffix('.png'))}", file=sys.stderr)
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    sys.exit(main())
