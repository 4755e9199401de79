"""`python -m dragnoise.bench work`: the work of an edit, and the least time it takes on devices.

Prints tables; the last line of stdout is one JSON document.
"""

from argparse import ArgumentParser, Namespace

from dragnoise.engine.cli.options import DIFFUSION_METHODS, add_json_option, size
from dragnoise.engine.cli.show import print_json

from .published import PUBLISHED

__all__ = ["DTYPES", "add_options", "run"]

DTYPES = ("float32", "bfloat16", "float16")
"""Precisions by name: those of `engine/system/device.py`, which loads PyTorch. A test compares."""


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    names = ", ".join(PUBLISHED)
    parser.add_argument(
        "--arch", default="sd15", help=f"{names}, or a diffusers folder (default: %(default)s)"
    )
    parser.add_argument(
        "--size",
        type=size,
        metavar="WxH",
        help="of the picture (default: what the model was trained for)",
    )
    parser.add_argument(
        "--iterations", type=int, default=80, metavar="N", help="of the drag (default: %(default)s)"
    )
    parser.add_argument("--no-mask", action="store_true", help="nothing must stay: no mask term")
    parser.add_argument(
        "--successive", action="store_true", help="a drag on an image that is inverted already"
    )
    parser.add_argument(
        "--method", default="dragnoise", choices=DIFFUSION_METHODS, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--dtype", default="bfloat16", choices=DTYPES, help="of the networks (default: %(default)s)"
    )
    add_json_option(parser)


def run(parsed: Namespace) -> int:
    """Count, print and return the exit code. Raises ConfigError, ModelError."""
    from dragnoise.engine.system import device

    from .architectures import Architecture
    from .forecasts import ceilings_of, document_of, show
    from .work import count

    dtype = device.DTYPES[parsed.dtype]
    side = Architecture.of(parsed.arch).side_px
    work = count(
        parsed.arch,
        parsed.size or (side, side),
        parsed.iterations,
        not parsed.no_mask,
        parsed.method,
        parsed.successive,
        dtype,
    )
    ceilings = ceilings_of(dtype)
    document = document_of(work, ceilings)
    if not parsed.json:
        show(work, ceilings)
    print_json(document)
    return 0
