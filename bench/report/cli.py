"""`python -m dragnoise.bench readme`: the kept records' tables, in README.md and docs/."""

from argparse import ArgumentParser, Namespace

__all__ = ["add_options", "run"]


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")


def run(parsed: Namespace) -> int:
    """Write the tables, or compare them, and return the exit code."""
    from .readme import refresh

    current = refresh(check=parsed.check)
    return 1 if parsed.check and not current else 0
