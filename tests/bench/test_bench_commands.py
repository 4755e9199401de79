"""The bench's command line: its table of commands, and what it says before PyTorch is loaded."""

import subprocess
import sys

import pytest

from dragnoise.bench.commands import BENCH
from dragnoise.bench.measure.records import MEASUREMENTS
from dragnoise.bench.work import cli as work_cli
from dragnoise.engine.system.device import DTYPES

NAMES = [command.name for command in BENCH.commands]


def test_help_and_usage_errors_do_not_load_pytorch() -> None:
    """The first word of help comes at once, and OpenMP is set before PyTorch is loaded."""
    asked = [["--help"], ["nothing"], *([name, "--help"] for name in NAMES)]
    asked += [[name, "--no-such-option"] for name in NAMES]
    code = f"""
import sys
from dragnoise.bench.__main__ import main
for words in {asked}:
    try:
        main(words)
    except SystemExit as ended:
        print(words, ended.code, "torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    said = done.stdout.splitlines()
    for words in asked:
        assert f"{words} {0 if '--help' in words else 2} False" in said


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        BENCH.main(["--help"])
    help_of_all = " ".join(capsys.readouterr().out.split())
    for command in BENCH.commands:
        assert f"{command.name} {command.summary}" in help_of_all


def test_what_is_measured_is_a_command() -> None:
    assert set(MEASUREMENTS) < set(NAMES)
    assert len(set(NAMES)) == len(NAMES)


def test_work_knows_the_precisions() -> None:
    assert tuple(DTYPES) == work_cli.DTYPES
