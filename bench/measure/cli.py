"""`python -m dragnoise.bench edits` and the like: measure, show a table, keep the record."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragnoise.engine.cli.show import print_json
from dragnoise.engine.system.files import Outputs, writable_folder, write_whole

from .options import add_options

if TYPE_CHECKING:
    from .records import Record

__all__ = ["add_options", "run"]


def run(parsed: Namespace) -> int:
    """Measure what the command names, show and keep it, and return the exit code."""
    _check_outputs(parsed)
    from .records import MEASUREMENTS  # now: PyTorch comes after what is wrong at once

    for measure in MEASUREMENTS[parsed.command]:
        _finish(parsed, measure(parsed))
    return 0


def _finish(parsed: Namespace, record: "Record") -> None:
    """Show a record, write it where it was asked for, and print it."""
    from ..report.record import show, to_csv

    document, cells = record
    threads = document["machine"]["threads"]
    what = f"{document['model']} {document['size']} {document['dtype']}"
    title = f"{document['bench']}: {what}, {threads} threads"
    if document.get("computed"):
        title += " (whole edits computed from a few iterations)"
    show(title, cells)
    if parsed.csv:
        table = to_csv(cells)
        write_whole(Path(parsed.csv), lambda path: path.write_text(table, encoding="utf-8"))
    if parsed.keep or parsed.out:
        for path in _kept(parsed, document):
            print(f"wrote {path}", file=sys.stderr)
    print_json(document)


def _check_outputs(parsed: Namespace) -> None:
    """Raise OutputError if something cannot be written, before minutes of work."""
    outputs: Outputs = parsed.outputs
    for option, path in (("--csv", parsed.csv), ("--profile", parsed.profile)):
        if path is not None:
            outputs.add(option, path, ())
    outputs.check_apart({"model": parsed.model})
    if parsed.out is not None:
        writable_folder(parsed.out)


def _kept(parsed: Namespace, document: dict[str, Any]) -> Iterator[Path]:
    """Write the record, and a plot of edits; yield their files."""
    from ..report.machine import device_slug
    from ..report.record import RESULTS, keep
    from .asked import device_of

    folder = Path(parsed.out) if parsed.out else RESULTS
    path = keep(document, device_slug(device_of(parsed)), folder)
    yield path
    if document["bench"] == "edits":
        from ..report.plot import plot

        yield plot(document, path.with_suffix(".png"))
