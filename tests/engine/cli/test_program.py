"""A program of commands: which one runs, what is said, how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from dragnoise.engine.cli.options import set_threads
from dragnoise.engine.cli.program import Command, Program
from dragnoise.engine.cli.show import print_json
from dragnoise.engine.errors import CancelledError, ConfigError
from dragnoise.engine.system.files import write_whole


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
        (OSError(28, "No space left"), 2, "tool: error: [Errno 28] No space left\n"),
        (ConfigError("two\nlines"), 2, "tool: error: two lines\n"),
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


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory\nframe #0: ..."),
        RuntimeError("can't start new thread"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_too_little_memory_is_one_line(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program(raising(error)).main(["work"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("tool: error: out of memory (")
    assert "take a smaller picture" in said
    assert said.count("\n") == 1


def test_another_runtime_error_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        program(raising(RuntimeError("shapes cannot be multiplied"))).main(["work"])


def writing(target: Path, ends: Callable[[], int]) -> Program:
    """Return a program that writes a file, then ends as it is told."""

    def run(parsed: Namespace) -> int:
        path = parsed.outputs.add("-o", target)
        write_whole(path, lambda part: part.write_text("x"))
        return ends()

    return Program("tool", "tool", "A tool.", (Command("work", "", lambda parser: None, run),))


@pytest.mark.parametrize(
    ("error", "begins"),
    [(KeyboardInterrupt(), "tool: interrupted; "), (ConfigError("no"), "tool: error: no; ")],
)
def test_what_was_written_is_said(
    error: BaseException, begins: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "a.png"
    writing(target, raising(error)).main(["work"])
    assert capsys.readouterr().err == f"{begins}wrote {str(target)!r} before\n"


@pytest.fixture
def from_a_terminal() -> Iterator[None]:
    """Handle signals as a program that a terminal started does; these tests may run under nohup."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("from_a_terminal")
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGTERM, 143, "tool: ended by SIGTERM; nothing was written\n"),
        (signal.SIGINT, 130, "tool: interrupted; nothing was written\n"),
        (signal.SIGHUP, 129, "tool: ended by SIGHUP; nothing was written\n"),
    ],
)
def test_signals_interrupt(
    number: signal.Signals, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its echo is not heard, and afterwards the signal is handled as before."""

    def work() -> int:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(signal.SIGINT)
        return 0

    before = signal.getsignal(number)
    assert program(work).main(["work"]) == code
    assert signal.getsignal(number) == before
    assert capsys.readouterr().err == said


def test_an_interruption_in_a_finaliser_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    class Finalised:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work() -> int:
        Finalised()
        time.sleep(5)
        return 0

    assert program(work).main(["work"]) == 143
    assert "Traceback" not in capsys.readouterr().err


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def work() -> int:
        signal.raise_signal(signal.SIGHUP)
        return 3

    try:
        assert program(work).main(["work"]) == 3
    finally:
        signal.signal(signal.SIGHUP, before)


# Streams.

SAYS = r"""
import sys
from argparse import Namespace
from dragnoise.engine.cli.program import Command, Program
def run(parsed):
    print("said \u2026 \udce9 " + "x" * 100_000)
    return 0
sys.exit(Program("tool", "tool", "", (Command("work", "", lambda p: None, run),)).main(["work"]))
"""


@pytest.mark.parametrize(
    ("shell", "encoding", "code", "said"),
    [
        ("cat", "ascii", 0, ""),
        ("cat", "cp1252", 0, ""),
        ("cat", "utf-8:strict", 0, ""),
        (">/dev/full", "utf-8", 2, "tool: error: stdout cannot be written to (No space left"),
        (">&-", "utf-8", 0, ""),
        ("2>&- | cat", "utf-8", 0, ""),
        ("2>/dev/full", "utf-8", 0, ""),
        ("true", "utf-8", 2, "tool: error: stdout cannot be written to (Broken pipe)"),
    ],
)
def test_streams_that_refuse(shell: str, encoding: str, code: int, said: str) -> None:
    pipe = "" if shell.startswith((">", "2>")) else "| "
    line = f"set -o pipefail; {sys.executable} -c '{SAYS}' {pipe}{shell}"
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.decode().startswith(said)
    assert done.stderr.count(b"\n") == bool(said)


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [float("nan"), 1.5], "b": {"c": float("inf")}, "d": (2, "x", None)})
    document = json.loads(capsys.readouterr().out)
    assert document == {"a": [None, 1.5], "b": {"c": None}, "d": [2, "x", None]}


@pytest.mark.parametrize("number", [0, -1, 257 + 10**6, 10**12])
def test_threads_that_cannot_be(number: int) -> None:
    with pytest.raises(ConfigError, match="--threads must be"):
        set_threads(number)


def test_a_process_is_interrupted_while_it_is_imported() -> None:
    """And nothing interrupts its end."""
    words = [sys.executable, "-m", "dragnoise.engine.cli", "info", "--device", "cpu"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    time.sleep(0.4)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (143, -signal.SIGTERM)  # before our first line: by itself
    assert b"Traceback" not in said


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
