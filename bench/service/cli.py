"""`python -m dragnoise.bench service`: a service, one client alone, and many visitors.

Prints tables; the last line of stdout is one JSON document. The exit code is 1 where anything
failed but for want of room.
"""

import importlib.util
import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from dragnoise.engine.cli.show import print_json
from dragnoise.engine.config import real, whole
from dragnoise.engine.errors import ConfigError
from dragnoise.engine.system.files import writable_folder

__all__ = ["add_options", "run"]


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    for name, kind, default, about in (
        ("--users", int, 20, "visitors at a time"),
        ("--seconds", float, 60.0, "that they come"),
        ("--moves", int, 20, "of one client alone, by size of picture"),
        ("--events", int, 10_000, "of a pointer that does not wait for frames"),
    ):
        parser.add_argument(
            name, type=kind, default=default, metavar="N", help=f"{about} (default: %(default)s)"
        )
    parser.add_argument(
        "--sizes", default="128,512", metavar="N,...", help="of its pictures (default: %(default)s)"
    )
    parser.add_argument("--keep", action="store_true", help="write the record under bench/results")
    parser.add_argument("--out", metavar="FOLDER", help="write it there instead")


def run(parsed: Namespace) -> int:
    """Measure, print and return the exit code. Raises DragnoiseError."""
    if importlib.util.find_spec("locust") is None:
        raise ConfigError("visitors need locust: pip install 'dragnoise[load]'")
    from dragnoise.engine.system.device import choose_device

    from ..report import record, service
    from ..report.machine import device_slug
    from .load import load

    for name in ("users", "moves", "events"):
        whole(f"--{name}", getattr(parsed, name), 1)
    seconds = real("--seconds", parsed.seconds, "above 0", lambda value: value > 0)
    sizes = tuple(_side(text) for text in parsed.sizes.split(","))
    folder = None if parsed.out is None else writable_folder(parsed.out)
    document: dict[str, Any] = load(
        users=parsed.users,
        seconds=seconds,
        moves=parsed.moves,
        sizes=sizes,
        events=parsed.events,
        watch=_watch,
    )
    for table in service.CELLS:
        record.show("", table(document))
    if parsed.keep or folder is not None:
        slug = device_slug(choose_device("cpu"))
        _watch(f"wrote {record.keep(document, slug, folder or record.RESULTS)}")
    print_json(document)
    failed = document["visits"]["errors"]
    for error in failed:
        _watch(error)
    return 1 if failed else 0


def _side(text: str) -> int:
    if not text.isdecimal() or not 16 <= int(text) <= 2048:
        raise ConfigError(f"--sizes must be whole numbers from 16 to 2048, got {text!r}")
    return int(text)


def _watch(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
