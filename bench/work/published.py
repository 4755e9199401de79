"""The configurations of Stable Diffusion's networks, as published, with what they were trained on.

`runwayml/stable-diffusion-v1-5` and `stabilityai/stable-diffusion-2-1`, without the entries that
only repeat diffusers' defaults.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["PUBLISHED", "Published"]


class Published(NamedTuple):
    """What is published of a model.

    Attributes:
        unet: The U-Net's configuration, as diffusers writes it.
        vae: The VAE's configuration.
        scheduler: The scheduler's configuration.
        side_px: The side of the pictures that the model was trained on.
    """

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    side_px: int


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

PUBLISHED: Mapping[str, Published] = {
    "sd15": Published(
        {**_UNET, "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        {**_VAE, "sample_size": 512},
        _SCHEDULER,
        512,
    ),
    "sd21": Published(
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
}
"""Models by name.

What diffusers calls `attention_head_dim` is the number of heads: of 40, 80 and 160 channels each;
of 64 in 2.1.
"""
