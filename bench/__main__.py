"""`python -m dragnoise.bench`: what an edit costs.

Nothing is imported before the signals are handled that could interrupt the imports.
"""

from collections.abc import Sequence

from dragnoise.engine.cli.interruption import process

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. arguments: None for the process's own."""
    from .commands import BENCH

    return BENCH.main(arguments)


if __name__ == "__main__":
    process("dragnoise.bench", main)
