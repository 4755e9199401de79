"""Draw training pictures, many processes at once, into files of a few hundred each.

Nothing here imports PyTorch: the processes that draw start in a fraction of a second.
"""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dragnoise.bench.world import painting
from dragnoise.bench.world import scenes as world

CHUNK = 500
SEED = 20263
"""Apart from the seeds of the embedded model's shards (20261) and of every drag."""

KINDS: dict[str, type[world.Scene]] = {"air": world.Air, "land": world.Land, "sea": world.Sea}


def draw(kinds: tuple[str, ...], count: int, seed: int) -> NDArray[np.uint8]:
    """Draw random pictures of these kinds in turn, uint8 [count, 3, 128, 128]."""
    rng = np.random.default_rng((SEED, seed))
    pictures = np.empty((count, 3, world.SIZE, world.SIZE), np.uint8)
    for number in range(count):
        sort = KINDS[kinds[number % len(kinds)]]
        scene = world.DRAW[sort](rng, str(rng.choice(list(world.SKIES))), False)
        pictures[number] = painting.render(scene)[0].transpose(2, 0, 1)
    return pictures


def draw_files(
    folder: Path, kinds: tuple[str, ...], count: int, seconds: float, workers: int
) -> list[Path]:
    """Draw pictures into files, as many as are wanted and the time allows.

    Args:
        folder: Where the files are; those that are there are kept.
        kinds: Names in `KINDS`.
        count: Pictures that are wanted.
        seconds: The most time to take; at least one file is made.
        workers: Processes that draw.

    Returns:
        The files, uint8 [CHUNK, 3, 128, 128] each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    paths = [folder / f"{'-'.join(kinds)}-{number:04d}.npy" for number in range(-(-count // CHUNK))]
    missing = [(path, number) for number, path in enumerate(paths) if not path.exists()]
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for path, number in missing:
                pool.submit(_draw_file, path, kinds, number, deadline)
    except (OSError, BrokenProcessPool):  # no processes on this machine: draw in this one
        for path, number in missing:
            _draw_file(path, kinds, number, deadline)
    if not any(path.exists() for path in paths):
        _draw_file(paths[0], kinds, 0, time.monotonic() + 60)
    return [path for path in paths if path.exists()]


def _draw_file(path: Path, kinds: tuple[str, ...], number: int, deadline: float) -> None:
    """Draw one file, which appears whole, unless it is there or the time is over."""
    if time.monotonic() > deadline or path.exists():
        return
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, draw(kinds, CHUNK, number))
    os.replace(part, path)
