"""Build the networks of Stable Diffusion at full size without a download.

Work and time do not depend on weights.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from dragnoise.engine.diffusion.load.build import lay_out, place
from dragnoise.engine.diffusion.load.folder import check_folder
from dragnoise.engine.diffusion.load.network import read_configuration
from dragnoise.engine.diffusion.load.scheduler import read_scheduler

from .published import PUBLISHED

__all__ = ["ARCHITECTURES", "Architecture"]


@dataclass(frozen=True)
class Architecture:
    """An architecture of a model.

    Attributes:
        name: Its name, or the folder's path.
        unet: The U-Net's configuration, as diffusers writes it.
        vae: The VAE's configuration.
        scheduler: The scheduler's configuration.
        side_px: The side of the pictures that the model was trained on.
    """

    name: str
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    side_px: int

    @property
    def prediction(self) -> str:
        """Name what the network predicts: "epsilon" or "v_prediction"."""
        return str(self.scheduler.get("prediction_type", "epsilon"))

    @classmethod
    def of(cls, name: str | os.PathLike[str]) -> "Architecture":
        """Return an architecture by its name, or read a diffusers folder's configurations.

        Raises:
            ModelError: There is neither.
        """
        if str(name) in ARCHITECTURES:
            return ARCHITECTURES[str(name)]
        path = Path(name)
        check_folder(path)
        settings = read_configuration(path)
        unet, vae = settings["unet"], settings["vae"]
        return cls(
            str(path),
            unet,
            vae,
            read_scheduler(path / "scheduler").config,
            (unet.get("sample_size") or 64) * 2 ** (len(vae["block_out_channels"]) - 1),
        )

    def networks(
        self, device: torch.device, dtype: torch.dtype
    ) -> tuple[UNet2DConditionModel, AutoencoderKL]:
        """Build U-Net and VAE, frozen, with diffusers' random weights (none on the meta device).

        The VAE is float32 where `dtype` is float16, as `load` has it.
        """
        with device:
            unet = UNet2DConditionModel.from_config(dict(self.unet))
            vae = AutoencoderKL.from_config(dict(self.vae))
        vae_dtype = torch.float32 if dtype == torch.float16 else dtype
        for network, precision in ((unet, dtype), (vae, vae_dtype)):
            place(network, device, precision)
            if device.type == "meta":  # which stands in for CUDA
                lay_out(network)
            network.requires_grad_(False).eval()
        return unet, vae


ARCHITECTURES: Mapping[str, Architecture] = {
    name: Architecture(name, *published) for name, published in PUBLISHED.items()
}
"""The published architectures by name."""
