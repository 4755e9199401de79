"""The command line: `dragnoise edit`, `generate`, `personalise`, `cache`, `demo`, `info`.

Results go to stdout (with --json one JSON document), progress to stderr. Exit codes: 0 done, 2 the input must be changed, 130 interrupted.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config import DragConfig
from ..errors import ConfigError, DragnoiseError, OutputError
from ..system.openmp import tune_openmp
from . import commands as commands_of

__all__ = ["main"]

_SETTINGS = (
    "steps",
    "strength",
    "iterations",
    "lr",
    "lam",
    "end_step",
    "r_m",
    "r_p",
    "guidance",
    "parity",
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dragnoise", description="Drag what is under a point of an image to another point."
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"dragnoise {importlib.metadata.version('dragnoise')}",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{edit,generate,personalise,cache,demo,info}"
    )

    edit = commands.add_parser(
        "edit",
        help="drag on an image",
        description="Drag what is under each handle to its target and write the edited image.",
    )
    edit.add_argument("image", help="PNG, JPEG, WebP, BMP or TIFF")
    edit.add_argument(
        "--drag",
        action="append",
        required=True,
        metavar="X,Y:X,Y",
        help="handle and target in image pixels; repeat for more pairs",
    )
    edit.add_argument(
        "--mask", metavar="FILE", help="white where the picture may change (default: everywhere)"
    )
    edit.add_argument("--prompt", default="", metavar="TEXT", help="what the image shows")
    edit.add_argument(
        "-o", "--output", metavar="FILE", help="where to write (default: IMAGE_dragged.png)"
    )
    edit.add_argument(
        "--trajectory", metavar="FILE.gif", help="also write the drag as an animation"
    )
    edit.add_argument(
        "--negative-prompt", default="", metavar="TEXT", help="what guidance draws away from"
    )
    edit.add_argument(
        "--guidance",
        type=float,
        metavar="G",
        help="1 to 50: how far to draw towards the prompt (1: not)",
    )
    edit.add_argument(
        "--adapter",
        metavar="FILE",
        help="what `dragnoise personalise` wrote, or any LoRA of the U-Net",
    )
    edit.add_argument(
        "--adapter-scale", type=float, default=1.0, metavar="S", help="how much of it (default: 1)"
    )
    _add_settings(edit)

    generate = commands.add_parser(
        "generate",
        help="make an image of a prompt, and drag on it",
        description="Make an image of a prompt; with --drag also the image dragged, without inverting it.",
    )
    generate.add_argument(
        "--prompt", required=True, metavar="TEXT", help="what the image shall show"
    )
    generate.add_argument(
        "--negative-prompt", default="", metavar="TEXT", help="what it shall not show"
    )
    generate.add_argument(
        "--guidance",
        type=float,
        default=7.5,
        metavar="G",
        help="1 to 50: how far to draw towards the prompt (%(default)s)",
    )
    generate.add_argument(
        "--size", type=_size, metavar="WxH", help="in pixels (default: the model's own)"
    )
    generate.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the noise (default: %(default)s)"
    )
    generate.add_argument(
        "--drag",
        action="append",
        default=[],
        metavar="X,Y:X,Y",
        help="also drag, and write OUTPUT_dragged",
    )
    generate.add_argument(
        "--mask", metavar="FILE", help="white where the drag may change the picture"
    )
    generate.add_argument(
        "-o",
        "--output",
        default="generated.png",
        metavar="FILE",
        help="where to write (%(default)s)",
    )
    _add_settings(generate)

    learn = commands.add_parser(
        "personalise",
        help="learn an image",
        description="Learn an image (LoRA), so that it is edited more faithfully; write an adapter for `edit --adapter`.",
    )
    commands_of.add_personalise(learn)
    commands_of.add_cache(
        commands.add_parser(
            "cache",
            help="what is kept on disk",
            description="List, check or remove what `--cache` has kept on disk.",
        )
    )
    demo = commands.add_parser(
        "demo",
        help="drag on the sample images",
        description="Drag on the sample images and write a before/points/after sheet.",
    )
    demo.add_argument(
        "-o",
        "--output",
        default="dragnoise-demo",
        metavar="FOLDER",
        help="where to write (default: %(default)s)",
    )
    info = commands.add_parser(
        "info",
        help="what this installation has",
        description="Versions, devices, threads and the model.",
    )

    for command in (edit, generate, learn):
        command.add_argument(
            "--cache",
            nargs="?",
            const="",
            metavar="FOLDER",
            help="keep inversions and adapters on disk, and use them",
        )
    for command in (edit, generate, learn, demo, info):
        command.add_argument("--json", action="store_true", help="print one JSON document")
        command.add_argument(
            "--model",
            metavar="PATH",
            help="diffusers folder or .safetensors checkpoint (default: the embedded model)",
        )
        command.add_argument(
            "--model-config",
            metavar="FOLDER",
            help="for a checkpoint: a diffusers folder of the same architecture",
        )
        command.add_argument(
            "--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: %(default)s)"
        )
        command.add_argument(
            "--dtype",
            default="float32",
            help="float32, bfloat16 or (CUDA) float16 (default: %(default)s)",
        )
        command.add_argument(
            "--backend",
            metavar="NAME",
            help="what runs the network: packed, compiled, eager, tensorrt, onnxruntime, part=NAME,part=NAME, or auto (measured once)",
        )
        command.add_argument(
            "--exported",
            metavar="FOLDER",
            help="where exported parts lie (default: in the cache folder)",
        )
        command.add_argument(
            "--build-missing", action="store_true", help="export the parts that are missing"
        )
        command.add_argument(
            "--attention", default="sdpa", help="sdpa or xformers (default: %(default)s)"
        )
        command.add_argument(
            "--threads", type=int, metavar="N", help="CPU threads (default: PyTorch's)"
        )
    return parser


def _add_settings(command: argparse.ArgumentParser) -> None:
    settings = command.add_argument_group("settings (default: the model's own)")
    settings.add_argument("--steps", type=int, metavar="N", help="DDIM steps of the whole schedule")
    settings.add_argument(
        "--strength", type=float, metavar="0..1", help="share of the schedule that is inverted"
    )
    settings.add_argument("--iterations", type=int, metavar="N", help="most iterations of the drag")
    settings.add_argument("--lr", type=float, help="learning rate")
    settings.add_argument("--lam", type=float, help="weight of what must stay")
    settings.add_argument("--end-step", type=int, metavar="N", help="last steps denoised freely")
    settings.add_argument("--r-m", type=int, metavar="PX", help="radius of the motion patch")
    settings.add_argument("--r-p", type=int, metavar="PX", help="radius of the tracking window")
    settings.add_argument(
        "--parity",
        action="store_true",
        default=None,
        help="keep the published code's meaning where ours differs",
    )


def _size(text: str) -> tuple[int, int]:
    """(height, width) of "WxH"."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size; write it as WxH, for example 512x768"
        )
    return int(height), int(width)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    asked = _parser().parse_args(arguments)
    tune_openmp()
    warnings.showwarning = lambda message, *_, **__: print(
        f"dragnoise: warning: {message}", file=sys.stderr
    )
    try:
        return _COMMANDS[asked.command](asked)
    except DragnoiseError as wrong:
        print(f"dragnoise: error: {wrong}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dragnoise: interrupted; nothing was written", file=sys.stderr)
        return 130


