"""The golden cases: numbers recorded from the official DragNoise code.

They were recorded on a tiny Stable Diffusion with random weights (float32, CPU).
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from dragnoise.engine import DragConfig, EditResult

GOLDEN = Path(__file__).parents[1] / "golden"
MODEL = GOLDEN / "model"
NAMES = sorted(path.parent.name for path in (GOLDEN / "dragnoise").glob("dn*/case.json"))
TIGHT = {
    "dn01_short_early_stop",
    "dn05_near_bottom_right",
    "dn09_unaligned_latent",
    "dn11_zero_updates",
}
"""Cases whose free run stayed within 1e-4 in every variant that was recorded."""


@dataclass(frozen=True)
class Case:
    """One recorded edit."""

    name: str

    @property
    def folder(self) -> Path:
        return GOLDEN / "dragnoise" / self.name

    @cached_property
    def said(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "case.json").read_text()))

    @cached_property
    def data(self) -> dict[str, Tensor]:
        return load_file(self.folder / "data.safetensors")

    @property
    def image(self) -> Path:
        return GOLDEN / "images" / Path(self.said["image"]).name

    @property
    def mask(self) -> Path | None:
        return self.folder / "mask.png" if (self.folder / "mask.png").exists() else None

    @property
    def config(self) -> DragConfig:
        params = self.said["params"]
        return DragConfig(
            steps=self.said["derived"]["args"]["n_inference_step"],
            strength=params["inversion_strength"],
            iterations=params["n_pix_step"],
            lr=params["latent_lr"],
            lam=params["lam"],
            end_step=params["end_step"],
            parity=True,
        )

    def edit_inputs(self) -> dict[str, Any]:
        """Return the arguments of `Editor.edit`."""
        said = self.said
        return {
            "image": self.image,
            "points": said["points"],
            "mask": self.mask,
            "prompt": said["prompt"],
            "config": self.config,
            "record": True,
        }


def assert_is_the_recorded_edit(name: str, result: EditResult) -> None:
    """Fail unless a free run is the golden one, by golden/README.md's tolerances."""
    case = Case(name)
    record = result.record
    tight = name in TIGHT
    data = case.data
    assert record is not None
    assert record.handles.tolist() == data["step_handles"].tolist()
    losses = data["step_loss"].numpy() if "step_loss" in data else np.zeros(0)
    np.testing.assert_allclose(result.history.losses, losses, rtol=5e-3)
    assert _largest(record.bottleneck - data["h_final"]) < (1e-4 if tight else 1.5e-2)
    assert _largest(record.final_latent[0] - data["final_latents"][1]) < (1e-4 if tight else 5e-2)
    pixels = np.abs(result.image.pixels.astype(int) - data["final_image_u8"].numpy())
    assert pixels.max() <= (1 if tight else 6)
    assert result.reached == case.said["result"]["reached"]


def _largest(difference: Tensor) -> float:
    return float(difference.abs().max())
