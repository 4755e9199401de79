"""Pack the embedded generator: its folder, how it is dragged, and the demo's samples."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from dragnoise.engine.config import DragGANConfig
from dragnoise.engine.gan.folder import load_generator
from dragnoise.engine.gan.writing import CONFIG, WEIGHTS

from .accept import Drag

CARD = "drag.json"


def pack(trained: Path, folder: Path) -> int:
    """Copy a trained generator to where the engine reads it; return its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(trained / name, folder / name)
    load_generator(folder)
    return sum((folder / name).stat().st_size for name in (CONFIG, WEIGHTS))


def write_card(folder: Path, config: DragGANConfig) -> None:
    """Write the settings that differ from the published ones."""
    usual = DragGANConfig().to_dict()
    own = {name: value for name, value in config.to_dict().items() if value != usual[name]}
    (folder / CARD).write_text(json.dumps(own, indent=1) + "\n", encoding="utf-8")


def write_samples(folder: Path, drags: Sequence[Drag], truncation: float) -> None:
    """Write what the demo drags."""
    rows = [
        {
            "name": f"{drag.kind}{number}" if number > 1 else drag.kind,
            "seed": drag.seed,
            "truncation": truncation,
            "drags": [[*_rounded(drag.places[drag.kind]), *_rounded(drag.target)]],
            "mask": None,
        }
        for drag in drags
        if (number := 1 + sum(d.kind == drag.kind for d in drags[: drags.index(drag)]))
    ]
    path = folder / "samples"
    path.mkdir(exist_ok=True)
    (path / "samples.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _rounded(point: tuple[float, float]) -> list[int]:
    return [round(point[0]), round(point[1])]
