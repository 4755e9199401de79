"""Write the demo's pictures: a drag of each simple kind, drawn at random from the judging lot."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from dragnoise.bench.world.drags import Drag, drag

KINDS = ("balloon", "boat", "sun", "house", "peak")
SEED = 1126
"""Draws which of a kind's first eight drags is shown; nobody looked at them before."""


def demo_drags() -> list[Drag]:
    """Return the drags that were drawn."""
    numbers = np.random.default_rng(SEED).integers(8, size=len(KINDS))
    return [drag("judging", kind, int(at)) for kind, at in zip(KINDS, numbers, strict=True)]


def write_samples(folder: Path, drags: list[Drag]) -> None:
    """Write `{kind}.png`, `{kind}_mask.png` (white may change) and a list, `samples.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for one in drags:
        picture = f"{one.kind}.png"
        mask = f"{one.kind}_mask.png"
        Image.fromarray(one.before).save(folder / picture, optimize=True)
        Image.fromarray(one.allowed.astype(np.uint8) * 255).save(folder / mask, optimize=True)
        ways = zip(one.handles, one.targets, strict=True)
        points = [[round(value, 1) for value in (*here, *there)] for here, there in ways]
        listed.append({"image": picture, "prompt": one.prompt, "drags": points, "mask": mask})
    (folder / "samples.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
