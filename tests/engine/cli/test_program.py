"""A program of commands: which one runs, what is said, how it ends."""

import subprocess
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

import pytest

from dragnoise.engine.cli.program import Command, Program
from dragnoise.engine.errors import CancelledError, ConfigError


def program(work: Callable[[], int]) -> Program:
    def add_options(parser: ArgumentParser) -> None:
        parser.add_argument("--number", type=int, default=0)

    def run(parsed: Namespace) -> int:
        return work() + int(parsed.number)

    command = Command("work", "do some work", add_options, run)
    return Program("tool", "tool", "A tool.", (command,), version="tool 1")


def raising(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


def test_the_exit_code_is_the_commands_own() -> None:
    assert program(lambda: 0).main(["work"]) == 0
    assert program(lambda: 1).main(["work", "--number", "2"]) == 3


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("lr must be"), 2, "tool: error: lr must be\n"),
        (KeyboardInterrupt(), 130, "tool: interrupted; nothing was written\n"),
        (CancelledError("stopped"), 130, "tool: interrupted; nothing was written\n"),
    ],
)
def test_errors_are_one_line(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program(raising(error)).main(["work"]) == code
    assert capsys.readouterr().err == message


def test_an_error_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        program(raising(ZeroDivisionError())).main(["work"])


def test_warnings_are_one_line_and_then_shown_as_before(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work() -> int:
        warnings.warn("look out", stacklevel=1)
        return 0

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        before = warnings.showwarning
        assert program(work).main(["work"]) == 0
        assert warnings.showwarning is before
    assert capsys.readouterr().err == "tool: warning: look out\n"


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["--help"], 0, "do some work"),
        (["work", "--help"], 0, "--number"),
        (["--version"], 0, "tool 1"),
        (["play"], 2, "invalid choice: 'play'"),
        ([], 2, "the following arguments are required: {work}"),
    ],
)
def test_usage(
    words: list[str], code: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        program(lambda: 0).main(words)
    assert ended.value.code == code
    out = capsys.readouterr()
    assert expected in out.out + out.err


@pytest.mark.parametrize("words", [["--help"], ["edit", "--help"], ["edit", "x.png"]])
def test_help_and_usage_errors_do_not_load_pytorch(words: list[str]) -> None:
    """The first word of help comes at once, and OpenMP is set before PyTorch is loaded."""
    code = (
        "import sys, dragnoise.engine.cli as cli\n"
        f"try: cli.main({words})\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "False"
