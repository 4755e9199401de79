"""The command line. Light to import: PyTorch is loaded once the arguments are known to be good.

Nothing is imported before the signals are handled that could interrupt the imports.
"""

from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main", "run"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. arguments: None for the process's own."""
    from .commands import DRAGNOISE

    return DRAGNOISE.main(arguments)


def run() -> NoReturn:
    """Run the command line as a process of its own."""
    from .interruption import process

    process("dragnoise", main)