def _editor(asked: argparse.Namespace) -> Any:
    import torch  # seconds to import: only once the arguments are known to be good

    from ..editor import Editor

    if asked.threads is not None:
        if asked.threads < 1:
            raise ConfigError(f"--threads must be 1 or more, got {asked.threads}")
        torch.set_num_threads(asked.threads)
    return Editor.from_pretrained(
        asked.model,
        device=asked.device,
        dtype=asked.dtype,
        config=asked.model_config,
        backend=asked.backend,
        exported=asked.exported,
        build_missing=asked.build_missing,
        attention=asked.attention,
        cache=commands_of.store_of(getattr(asked, "cache", None)),
    )


def _edit(asked: argparse.Namespace) -> int:
    from ..inputs.image import Image
    from ..inputs.mask import Mask
    from ..inputs.points import Points
    from ..system.files import writable

    output = writable(asked.output or f"{Path(asked.image).with_suffix('')}_dragged.png")
    if output.exists() and os.path.exists(asked.image) and output.samefile(asked.image):
        raise OutputError(f"{str(output)!r} is the input image; write somewhere else with -o")
    animation = None if asked.trajectory is None else writable(asked.trajectory, (".gif",))
    source, points = Image.of(asked.image), Points.of(" ".join(asked.drag))
    points.check_inside(source.width, source.height)
    mask = None if asked.mask is None else Mask.of(asked.mask, source.width, source.height)
    changes = _changes(asked)

    editor = _editor(asked)
    config = editor.defaults.replace(**changes)
    from .animation import Trajectory

    seen = Trajectory() if animation is not None else None
    with _progress() as progress:
        result = editor.edit(
            source,
            points,
            mask=mask,
            prompt=asked.prompt,
            negative_prompt=asked.negative_prompt,
            config=config,
            adapter=asked.adapter,
            adapter_scale=asked.adapter_scale,
            record=seen is not None,
            progress=progress,
            on_iteration=seen,
        )
    written = [result.image.save(output)]
    if animation is not None and seen is not None:
        written.append(seen.save(animation, editor, source, result))
    if asked.json:
        print(json.dumps(_report(result) | {"written": [str(path) for path in written]}))
    else:
        _print_times([(output.name, result)])
        print("\n".join(f"wrote {path}" for path in written))
    return 0


