"""A command line: a table of commands, one main loop, and one meaning of exit codes.

`dragnoise`, `python -m dragnoise.export` and `python -m dragnoise.bench` are such programs.
Exit codes: 0 done, 2 the input must be changed, 130 interrupted; any other is the command's own.
"""

import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import CancelledError, DragnoiseError
from ..system.openmp import tune_openmp

__all__ = ["Command", "Program"]


@dataclass(frozen=True)
class Command:
    """A command of a program.

    Attributes:
        name: its word on the command line.
        summary: one line of the program's help.
        add_options: adds the command's arguments to its parser.
        run: does the work and returns the exit code; DragnoiseError ends it with code 2.
        description: the first lines of the command's own help; empty: the summary.
    """

    name: str
    summary: str
    add_options: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
    description: str = ""


@dataclass(frozen=True)
class Program:
    """A program that runs one of its commands.

    Attributes:
        name: stands before every message on stderr.
        usage: how a person calls it.
        description: the first lines of its help.
        commands: in the order in which help lists them.
        interrupted: what is said after Ctrl-C.
        version: what `--version` prints; empty: the program has no such option.
    """

    name: str
    usage: str
    description: str
    commands: tuple[Command, ...]
    interrupted: str = "interrupted; nothing was written"
    version: str = ""

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run the command that the arguments name and return the exit code.

        arguments: None for the process's own.
        """
        tune_openmp()  # before any command loads PyTorch
        parsed = self._parser().parse_args(arguments)
        command = {command.name: command for command in self.commands}[parsed.command]
        with self._warnings_in_one_line():
            try:
                return command.run(parsed)
            except DragnoiseError as error:
                self._say(f"error: {error}")
                return 2
            except (KeyboardInterrupt, CancelledError):
                self._say(self.interrupted)
                return 130

    def _parser(self) -> ArgumentParser:
        parser = ArgumentParser(prog=self.usage, description=self.description)
        if self.version:
            parser.add_argument("--version", action="version", version=self.version)
        names = ",".join(command.name for command in self.commands)
        subparsers = parser.add_subparsers(dest="command", required=True, metavar=f"{{{names}}}")
        for command in self.commands:
            own = subparsers.add_parser(
                command.name,
                help=command.summary,
                description=command.description or command.summary,
            )
            command.add_options(own)
        return parser

    @contextmanager
    def _warnings_in_one_line(self) -> Iterator[None]:
        """Print warnings in one line each, without their place in the code, while this is open."""
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: self._say(f"warning: {message}")
            yield

    def _say(self, line: str) -> None:
        print(f"{self.name}: {line}", file=sys.stderr)
