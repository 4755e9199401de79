"""The commands of `python -m dragnoise.bench`: measure, print a table, and the record as JSON.

Each stands in its room's `cli.py`, which loads PyTorch only when its `run` is called.
"""

from argparse import ArgumentParser, Namespace
from importlib import import_module

from dragnoise.engine.cli.program import Command, Program

__all__ = ["BENCH"]

_COMMANDS = (
    ("kernels", "measure", "every kernel beside its formula"),
    ("stages", "measure", "where the time goes, and the share of the roofline"),
    ("edits", "measure", "whole edits, from the published algorithm to ours"),
    ("sessions", "measure", "the first edit, and what comes after it"),
    ("personalise", "measure", "learning a picture beside a plain loop; what it is good for"),
    ("precision", "measure", "drags in lower precisions beside float32's"),
    ("exports", "measure", "every part as a graph and a plan: size, time, memory, error, speed"),
    ("all", "measure", "kernels, stages and edits"),
    ("work", "work", "the work of an edit, counted on the real code"),
    ("replacement", "replacement", "which block of the U-Net holds what, and from when on"),
    ("live", "live", "how a picture follows a pointer: frames a second, latency, ratios"),
    ("service", "service", "how a service bears many visitors"),
    ("quality", "quality", "every way to drag, judged where the result is known"),
    ("dragbench", "dragbench", "edit DragBench's pictures and judge what became of them"),
    ("campaign", "campaign", "all that a machine can tell in a given time, most valuable first"),
    ("readme", "report", "write the kept records' tables into README.md and docs/"),
)
"""Every command's name, its room and what help says of it."""


def _in_its_room(name: str, room: str, summary: str) -> Command:
    """Return a command that stands in `ROOM/cli.py`."""

    def add_options(parser: ArgumentParser) -> None:
        import_module(f".{room}.cli", __package__).add_options(parser)

    def run(parsed: Namespace) -> int:
        return int(import_module(f".{room}.cli", __package__).run(parsed))

    return Command(name, summary, add_options, run)


BENCH = Program(
    name="dragnoise.bench",
    usage="python -m dragnoise.bench",
    description="What an edit costs.",
    commands=tuple(_in_its_room(*row) for row in _COMMANDS),
)
