"""`python -m dragnoise.export onnx | plan | ls`: the frozen parts of a model as ONNX graphs and as TensorRT plans, and what lies there.

Results go to stdout (with --json one JSON document), progress to stderr. Exit codes: 0 done, 1 (ls) something is broken, 2 the input must be changed,
130 interrupted. What is there already and right is left as it is.
"""

import argparse
import json
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dragnoise.engine.cache import default_folder
from dragnoise.engine.errors import CancelledError, DragnoiseError, ExportError
from dragnoise.engine.exported import EXPORTABLE, OF_AN_EDIT

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dragnoise.export",
        description="Export the frozen parts of a model, for the backends that run them.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{onnx,plan,ls}")
    onnx = commands.add_parser(
        "onnx", help="as ONNX graphs, compared with PyTorch before they are kept"
    )
    plan = commands.add_parser(
        "plan", help="as TensorRT plans (and the ONNX graphs that they are built of)"
    )
    ls = commands.add_parser("ls", help="what is there, and whether it is whole")
    for command in (onnx, plan):
        command.add_argument(
            "model",
            nargs="?",
            default="embedded",
            help="diffusers folder or .safetensors checkpoint (default: the embedded model)",
        )
        command.add_argument(
            "--part",
            action="append",
            choices=EXPORTABLE,
            help=f"repeat for more (default: {', '.join(OF_AN_EDIT)})",
        )
        command.add_argument(
            "--size",
            type=_size,
            metavar="WxH",
            help="of the picture in pixels (default: the model's own)",
        )
        command.add_argument(
            "--dynamic",
            nargs="?",
            const="",
            metavar="WxH..WxH",
            help="one file for a range of sizes, and of batches from 1 (default: half to one and a half of --size)",
        )
        command.add_argument(
            "--batch",
            type=int,
            default=1,
            metavar="N",
            help="texts: 2 with guidance (default: %(default)s)",
        )
        command.add_argument(
            "--dtype",
            choices=("fp32", "fp16", "bf16"),
            default="fp32",
            help="as the editor's (default: %(default)s)",
        )
        command.add_argument(
            "--features", type=int, metavar="BLOCK", help="up gives the map after this up block too"
        )
        command.add_argument("--adapter", metavar="FILE", help="a LoRA to merge first")
        command.add_argument(
            "--adapter-scale",
            type=float,
            default=1.0,
            metavar="S",
            help="how much of it (default: 1)",
        )
        command.add_argument(
            "--model-config",
            metavar="FOLDER",
            help="for a checkpoint: a diffusers folder of the same architecture",
        )
        command.add_argument(
            "--allow-pickle",
            action="store_true",
            help="read weights that can run code: files you trust",
        )
        command.add_argument("--variant", help='of the weights\' files, as in diffusers ("fp16")')
    plan.add_argument(
        "--flavour",
        choices=("tensorrt", "tensorrt_rtx"),
        help="default: the first that can be imported",
    )
    plan.add_argument(
        "--refittable",
        action="store_true",
        help="plans whose weights can be replaced; TensorRT needs a GPU to build them",
    )
    plan.add_argument(
        "--target",
        default="any",
        metavar="SM",
        help="TensorRT for RTX: one compute capability (sm89) instead of all it knows",
    )
    plan.add_argument(
        "--refit",
        action="store_true",
        help="with --adapter, of a refittable plan that is there (GPU only), instead of building",
    )
    for command in (onnx, plan, ls):
        command.add_argument(
            "-o",
            "--output",
            metavar="FOLDER",
            help="where they lie (default: exported, in the cache folder)",
        )
        command.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    asked = _parser().parse_args(arguments)
    warnings.showwarning = lambda message, *_, **__: print(
        f"dragnoise.export: warning: {message}", file=sys.stderr
    )
    folder = default_folder() / "exported" if asked.output is None else Path(asked.output)
    try:
        return _COMMANDS[asked.command](asked, folder)
    except DragnoiseError as wrong:
        print(f"dragnoise.export: error: {wrong}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, CancelledError):
        print(
            "dragnoise.export: interrupted; what was finished stays, nothing else was written",
            file=sys.stderr,
        )
        return 130


def _export(asked: argparse.Namespace, folder: Path) -> int:
    from dragnoise.engine.backends.tensorrt import library

    from .models import in_float32, model_for_export

    trt = library(asked.flavour) if asked.command == "plan" else None  # before minutes of work
    source = None if asked.model == "embedded" else asked.model
    adapter: dict[str, Any] = {"adapter": asked.adapter, "adapter_scale": asked.adapter_scale}
    how = {
        "config": asked.model_config,
        "variant": asked.variant,
        "allow_pickle": asked.allow_pickle,
    }
    model = model_for_export(source, asked.dtype, **how, **adapter)
    reference, parts = in_float32(model), dict.fromkeys(asked.part or OF_AN_EDIT)
    with _progress() as shown:
        done = [_one(asked, model, reference, part, folder, trt, shown) for part in parts]
    if asked.json:
        print(json.dumps({"folder": str(folder), "files": done}))
    else:
        _print(done, folder)
    return 0


def _one(
    asked: argparse.Namespace,
    model: Any,
    reference: Any,
    part: str,
    folder: Path,
    trt: Any,
    shown: Any,
) -> dict[str, Any]:
    from dragnoise.engine.diffusion.parts import PARTS
    from dragnoise.engine.exported import graph_id

    from .onnx import export_graph
    from .plans import build_plan, kept_plan, plan_id

    features = asked.features if PARTS[part].has_features else None
    profile = _profile(asked, model)
    shown(f"{part}: exporting", 0, 1)
    path, report = export_graph(
        model, part, profile, folder, features=features, reference=reference
    )
    said = {
        "part": part,
        "onnx": path.name,
        "onnx_bytes": report["bytes"],
        "export_s": report["export_s"],
        "error": report["check"]["worst"],
    }
    if trt is None:
        return said
    refittable = asked.refittable or asked.refit
    built = plan_id(graph_id(model, part, profile, features), trt, refittable, asked.target)
    made = kept_plan(folder, built)
    if made is None and asked.refit:
        from dragnoise.engine.backends.tensorrt import Cuda
        from dragnoise.engine.system.device import choose_device

        from .refit import refit_plan

        made = refit_plan(reference, path, built, folder, trt, Cuda(choose_device("cuda")))[1]
    if made is None:
        with _stoppable() as going:

            def step(phase: str, number: int, count: int) -> bool:
                shown(f"{part}: {phase.lower()}", number, count)
                return bool(going())

            made = build_plan(model, path, built, folder, trt, step)[1]
    return said | {"plan": built.file, **{f"plan_{name}": value for name, value in made.items()}}


def _profile(asked: argparse.Namespace, model: Any) -> Any:
    from dragnoise.engine.exported import Extent, Profile, multiple_px

    side = model.unet.network.config["sample_size"] * model.factor
    height, width = asked.size or (side, side)
    usual = Extent(height, width, asked.batch)
    if asked.dynamic is None:
        return Profile.at(usual)
    multiple = multiple_px(model)

    def times(side_px: int, factor: float) -> int:
        return max(int(side_px * factor) // multiple, 1) * multiple

    ends = [
        Extent(times(height, 0.5), times(width, 0.5)),
        Extent(times(height, 1.5), times(width, 1.5), asked.batch),
    ]
    if asked.dynamic:
        least, _, most = asked.dynamic.partition("..")
        try:
            ends = [Extent(*_size(least)), Extent(*_size(most), asked.batch)]
        except argparse.ArgumentTypeError as wrong:
            raise ExportError(
                f"--dynamic {asked.dynamic!r}: {wrong}; write it as 256x256..768x768"
            ) from wrong
    return Profile(ends[0], usual, ends[1])


def _size(text: str) -> tuple[int, int]:
    """(height, width) of "WxH"."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size; write it as WxH, for example 512x768"
        )
    return int(height), int(width)


def _ls(asked: argparse.Namespace, folder: Path) -> int:
    from .listing import entries

    found = entries(folder)
    if asked.json:
        print(json.dumps({"folder": str(folder), "files": found}))
    else:
        for one in found:
            print(
                f"{one['state']:8}  {one['bytes']:>14,} bytes  {one['file']}"
                + (f"  ({one['reason']})" if one["reason"] else "")
            )
        print(f"{len(found)} files in {folder}")
    return 1 if any(one["state"] == "broken" for one in found) else 0


def _print(done: list[dict[str, Any]], folder: Path) -> None:
    """A table, one row a part."""
    from rich.console import Console
    from rich.table import Table

    plans = any("plan" in one for one in done)
    columns = ["part", "ONNX MB", "export s", "error"] + (
        ["plan MB", "build s", "peak GB"] if plans else []
    )
    table = Table(*columns, box=None)
    for one in done:
        cells = [
            one["part"],
            f"{one['onnx_bytes'] / 1e6:.1f}",
            f"{one['export_s']:.1f}",
            f"{one['error']:.1e}",
        ]
        if plans:
            peak = one.get(
                "plan_peak_bytes"
            )  # not of a plan that was refitted, nor where the system does not say
            cells += [
                f"{one['plan_bytes'] / 1e6:.1f}",
                f"{one['plan_seconds']:.1f}",
                f"{peak / 1e9:.2f}" if peak else "",
            ]
        table.add_row(*cells)
    Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(table)
    print(f"in {folder}")


@contextmanager
def _stoppable() -> Iterator[Any]:
    """Ctrl-C ends a build at its next step: TensorRT itself would not hear of it."""
    stopped: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: stopped.append(number))
    try:
        yield lambda: not stopped
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _progress() -> Iterator[Any]:
    """One line on stderr: what is being done, and how far; nothing where stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:50}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as shown:
        task = shown.add_task("")

        def report(what: str, done: int, total: int) -> None:
            shown.update(task, description=what, completed=done, total=max(total, 1))

        yield report


_COMMANDS: Mapping[str, Callable[[argparse.Namespace, Path], int]] = {
    "onnx": _export,
    "plan": _export,
    "ls": _ls,
}

if __name__ == "__main__":
    sys.exit(main())
