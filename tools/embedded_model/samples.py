"""Write the demo's pictures: held-out drags, one of a kind, with prompt, points and mask.

They are picked by eye. `accept` judges on drags that are not.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from .drags import Drag, ground_truth_drags

SEED = 4242
# kind -> which of its drags: those with bright skies that look well.
PICKED = {"balloon": 4, "boat": 4, "sun": 0, "house": 0, "peak": 1}


def demo_drags() -> list[Drag]:
    """Return the picked drags."""
    return [ground_truth_drags(place + 1, SEED, (kind,))[place] for kind, place in PICKED.items()]


def write_samples(folder: Path, drags: list[Drag]) -> None:
    """Write `{kind}.png`, `{kind}_mask.png` (white may change) and a list, `samples.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for drag in drags:
        picture = f"{drag.kind}.png"
        mask = f"{drag.kind}_mask.png"
        Image.fromarray(drag.before).save(folder / picture, optimize=True)
        Image.fromarray(drag.mask.astype(np.uint8) * 255).save(folder / mask, optimize=True)
        points = [round(value, 1) for value in (*drag.handle, *drag.target)]
        listed.append({"image": picture, "prompt": drag.caption, "drags": [points], "mask": mask})
    (folder / "samples.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
