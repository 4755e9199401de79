"""Say why a U-Net cannot be run in parts."""

from collections.abc import Mapping
from typing import Any

from diffusers import UNet2DConditionModel

__all__ = ["changes_to", "objections"]


_STANDARD: Mapping[str, Any] = {
    "class_embed_type": None,
    "addition_embed_type": None,
    "encoder_hid_dim_type": None,
    "time_cond_proj_dim": None,
    "center_input_sample": False,
    "num_class_embeds": None,
    "act_fn": "silu",
    "attention_type": "default",
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "mid_block_only_cross_attention": None,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "only_cross_attention": False,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "time_embedding_act_fn": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
}
"""What a U-Net's configuration must say, where it says anything: Stable Diffusion's own values."""


_BLOCKS = {"CrossAttnDownBlock2D", "DownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"}


_PLAIN_ATTENTION = {
    "AttnProcessor",
    "AttnProcessor2_0",
    "SlicedAttnProcessor",
    "XFormersAttnProcessor",
}
"""Processors of diffusers that compute plain attention, whatever they compute it with."""


def objections(config: Mapping[str, Any]) -> list[str]:
    """Why a U-Net with this configuration cannot be run in parts; empty if it can. Stable Diffusion 1.x and 2.x can."""
    reads, gives = config.get("in_channels"), config.get("out_channels")
    kinds = (*(config.get("down_block_types") or ()), *(config.get("up_block_types") or ()))
    blocks = len(config.get("up_block_types") or ())
    found = [
        f"{name}={config[name]!r} is not supported"
        for name, value in _STANDARD.items()
        if name != "mid_block_type" and config.get(name, value) not in (value, None)
    ]
    if (reads, gives) != (4, 4):
        found.append(
            f"it maps {reads} channels to {gives}, not 4 to 4 (an inpainting or depth model?)"
        )
    if config.get("mid_block_type") is None:
        found.append("it has no middle block, so no bottleneck to optimise")
    elif config["mid_block_type"] != _STANDARD["mid_block_type"]:
        found.append(f"its middle block is a {config['mid_block_type']}, which is not supported")
    if unknown := sorted(set(kinds) - _BLOCKS):
        found.append(f"blocks of type {', '.join(unknown)} are not supported")
    if blocks != 4:
        found.append(
            f"it has {blocks} up blocks, not 4, so the supervision features are not defined"
        )
    return found


def changes_to(network: UNet2DConditionModel) -> list[str]:
    """What was done to a network after it was built that running it in parts would not see."""
    found = []
    adapters = sorted(
        name for name, module in network.named_modules() if hasattr(module, "base_layer")
    )
    if adapters:
        found.append(
            f"{len(adapters)} layers have unmerged adapters ({adapters[0]}, ...): merge them with fuse_lora()"
        )
    if any(getattr(block, "s1", None) for block in network.up_blocks):
        found.append("FreeU is on: call disable_freeu()")
    processors = {
        type(processor).__name__ for processor in network.attn_processors.values()
    } - _PLAIN_ATTENTION
    if processors:
        found.append(
            f"attention processors {', '.join(sorted(processors))} are not plain attention"
        )
    return found
