"""The golden cases of DragDiffusion and FreeDrag: numbers recorded from their official code.

As those of DragNoise (golden_cases.py), with the latent as the variable. Cases that are put beside
these are run as well.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from dragnoise.engine import DragDiffusionConfig, FreeDragConfig
from golden_cases import GOLDEN

NAMES = sorted(
    f"{path.parent.parent.name}/{path.parent.name}"
    for method in ("dragdiffusion", "freedrag")
    for path in (GOLDEN / method).glob("*/case.json")
)
TIGHT = {"dragdiffusion/dd01_nomask", "dragdiffusion/dd03_reached", "freedrag/fd01_nomask"}
"""Cases whose free run stayed within 1e-4 in every variant that was recorded."""


@dataclass(frozen=True)
class LatentCase:
    """One recorded edit; its name is "METHOD/CASE"."""

    name: str

    @property
    def method(self) -> str:
        return self.name.partition("/")[0]

    @property
    def folder(self) -> Path:
        return GOLDEN / self.name

    @cached_property
    def said(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "case.json").read_text()))

    @cached_property
    def data(self) -> dict[str, Tensor]:
        return load_file(self.folder / "data.safetensors")

    @property
    def config(self) -> DragDiffusionConfig | FreeDragConfig:
        params = self.said["params"]
        common = {
            "steps": self.said["derived"]["args"]["n_inference_step"],
            "strength": params["inversion_strength"],
            "lr": params["latent_lr"],
            "lam": params["lam"],
            "start_step": params["start_step"],
            "start_layer": params["start_layer"],
            "parity": True,
        }
        if self.method == "dragdiffusion":
            return DragDiffusionConfig(**common, iterations=params["n_pix_step"])
        own = {name: params[name] for name in ("l_expected", "d_max")}
        return FreeDragConfig(**common, **own, iterations=params["max_step"])

    def edit_inputs(self) -> dict[str, Any]:
        """Return the arguments of `Editor.edit`."""
        mask = self.folder / "mask.png"
        return {
            "image": GOLDEN / "images" / Path(self.said["image"]).name,
            "points": self.said["points"],
            "mask": mask if mask.exists() else None,
            "prompt": self.said["prompt"],
            "config": self.config,
            "method": self.method,
            "record": True,
        }
