"""Spell a layer's name as diffusers' U-Net has it, from the spelling of any tool.

kohya's scripts write an underscore for every dot; files made from the original Stable Diffusion
number its blocks in one row, two layers and what changes the size to a block.
"""

import re

__all__ = ["layer_name"]

_PREFIXES = ("base_model.model.", "unet.", "model.diffusion_model.", "diffusion_model.")

_FLAT = re.compile(r"(lora_unet|lycoris)_(?P<rest>\w+)")
"""A name without a dot."""

_WORDS = (
    *("down_blocks", "mid_block", "up_blocks", "transformer_blocks"),
    *("proj_in", "proj_out", "to_q", "to_k", "to_v", "to_out"),
    *("time_emb_proj", "conv_shortcut", "time_embedding", "linear_1", "linear_2"),
    *("conv_in", "conv_out", "input_blocks", "middle_block", "output_blocks"),
    *("in_layers", "out_layers", "emb_layers", "skip_connection", "time_embed"),
)
"""The words of a U-Net's names that have an underscore of their own."""

_ORIGINAL = re.compile(r"(input|output)_blocks\.(\d+)\.(\d+)\.(.+)|(middle_block)\.(\d+)\.(.+)")

_ORIGINAL_PARTS = {
    "in_layers.2": "conv1",
    "out_layers.3": "conv2",
    "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
}


def layer_name(spelled: str) -> str:
    """Return a layer's name as the U-Net has it; a name that is none comes back as it is."""
    name = spelled
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    if flat := _FLAT.fullmatch(name):
        name = _dotted(flat["rest"])
    name = _of_original(name).replace(".processor.", ".")
    return f"{name}.0" if name.endswith("to_out") else name


def _dotted(flat: str) -> str:
    """Return a name with the dots that kohya's scripts have taken from it."""
    name = flat.replace("_", ".")
    for word in _WORDS:
        spread = re.escape(word.replace("_", "."))
        name = re.sub(rf"(?<![^.]){spread}(?![^.])", word, name)
    return name


def _of_original(name: str) -> str:
    """Return the name in diffusers' U-Net of a layer of the original one."""
    for part, ours in _ORIGINAL_PARTS.items():
        name = re.sub(rf"(?<![^.]){re.escape(part)}$", ours, name)
    if not (found := _ORIGINAL.fullmatch(name)):
        return name
    side, number, index, rest, middle, place, inner = found.groups()
    if middle:
        return f"mid_block.{('resnets.0', 'attentions.0', 'resnets.1')[int(place) % 3]}.{inner}"
    if side == "input":
        block, layer = divmod(int(number) - 1, 3)
        kind = "downsamplers.0.conv" if rest == "op" else _kind(index, layer, rest)
        return f"down_blocks.{block}.{kind}"
    block, layer = divmod(int(number), 3)
    kind = "upsamplers.0.conv" if rest == "conv" else _kind(index, layer, rest)
    return f"up_blocks.{block}.{kind}"


def _kind(index: str, layer: int, rest: str) -> str:
    return f"{'resnets' if index == '0' else 'attentions'}.{layer}.{rest}"
