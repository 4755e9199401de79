"""The demo's pictures: held-out drags, one of a kind, with prompt, points and mask. They are picked; `accept` judges on drags that are not."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from .drags import Drag, ground_truth_drags

SEED = 4242
PICKED = {
    "balloon": 4,
    "boat": 4,
    "sun": 0,
    "house": 0,
    "peak": 1,
}  # which of a kind: bright skies, and chosen to look well


def demo_drags() -> list[Drag]:
    return [ground_truth_drags(place + 1, SEED, (kind,))[place] for kind, place in PICKED.items()]


def write_samples(folder: Path, drags: list[Drag]) -> None:
    """Write `{kind}.png`, `{kind}_mask.png` (white may change) and `samples.json`, which lists them."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for drag in drags:
        Image.fromarray(drag.before).save(folder / f"{drag.kind}.png", optimize=True)
        Image.fromarray(drag.mask.astype(np.uint8) * 255).save(
            folder / f"{drag.kind}_mask.png", optimize=True
        )
        points = [round(value, 1) for value in (*drag.handle, *drag.target)]
        listed.append(
            {
                "image": f"{drag.kind}.png",
                "prompt": drag.caption,
                "drags": [points],
                "mask": f"{drag.kind}_mask.png",
            }
        )
    (folder / "samples.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
