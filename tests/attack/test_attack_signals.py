"""Interruptions."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from command_line import ON_GOLDEN
from dragnoise.engine import Image
from tally import WHOLE, Tally

COMMANDS = {
    "edit": "edit p.png --drag 8,8:40,40 --steps 6 --iterations 4 -o o.png --trajectory t.gif",
    "personalise": "personalise p.png --steps 8 --rank 2 --batch 1 -o a.safetensors --state s.safetensors",  # noqa: E501
    "generate": "generate --prompt x --steps 10 --iterations 4 --drag 8,8:40,40 -o g.png",
}
only_whole = pytest.mark.skipif(not WHOLE, reason="whole processes: make attack")
CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}


def _begun(command: str, folder: Path, *more: str) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "dragnoise.engine.cli", *COMMANDS[command].split(), *more]
    return subprocess.Popen(
        [*words, *ON_GOLDEN],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def _hit(command: str, folder: Path, chance: random.Random, *signals: int) -> tuple[int, str]:
    """Run a command, send it signals at random moments; return exit code and stderr."""
    process = _begun(command, folder)
    for number in signals:
        time.sleep(chance.uniform(0.3, 7))
        if process.poll() is None:
            process.send_signal(number)
    _, err = process.communicate(timeout=300)
    return process.returncode, err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "p.png")
    return tmp_path


def _faults(code: int, err: str, number: int, folder: Path) -> list[str]:
    """Return what is wrong about how an interrupted command ended."""
    there = {path.name for path in folder.iterdir()}
    faults = [] if code in (0, CODES[number]) else [f"exit code {code}"]
    if "Traceback" in err or err.count("\n") > 1:
        faults.append(f"said {err!r}")
    if left := [name for name in there if name.startswith(".")]:
        faults.append(f"left {left}")
    if "nothing was written" in err and there != {"p.png"}:
        faults.append(f"said {err!r} beside {there}")
    if "--state" in err and "s.safetensors" not in there:
        faults.append("says of a training that it was kept")
    for name in there - {"p.png"}:
        if name.endswith((".png", ".gif")):
            Image.of(folder / name)
    return faults


@pytest.mark.parametrize("number", CODES)
def test_ended_by_a_signal(folder: Path, tally: Tally, number: signal.Signals) -> None:
    """SIGINT, SIGTERM."""
    for chance in tally.lot(small=1, whole=80):
        command = chance.choice([*COMMANDS])
        code, err = _hit(command, folder, chance, number)
        faults = _faults(code, err, number, folder)
        tally.judge(not faults, f"{command}: {faults}")
        for path in set(folder.iterdir()) - {folder / "p.png"}:
            path.unlink()


@only_whole
def test_two_signals(folder: Path, tally: Tally) -> None:
    """Ctrl-C twice."""
    for chance in tally.lot(small=0, whole=20):
        command = chance.choice([*COMMANDS])
        process = _begun(command, folder)
        time.sleep(chance.uniform(0.3, 7))
        for _ in range(2):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                time.sleep(chance.uniform(0, 0.5))
        _, err = process.communicate(timeout=300)
        faults = _faults(process.returncode, err, signal.SIGINT, folder)
        tally.judge(not faults, f"{command}: {faults}")
        for path in set(folder.iterdir()) - {folder / "p.png"}:
            path.unlink()


@only_whole
def test_killed(folder: Path, tally: Tally) -> None:
    """SIGKILL, and the next run."""
    for chance in tally.lot(small=0, whole=80):
        command = chance.choice([*COMMANDS])
        _hit(command, folder, chance, signal.SIGKILL)
        process = _begun(command, folder)
        _, err = process.communicate(timeout=300)
        left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
        tally.judge(process.returncode == 0 and not left, f"{command}: {err!r}, left {left}")
        for path in set(folder.iterdir()) - {folder / "p.png"}:
            path.unlink()
