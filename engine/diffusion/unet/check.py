"""Say why a U-Net cannot be run in parts."""

from collections.abc import Mapping
from typing import Any

from diffusers import UNet2DConditionModel

__all__ = ["changes_to", "objections_to"]


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
"""Stable Diffusion's own values, which a U-Net's configuration must have or leave out."""


_BLOCKS = {"CrossAttnDownBlock2D", "DownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"}


_PLAIN_ATTENTION = {
    "AttnProcessor",
    "AttnProcessor2_0",
    "SlicedAttnProcessor",
    "XFormersAttnProcessor",
}
"""diffusers' processors of plain attention, whatever they compute it with."""


def objections_to(config: Mapping[str, Any]) -> list[str]:
    """List why a U-Net with this configuration cannot be run in parts; empty if it can.

    Stable Diffusion 1.x and 2.x can.
    """
    reads = config.get("in_channels")
    returns = config.get("out_channels")
    kinds = (*(config.get("down_block_types") or ()), *(config.get("up_block_types") or ()))
    blocks = len(config.get("up_block_types") or ())
    reasons = [
        f"{name}={config[name]!r} is not supported"
        for name, value in _STANDARD.items()
        if name != "mid_block_type" and config.get(name, value) not in (value, None)
    ]
    if (reads, returns) != (4, 4):
        reasons.append(
            f"it maps {reads} channels to {returns}, not 4 to 4 (an inpainting or depth model?)"
        )
    if config.get("mid_block_type") is None:
        reasons.append("it has no middle block, so no bottleneck to optimise")
    elif config["mid_block_type"] != _STANDARD["mid_block_type"]:
        reasons.append(f"its middle block is a {config['mid_block_type']}, which is not supported")
    if unknown := sorted(set(kinds) - _BLOCKS):
        reasons.append(f"blocks of type {', '.join(unknown)} are not supported")
    if blocks != 4:
        reasons.append(
            f"it has {blocks} up blocks, not 4, so the supervision features are not defined"
        )
    return reasons


def changes_to(network: UNet2DConditionModel) -> list[str]:
    """List changes to a built network that our layers would ignore: adapters, FreeU, attention."""
    reasons = _adapters_in(network)
    if any(getattr(block, "s1", None) for block in network.up_blocks):
        reasons.append("FreeU is on: call disable_freeu()")
    processors = {
        type(processor).__name__ for processor in network.attn_processors.values()
    } - _PLAIN_ATTENTION
    if processors:
        reasons.append(
            f"attention processors {', '.join(sorted(processors))} are not plain attention"
        )
    return reasons


def _adapters_in(network: UNet2DConditionModel) -> list[str]:
    """List what to do about adapters that PEFT has put around layers; empty without any."""
    adapted = {name: module for name, module in network.named_modules() if _is_adapted(module)}
    if not adapted:
        return []
    count, first = len(adapted), min(adapted)
    if all(getattr(module, "merged", False) for module in adapted.values()):
        return [
            f"{count} layers have merged adapters that are still there ({first}, ...): take them "
            "off with unload_lora_weights(), which leaves the weights merged"
        ]
    return [
        f"{count} layers have unmerged adapters ({first}, ...): merge them with fuse_lora(), then "
        "take them off with unload_lora_weights(); or do the second alone, and give the adapter's "
        "file with the picture"
    ]


def _is_adapted(module: Any) -> bool:
    return hasattr(module, "base_layer")
