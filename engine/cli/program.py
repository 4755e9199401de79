"""A command line: a table of commands, one main loop, and one meaning of exit codes.

`dragnoise`, `python -m dragnoise.export` and `python -m dragnoise.bench` are such programs.

    0     done
    2     something must be changed: an input, where the result goes, or what is asked of the
          memory; also where the work was done and stdout did not take what is said of it
    129   the terminal was closed (SIGHUP)
    130   interrupted (Ctrl-C, SIGINT)
    143   ended by SIGTERM

Any other is the command's own. One line on stderr says what it was, and which files were written
before. A second signal within two seconds is taken for an echo of the first.
"""

import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import CancelledError, DragnoiseError
from ..system.files import Outputs
from ..system.incoming import first_line
from ..system.memory import is_out_of_memory
from ..system.openmp import tune_openmp
from .interruption import code_of, interruptible, words_of
from .streams import Patient, patient_streams

__all__ = ["Command", "Program"]


@dataclass(frozen=True)
class Command:
    """A command of a program.

    Attributes:
        name: its word on the command line.
        summary: one line of the program's help.
        add_options: adds the command's arguments to its parser.
        run: does the work and returns the exit code; DragnoiseError ends it with code 2. What it is
            given has `outputs`, too, to which it adds the files that it will write.
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
        kept: what is said after an interruption where no file was written.
        version: what `--version` prints; empty: the program has no such option.
    """

    name: str
    usage: str
    description: str
    commands: tuple[Command, ...]
    kept: str = "nothing was written"
    version: str = ""

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run the command that the arguments name and return the exit code.

        arguments: None for the process's own.
        """
        outputs = Outputs()
        with interruptible(), patient_streams() as stdout:
            try:
                return self._run(arguments, outputs, stdout)
            except (KeyboardInterrupt, CancelledError) as interruption:
                return self._interrupted(interruption, outputs)

    def _run(self, arguments: Sequence[str] | None, outputs: Outputs, stdout: Patient) -> int:
        tune_openmp()  # before any command loads PyTorch
        parsed = self._parser().parse_args(arguments)
        parsed.outputs = outputs
        command = {command.name: command for command in self.commands}[parsed.command]
        with self._warnings_in_one_line():
            try:
                code = command.run(parsed)
            except (DragnoiseError, OSError, MemoryError, RuntimeError, ImportError) as error:
                line = _line(error)
                if line is None:
                    raise
                self._say("; ".join([f"error: {line}", *_notes(error), *_written(outputs)]))
                return 2
        stdout.flush()
        if stdout.refused and not code:
            line = f"error: stdout cannot be written to ({stdout.refused})"
            self._say("; ".join([line, *_written(outputs)]))
            return 2
        return code

    def _interrupted(self, interruption: BaseException, outputs: Outputs) -> int:
        """Say what there is of the work, and return the exit code."""
        kept = _notes(interruption) or _written(outputs) or [self.kept]
        self._say("; ".join([words_of(interruption), *kept]))
        return code_of(interruption)

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


def _line(error: Exception) -> str | None:
    """Return what is said of an error that is no fault of ours; None for one that is."""
    if isinstance(error, DragnoiseError):
        return " ".join(str(error).split("\n"))
    if is_out_of_memory(error):
        return (
            f"out of memory ({first_line(error)}); take a smaller picture, --dtype bfloat16, "
            "--backend eager, or less at a time (--batch, no --trajectory)"
        )
    return first_line(error) if isinstance(error, OSError) else None


def _notes(error: BaseException) -> list[str]:
    """Return what a command has to say beside an error: what was kept, and how to go on."""
    return list(getattr(error, "__notes__", ()))


def _written(outputs: Outputs) -> list[str]:
    """Return what is said of the files that were written before."""
    written = ", ".join(repr(str(path)) for path in outputs.written())
    return [f"wrote {written} before"] if written else []
