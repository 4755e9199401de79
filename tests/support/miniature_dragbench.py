"""A DragBench of three small drawn pictures, laid out as published."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

SAMPLES: dict[str, tuple[tuple[int, int], list[list[float]]]] = {
    "art_work/b": ((72, 88), [[20, 30], [50, 30]]),
    "animals/one": ((69, 96), [[20, 22], [38, 26], [50, 50], [50, 32]]),
    "a_category_of_ones_own/x": ((80, 67), [[22, 30], [40.5, 46]]),
}
"""(height, width) in pixels and the points, by the sample's name."""


def said_of(name: str) -> dict[str, Any]:
    """Return what the sample's pickle holds."""
    (height, width), points = SAMPLES[name]
    mask = np.zeros((height, width), np.uint8)
    mask[5 : height - 5, 5 : width - 5] = 1
    return {"prompt": f"a picture of {name}", "points": points, "mask": mask}


def write_dragbench(root: Path) -> Path:
    """Write it, and what lies about among the published folders; return its folder."""
    for number, name in enumerate(SAMPLES):
        (height, width), _ = SAMPLES[name]
        folder = root / name
        folder.mkdir(parents=True)
        y, x = np.mgrid[:height, :width]
        noise = np.random.default_rng(number).integers(0, 60, (height, width, 3))
        pixels = np.stack([x * 3 % 190, y * 4 % 190, (x + y) * 2 % 190], -1) + noise
        PIL.Image.fromarray(pixels.astype(np.uint8)).save(folder / "original_image.png")
        (folder / "meta_data.pkl").write_bytes(pickle.dumps(said_of(name)))
    (root / ".DS_Store").write_bytes(b"\x00")
    (root / "README.md").write_text("DragBench")
    (root / "animals" / ".DS_Store").write_bytes(b"\x00")
    (root / "animals" / "notes").mkdir()
    (root / "__MACOSX").mkdir()
    return root
