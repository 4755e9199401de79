"""The commands `onnx | plan | ls` of `python -m dragnoise.export`: parts of a model as files.

Results go to stdout (with --json as one JSON document), progress to stderr. What is there already
and right is left as it is. `ls` returns 1 if something is broken; for other exit codes see
`engine/cli/program.py`.
"""

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dragnoise.engine.cache import default_folder
from dragnoise.engine.cli.options import add_json_option, size
from dragnoise.engine.cli.program import Command, Program
from dragnoise.engine.cli.show import print_json, print_table, progress_bar
from dragnoise.engine.diffusion.parts import PARTS
from dragnoise.engine.errors import ExportError, OutputError
from dragnoise.engine.exported import EXPORTABLE, OF_AN_EDIT
from dragnoise.engine.system.files import writable_folder

if TYPE_CHECKING:
    from .files import PartFiles, PlanOptions

__all__ = ["EXPORT"]

# Options.


def _add_folder_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        metavar="FOLDER",
        help="where they lie (default: exported, in the cache folder)",
    )
    add_json_option(parser)


def _add_model_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        default="embedded",
        help="diffusers folder or .safetensors checkpoint (default: the embedded model)",
    )
    parser.add_argument(
        "--model-config",
        metavar="FOLDER",
        help="for a checkpoint: a diffusers folder of the same architecture",
    )
    parser.add_argument("--variant", help='of the weights\' files, as in diffusers ("fp16")')
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read weights that can run code: files you trust",
    )
    parser.add_argument("--adapter", metavar="FILE", help="a LoRA to merge first")
    parser.add_argument(
        "--adapter-scale",
        type=float,
        default=1.0,
        metavar="S",
        help="how much of it (default: 1)",
    )


def _add_onnx_options(parser: ArgumentParser) -> None:
    _add_model_options(parser)
    parser.add_argument(
        "--part",
        action="append",
        choices=EXPORTABLE,
        help=f"repeat for more (default: {', '.join(OF_AN_EDIT)})",
    )
    parser.add_argument(
        "--size",
        type=size,
        metavar="WxH",
        help="of the picture in pixels (default: the model's own)",
    )
    parser.add_argument(
        "--dynamic",
        nargs="?",
        const="",
        metavar="WxH..WxH",
        help="one file for a range of sizes, and of batches from 1 "
        "(default: half to one and a half of --size)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="texts: 2 with guidance (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype",
        choices=("fp32", "fp16", "bf16"),
        default="fp32",
        help="as the editor's (default: %(default)s)",
    )
    parser.add_argument(
        "--features", type=int, metavar="BLOCK", help="up gives the map after this up block too"
    )
    _add_folder_options(parser)


def _add_plan_options(parser: ArgumentParser) -> None:
    _add_onnx_options(parser)
    parser.add_argument(
        "--flavour",
        choices=("tensorrt", "tensorrt_rtx"),
        help="default: the first that can be imported",
    )
    parser.add_argument(
        "--refittable",
        action="store_true",
        help="plans whose weights can be replaced; TensorRT needs a GPU to build them",
    )
    parser.add_argument(
        "--target",
        default="any",
        metavar="SM",
        help="TensorRT for RTX: one compute capability (sm89) instead of all it knows",
    )
    parser.add_argument(
        "--refit",
        action="store_true",
        help="with --adapter, of a refittable plan that is there (GPU only), instead of building",
    )


def _folder(parsed: Namespace) -> Path:
    """Return the folder of exported parts. Raises OutputError for an empty name."""
    if parsed.output == "":
        raise OutputError("-o is empty; give the path of a folder, or leave it out")
    return default_folder() / "exported" if parsed.output is None else Path(parsed.output)


def _range(text: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return least and most (height, width) of "WxH..WxH". Raises ExportError."""
    least, _, most = text.partition("..")
    try:
        return size(least), size(most)
    except argparse.ArgumentTypeError as error:
        raise ExportError(f"--dynamic {text!r}: {error}; write it as 256x256..768x768") from error


# Commands.


def _export_graphs(parsed: Namespace) -> int:
    return _export(parsed, None)


def _export_plans(parsed: Namespace) -> int:
    from dragnoise.engine.backends.tensorrt import library

    from .files import PlanOptions

    # The library first: without it, minutes of work would be for nothing.
    chosen = library(parsed.flavour)
    refittable = parsed.refittable or parsed.refit
    return _export(parsed, PlanOptions(chosen, parsed.target, refittable, parsed.refit))


def _export(parsed: Namespace, plan: "PlanOptions | None") -> int:
    from .files import make_files
    from .models import in_float32, model_for_export
    from .sizes import profile_for

    folder = writable_folder(_folder(parsed))
    model = model_for_export(
        None if parsed.model == "embedded" else parsed.model,
        parsed.dtype,
        config=parsed.model_config,
        variant=parsed.variant,
        allow_pickle=parsed.allow_pickle,
        adapter=parsed.adapter,
        adapter_scale=parsed.adapter_scale,
    )
    ends = _range(parsed.dynamic) if parsed.dynamic else None
    profile = profile_for(model, parsed.size, parsed.batch, parsed.dynamic is not None, ends)
    reference = in_float32(model)
    files = []
    with progress_bar() as progress:
        for part in dict.fromkeys(parsed.part or OF_AN_EDIT):
            features = parsed.features if PARTS[part].has_features else None
            files.append(
                make_files(model, reference, part, profile, folder, features, plan, progress)
            )
    if parsed.json:
        print_json({"folder": str(folder), "files": [each.to_dict() for each in files]})
    else:
        _print_files(files)
        print(f"in {folder}")
    return 0


def _print_files(files: "Sequence[PartFiles]") -> None:
    """Print a table, one row a part."""
    columns = ["part", "ONNX MB", "export s", "error"]
    if any(each.plan is not None for each in files):
        columns += ["plan MB", "build s", "peak GB"]
    print_table(columns, [each.row()[: len(columns)] for each in files])


def _list(parsed: Namespace) -> int:
    from .listing import entries

    folder = _folder(parsed)
    files = entries(folder)
    if parsed.json:
        print_json({"folder": str(folder), "files": [file.to_dict() for file in files]})
    else:
        for file in files:
            print(file)
        print(f"{len(files)} files in {folder}")
    return 1 if any(file.reason for file in files) else 0


ONNX = Command(
    name="onnx",
    summary="as ONNX graphs, compared with PyTorch before they are kept",
    add_options=_add_onnx_options,
    run=_export_graphs,
)
PLAN = Command(
    name="plan",
    summary="as TensorRT plans (and the ONNX graphs that they are built of)",
    add_options=_add_plan_options,
    run=_export_plans,
)
LS = Command(
    name="ls",
    summary="what is there, and whether it is whole",
    add_options=_add_folder_options,
    run=_list,
)

EXPORT = Program(
    name="dragnoise.export",
    usage="python -m dragnoise.export",
    description="Export the frozen parts of a model, for the backends that run them.",
    commands=(ONNX, PLAN, LS),
    kept="what was finished stays, nothing else was written",
)
