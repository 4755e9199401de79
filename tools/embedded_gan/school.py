"""Teach for a time, and leave what came of it in a folder; go on from what is there.

generator/     config.json and model.safetensors: the average, float16
state.pt       weights, average and Adam's moments, to go on from
sheet.png      held-out scenes in pairs of rows: drawn above, made below
log.jsonl      a line a minute: pictures seen, the mean loss, the held-out PSNR in dB
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dragnoise.engine.gan.writing import write_folder

from . import output
from .teach import Teacher, held_out

STATE = "state.pt"
EVERY = 60.0
"""Seconds from one writing to the next."""


def run(folder: Path, teacher: Teacher, seconds: float, report: Callable[[str], None]) -> None:
    """Teach until the pictures or the seconds are over."""
    (folder / "generator").mkdir(parents=True, exist_ok=True)
    if (folder / STATE).exists():
        resume(folder, teacher)
    begun = wrote = time.monotonic()
    losses = list[float]()
    while teacher.seen < teacher.plan.pictures and time.monotonic() < begun + seconds:
        losses.append(teacher.update())
        if time.monotonic() > wrote + EVERY:
            report(write(folder, teacher, mean(losses)))
            losses.clear()
            wrote = time.monotonic()
    if losses:
        report(write(folder, teacher, mean(losses)))


def write(folder: Path, teacher: Teacher, loss: float) -> str:
    """Write all files, each of which appears whole; return the line of the log."""
    generator = teacher.settle()
    write_folder(folder / "generator", generator, torch.float16)
    drawn, made, psnr = held_out(generator, teacher.blocks)
    output.write_picture(folder / "sheet.png", output.in_rows(_paired(drawn, made)))
    part = folder / (STATE + ".part")
    torch.save(teacher.state(), part)
    os.replace(part, folder / STATE)
    entry = {"seen": teacher.seen, "loss": round(loss, 4), "psnr": round(psnr, 2)}
    return output.log(folder, entry | {"size": made.shape[-1]})


def resume(folder: Path, teacher: Teacher) -> None:
    """Go on from what was written."""
    teacher.restore(torch.load(folder / STATE, weights_only=True))


def _paired(drawn: Tensor, made: Tensor, count: int = 32) -> NDArray[np.uint8]:
    """Order pictures so that rows of drawn ones precede those made, uint8 [N, H, W, 3]."""
    rows = [part[:count].split(output.ROW) for part in (drawn, made)]
    both = torch.cat([picture for pair in zip(*rows, strict=True) for picture in pair])
    return both.add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
