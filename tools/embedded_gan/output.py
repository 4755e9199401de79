"""Write what a training leaves, and read it to go on: all files stay below 16 MiB.

generator/                       config.json and model.safetensors: the average, float16
state-generator.safetensors      the weights themselves, float16, to go on from
state-discriminator.safetensors
sheet.png                        64 pictures of the average
progress.png                     a row of pictures from every time it was written
log.jsonl                        a line every few seconds
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dragnoise.engine.gan.generator import Generator
from dragnoise.engine.gan.writing import WEIGHTS, write_folder

from .train import Trainer

STATES = ("generator", "discriminator")
ROW = 8
MOST_ROWS = 24


def write(folder: Path, trainer: Trainer) -> None:
    """Write the generator, the state and the sheets; each file appears whole."""
    (folder / "generator").mkdir(parents=True, exist_ok=True)
    generator = trainer.settle()
    write_folder(folder / "generator", generator, torch.float16)
    for name in STATES:
        _write_state(folder / f"state-{name}.safetensors", getattr(trainer, name), trainer.seen)
    pictures = _pictures(generator, 64)
    write_picture(folder / "sheet.png", in_rows(pictures))
    _add_row(folder / "progress.png", in_rows(pictures[:ROW]))


def resume(folder: Path, trainer: Trainer) -> bool:
    """Go on from the state in a folder; return whether there was one."""
    paths = {name: folder / f"state-{name}.safetensors" for name in STATES}
    if not all(path.exists() for path in paths.values()):
        return False
    seen = 0
    for name, path in paths.items():
        state = load_file(path)
        seen = int(state.pop("seen"))
        getattr(trainer, name).load_state_dict(_floats(state))
    average = folder / "generator" / WEIGHTS
    known = _floats(load_file(average)) if average.exists() else trainer.generator.state_dict()
    trainer.average.load_state_dict(known)
    trainer.seen = seen
    return True


def log(folder: Path, entry: dict[str, Any]) -> str:
    """Add a line to the log; return it."""
    line = json.dumps(entry)
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    return line


def _floats(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() for name, value in state.items()}


def _write_state(path: Path, network: nn.Module, seen: int) -> None:
    state = {
        name: value.detach().half().cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    state["seen"] = torch.tensor(seen)
    part = path.with_suffix(".part")
    save_file(state, part)
    part.replace(path)


@torch.no_grad()
def _pictures(generator: Generator, count: int) -> NDArray[np.uint8]:
    """Make pictures, half of them truncated to 0.7, uint8 [count, H, W, 3]."""
    draws = torch.Generator().manual_seed(11)
    z = torch.randn(count, generator.architecture.z, generator=draws).to(generator.mean.device)
    parts = []
    for number, part in enumerate(z.split(16)):
        rows = generator.rows(part, 0.7 if number * 32 < count else 1.0)
        parts.append(generator(rows).clamp(-1, 1).add(1).mul(127.5).round().byte())
    return torch.cat(parts).permute(0, 2, 3, 1).cpu().numpy()


def in_rows(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay pictures out in rows of `ROW`."""
    count, height, width, _ = pictures.shape
    rows = pictures.reshape(count // ROW, ROW, height, width, 3).transpose(0, 2, 1, 3, 4)
    return rows.reshape(count // ROW * height, ROW * width, 3)


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    part = path.with_suffix(".part")
    Image.fromarray(pixels).save(part, format="PNG")
    part.replace(path)


def _add_row(path: Path, row: NDArray[np.uint8]) -> None:
    """Add a row below a picture, of which the oldest rows go when there are too many."""
    if path.exists():
        with Image.open(path) as before:
            row = np.concatenate([np.asarray(before.convert("RGB")), row])
    height = MOST_ROWS * row.shape[1] // ROW
    write_picture(path, row[-height:])
