"""`dragnoise convert-generator`: make a generator's folder of a StyleGAN2 state dict."""

import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError
from ..system.files import writable_folder
from ..system.incoming import open_regular
from .options import add_json_option
from .program import Command
from .show import print_json

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CONVERT"]

_SAFE = ".safetensors"


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "weights",
        help="a state dict of stylegan2-ada-pytorch or rosinality's: .pt, .pth or .safetensors",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="FOLDER", help="where to write the generator"
    )
    parser.add_argument(
        "--mapping-rate",
        type=float,
        default=0.01,
        metavar="X",
        help="the mapping network's learning rate multiplier (default: %(default)s)",
    )
    add_json_option(parser)


def _run(parsed: Namespace) -> int:
    source = Path(parsed.weights)
    open_regular(source, ModelError).close()
    folder = writable_folder(parsed.output)

    from ..gan.foreign import generator_of
    from ..gan.writing import write_folder

    generator = generator_of(_tensors(source), parsed.mapping_rate)
    folder.mkdir(parents=True, exist_ok=True)
    write_folder(folder, generator)
    architecture = generator.architecture
    if parsed.json:
        print_json({"written": str(folder), "architecture": architecture.to_dict()})
    else:
        size, rows = architecture.size, architecture.rows
        print(f"{folder}: a generator of {size}x{size} pictures with {rows} style vectors")
        print(f"try it: dragnoise demo --method draggan --generator {folder}")
    return 0


def _tensors(source: Path) -> "dict[str, Tensor]":
    """Return the tensors of a file; a pickle is read in a process of its own."""
    from ..diffusion.load.stored import open_weights
    from ..gan.unpickled import convert_pickle

    with tempfile.TemporaryDirectory() as folder:
        safe = source
        if source.suffix.lower() != _SAFE:
            safe = Path(folder) / "weights.safetensors"
            convert_pickle(source, safe)
        with open_weights([safe]) as stored:
            return {name: tensor.read() for name, tensor in stored.items()}


CONVERT = Command(
    name="convert-generator",
    summary="make a generator's folder of StyleGAN2 weights",
    description=(
        "Write the folder that draggan edits with. A pickle is read in a process of its own that "
        "refuses code; an edit never reads one."
    ),
    add_options=_add_options,
    run=_run,
)