def _generate(asked: argparse.Namespace) -> int:
    from ..inputs.mask import Mask
    from ..inputs.points import Points
    from ..system.files import writable

    output = writable(asked.output)
    dragged = writable(output.with_stem(f"{output.stem}_dragged")) if asked.drag else None
    points = Points.of(" ".join(asked.drag)) if asked.drag else None
    changes = _changes(asked)

    editor = _editor(asked)
    from ..pipelines.generate import picture_size

    height, width = picture_size(editor.model, asked.size)
    mask = None if asked.mask is None else Mask.of(asked.mask, width, height)
    if points is not None:
        points.check_inside(width, height)
    with _progress() as progress:
        made = editor.generate(
            asked.prompt,
            negative_prompt=asked.negative_prompt,
            size=(height, width),
            seed=asked.seed,
            config=editor.defaults.replace(**changes),
            progress=progress,
        )
        result = None if points is None else editor.edit(made, points, mask=mask, progress=progress)
    written = [made.image.save(output)]
    if result is not None and dragged is not None:
        written.append(result.image.save(dragged))
    if asked.json:
        said = {
            "seed": made.seed,
            "size": [made.image.width, made.image.height],
            "written": [str(path) for path in written],
        }
        said |= {"timings_ms": _rounded(made.timings_ms), "config": dataclasses.asdict(made.config)}
        print(json.dumps(said | ({} if result is None else {"edit": _report(result)})))
    else:
        seconds = ", ".join(f"{stage} {ms / 1e3:.2f}" for stage, ms in made.timings_ms.items())
        print(f"seconds: {seconds}")
        if result is not None and dragged is not None:
            _print_times([(dragged.name, result)])
        print("\n".join(f"wrote {path}" for path in written))
    return 0


def _changes(asked: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given. Raises ConfigError for a bad one, before a model is loaded."""
    changes = {name: getattr(asked, name) for name in _SETTINGS}
    DragConfig().replace(**changes)
    return changes


def _demo(asked: argparse.Namespace) -> int:
    from .demo import demo

    editor, output = _editor(asked), Path(asked.output)
    with _progress() as progress:
        done = [(sample.name, result) for sample, result in demo(editor, output, progress)]
    if asked.json:
        print(
            json.dumps(
                {
                    "written": str(output / "sheet.png"),
                    "edits": {name: _report(result) for name, result in done},
                }
            )
        )
    else:
        _print_times(done)
        print(f"wrote {output / 'sheet.png'} and {2 * len(done)} pictures beside it")
    return 0


def _info(asked: argparse.Namespace) -> int:
    from .info import about, backends

    editor = _editor(asked)
    found = about(editor.model) | backends(editor.model, editor.running) | commands_of.cache_said()
    if asked.json:
        print(json.dumps(found))
    else:
        width = max(map(len, found))
        for name, value in found.items():
            print(
                f"{name:{width}}  {', '.join(map(str, value)) if isinstance(value, list) else value}"
            )
    return 0


def _personalise(asked: argparse.Namespace) -> int:
    return commands_of.personalise(asked, _editor, _progress)


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "edit": _edit,
    "generate": _generate,
    "personalise": _personalise,
    "cache": commands_of.cache,
    "demo": _demo,
    "info": _info,
}


def _report(result: Any) -> dict[str, Any]:
    pairs = zip(result.points.handles, result.points.targets, strict=True)
    return {
        "reached": result.reached,
        "iterations": len(result.history.losses),
        "losses": result.history.losses.tolist(),
        "points": [{"ended": handle, "target": target} for handle, target in pairs],
        "timings_ms": _rounded(result.timings_ms),
        "cache": result.cache,
        "settings": result.settings | {"config": dataclasses.asdict(result.settings["config"])},
    }


def _rounded(timings_ms: Mapping[str, float]) -> dict[str, float]:
    return {stage: round(ms, 3) for stage, ms in timings_ms.items()}


def _print_times(done: list[tuple[str, Any]]) -> None:
    """A table of seconds by stage, one row an edit."""
    from rich.console import Console
    from rich.table import Table

    stages = list(done[0][1].timings_ms)
    table = Table("edit", "iterations", "reached", *(f"{stage} (s)" for stage in stages), box=None)
    for name, result in done:
        times = (f"{result.timings_ms[stage] / 1e3:.2f}" for stage in stages)
        table.add_row(
            name, str(len(result.history.losses)), "yes" if result.reached else "no", *times
        )
    Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(table)


@contextmanager
def _progress() -> Iterator[Any]:
    """Progress bars on stderr, one a stage, gone when done; nothing where stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
    )

    bars: dict[str, TaskID] = {}
    columns = (
        TextColumn("{task.description:10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as shown:

        def report(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = shown.add_task(stage, total=total)
            shown.update(bars[stage], completed=done, total=total)

        yield report
