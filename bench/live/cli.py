"""`python -m dragnoise.bench live`: a recorded pointer, and how the picture follows it.

Prints tables; the last line of stdout is one JSON document.
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from dragnoise.engine.cli.options import set_threads
from dragnoise.engine.cli.show import print_json
from dragnoise.engine.config import whole
from dragnoise.engine.inputs.preset import PRESETS
from dragnoise.engine.system.files import writable_folder

__all__ = ["add_options", "run"]


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--model",
        default="embedded",
        help="embedded, golden, sd15, sd21 or a diffusers folder (default: %(default)s)",
    )
    parser.add_argument("--size", type=int, metavar="N", help="of the picture's sides, in pixels")
    parser.add_argument(
        "--preset",
        default="live",
        choices=[name for name, preset in PRESETS.items() if preset.changes.get("iterations") == 0],
        help="of the frames (default: %(default)s)",
    )
    for name, default, about in (
        ("--events", 600, "of the pointer"),
        ("--rate", 120, "events a second"),
        ("--reach", 20, "pixels that the pointer goes from the handle"),
        ("--rounds", 3, "of drags and frames, alternately, for the ratios; 0: none"),
    ):
        parser.add_argument(
            name, type=int, default=default, metavar="N", help=f"{about} (default: %(default)s)"
        )
    parser.add_argument(
        "--path", metavar="FILE.csv", help="x,y of every event instead, in pixels, one a line"
    )
    parser.add_argument(
        "--no-count", action="store_true", help="do not count work at full size (a minute)"
    )
    parser.add_argument("--keep", action="store_true", help="write the record under bench/results")
    parser.add_argument("--out", metavar="FOLDER", help="write it there instead")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16 on CUDA")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")


def run(parsed: Namespace) -> int:
    """Replay, print and return the exit code. Raises DragnoiseError."""
    from dragnoise.engine.system.device import choose_device

    from ..report import record
    from ..report.machine import device_slug
    from .follow import follow, tables

    for name in ("events", "rate", "reach"):
        whole(f"--{name}", getattr(parsed, name), 1)
    whole("--rounds", parsed.rounds, 0)
    folder = None if parsed.out is None else writable_folder(parsed.out)
    set_threads(parsed.threads)
    document: dict[str, Any] = follow(
        parsed.model,
        parsed.device,
        parsed.dtype,
        size=parsed.size,
        preset=parsed.preset,
        events=parsed.events,
        rate_hz=parsed.rate,
        reach_px=parsed.reach,
        rounds=parsed.rounds,
        counts=not parsed.no_count,
        recorded=None if parsed.path is None else Path(parsed.path),
        watch=_watch,
    )
    for title, table in tables(document):
        record.show(title, table)
    if parsed.keep or folder is not None:
        slug = device_slug(choose_device(parsed.device))
        _watch(f"wrote {record.keep(document, slug, folder or record.RESULTS)}")
    print_json(document)
    return 0


def _watch(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
