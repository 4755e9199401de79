"""The options of what is measured."""

from argparse import ArgumentParser

from dragnoise.engine.cli.options import METHOD_SETTINGS, size

__all__ = ["add_options"]


def add_options(parser: ArgumentParser) -> None:
    """Add the options of a measurement."""
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
