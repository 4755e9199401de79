"""`python -m dragnoise.bench quality`: every way to drag, judged where the result is known."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragnoise.engine.cli.options import set_threads
from dragnoise.engine.cli.show import print_json
from dragnoise.engine.system.files import writable_folder

if TYPE_CHECKING:
    from .asked import Asked

__all__ = ["add_options", "run"]


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--methods",
        metavar="NAME,...",
        help="who edits (default: all but baseline); draggan edits its generator's pictures alone, "
        "beside nothing and warp",
    )
    parser.add_argument(
        "--against",
        metavar="NAME,...",
        help="whom all others are compared with, drag by drag (default: dragnoise,warp)",
    )
    parser.add_argument("--kinds", metavar="NAME,...", help="kinds of drag (default: all)")
    parser.add_argument(
        "--each", type=int, default=8, metavar="N", help="drags of a kind (default: %(default)s)"
    )
    parser.add_argument(
        "--lot",
        default="judging",
        choices=("judging", "tuning"),
        help="whose drags; settings are tuned on the other (default: %(default)s)",
    )
    parser.add_argument(
        "--model", default="embedded", help="embedded, or a diffusers folder that knows the scenes"
    )
    parser.add_argument(
        "--steps", type=int, default=10, help="of the schedule (default: %(default)s)"
    )
    parser.add_argument(
        "--settings", metavar="NAME=VALUE,...", help="of the methods that have them"
    )
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="only the I-th of N parts")
    parser.add_argument("--resume", action="store_true", help="leave out what is done, and go on")
    parser.add_argument(
        "--out",
        default="quality",
        metavar="FOLDER",
        help="where pictures, scores and the report lie (default: %(default)s)",
    )
    parser.add_argument(
        "--docs", action="store_true", help="write docs/quality.md and its pictures from FOLDER"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")


def run(parsed: Namespace) -> int:
    """Edit, score, report and return the exit code. Raises ConfigError, ModelError, OutputError."""
    from .asked import Asked, studio_of
    from .parts import compete, found, parts_of

    asked = Asked.of(parsed)
    writable_folder(asked.folder)
    set_threads(parsed.threads)
    studio = studio_of(parsed)
    for part in parts_of(asked, studio, Path(parsed.model).name):
        compete(part, asked, studio)
    _report(parsed, found(asked.folder), asked)
    return 0


def _report(parsed: Namespace, scored: dict[str, Any], asked: "Asked") -> None:
    """Show and write what all shards have found until now."""
    from dragnoise.engine.system.device import choose_device

    from ..report.machine import machine
    from . import report

    document = {**scored, "machine": machine(choose_device(parsed.device))}
    print(report.show_table(document, asked.against))
    written = report.write_all(document, asked.folder, asked.against)
    if parsed.docs:
        written += report.write_docs(document, asked.folder)
    for path in written:
        print(f"wrote {path}", file=sys.stderr)
    print_json(document)
