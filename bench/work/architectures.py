"""Build the networks of Stable Diffusion at full size without a download.

Work and time do not depend on weights. The configurations are those of the published models
(`runwayml/stable-diffusion-v1-5`, `stabilityai/stable-diffusion-2-1`), without the entries that
only repeat diffusers' defaults.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from dragnoise.engine.diffusion.load.build import place
from dragnoise.engine.diffusion.load.folder import check_folder
from dragnoise.engine.diffusion.load.network import read_configuration
from dragnoise.engine.diffusion.load.scheduler import read_scheduler

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
            network.requires_grad_(False).eval()
        return unet, vae


_UNET: Mapping[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
}
_VAE: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
}
_SCHEDULER: Mapping[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}

ARCHITECTURES: dict[str, Architecture] = {
    row.name: row
    for row in (
        Architecture(
            "sd15",
            {**_UNET, "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
            {**_VAE, "sample_size": 512},
            _SCHEDULER,
            512,
        ),
        Architecture(
            "sd21",
            {
                **_UNET,
                "sample_size": 96,
                "cross_attention_dim": 1024,
                "attention_head_dim": (5, 10, 20, 20),
                "use_linear_projection": True,
                "upcast_attention": True,
            },
            {**_VAE, "sample_size": 768},
            {**_SCHEDULER, "prediction_type": "v_prediction"},
            768,
        ),
    )
}
"""Architectures by name.

What diffusers calls `attention_head_dim` is the number of heads: of 40, 80 and 160 channels each;
of 64 in 2.1.
"""
