"""Stable Diffusion's original layout: a diffusers folder's weights by their names in single files.

Written from the layout of CompVis' and Stability's models, for any number of layers per block, so
that reading them back proves something.
"""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OPEN_CLIP = {
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm": "ln_",
    "self_attn": "attn",
    "fc1": "c_fc",
    "fc2": "c_proj",
    "q_proj.": "in_proj_",
}


def write_checkpoint(folder: Path, target: Path, *, open_clip: bool = False) -> Path:
    """Write a folder's three networks to one file, as Stable Diffusion is published.

    open_clip: As 2.x is; else as 1.x.
    """
    unet, vae = (
        load_file(folder / part / "diffusion_pytorch_model.safetensors") for part in ("unet", "vae")
    )
    text = {
        _plain(name): tensor
        for name, tensor in load_file(folder / "text_encoder" / "model.safetensors").items()
    }
    layers = json.loads((folder / "unet" / "config.json").read_text())["layers_per_block"]
    levels = len(json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"])
    tensors = {
        "model.diffusion_model." + _unet(name, layers, unet): tensor
        for name, tensor in unet.items()
    }
    tensors |= {
        "first_stage_model." + _vae(name, levels): _as_convolution(name, tensor)
        for name, tensor in vae.items()
    }
    if open_clip:
        tensors |= {
            "cond_stage_model.model." + name: tensor for name, tensor in _open_clip(text).items()
        }
    else:
        tensors |= {
            "cond_stage_model.transformer.text_model." + name: tensor
            for name, tensor in text.items()
        }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, target)
    return target


def _plain(name: str) -> str:
    return name.removeprefix("text_model.")


def _unet(name: str, layers: int, weights: dict[str, Tensor]) -> str:
    """Return the original name of a weight of the U-Net.

    It counts its layers through: `input_blocks.N`, `middle_block.N`, `output_blocks.N`, a
    downsampler being a block of its own.
    """
    stem, _, last = name.rpartition(".")
    whole = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
    whole |= {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    if stem in whole:
        return f"{whole[stem]}.{last}"
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        kind, number, rest = found.groups()
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(number)}.{_inner(kind, rest)}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", name)
    assert found, name
    side, kind, rest = found[1], found[3], found[5]
    block = int(found[2])
    layer = int(found[4])
    if kind == "downsamplers":
        return f"input_blocks.{(layers + 1) * (block + 1)}.0.op.{last}"
    if kind == "upsamplers":
        place = 2 if f"up_blocks.{block}.attentions.0.norm.weight" in weights else 1
        return f"output_blocks.{(layers + 1) * block + layers}.{place}.conv.{last}"
    number = (layers + 1) * block + layer + (side == "down")
    blocks = "input_blocks" if side == "down" else "output_blocks"
    return f"{blocks}.{number}.{int(kind == 'attentions')}.{_inner(kind, rest)}"


def _inner(kind: str, rest: str) -> str:
    first, dot, others = rest.partition(".")
    return _RESNET[first] + dot + others if kind == "resnets" else rest


def _vae(name: str, levels: int) -> str:
    """Return the original name of a weight of the VAE.

    The decoder counts its levels from the finest; attention speaks of q, k, v.
    """
    name = re.sub(
        r"decoder\.up_blocks\.(\d)", lambda level: f"decoder.up.{levels - 1 - int(level[1])}", name
    )
    name = re.sub(
        r"mid_block\.resnets\.(\d)", lambda number: f"mid.block_{int(number[1]) + 1}", name
    )
    for new, old in {
        "mid_block.attentions.0": "mid.attn_1",
        "down_blocks": "down",
        "resnets": "block",
        "downsamplers.0": "downsample",
        "upsamplers.0": "upsample",
        "conv_shortcut": "nin_shortcut",
        "conv_norm_out": "norm_out",
        "group_norm": "norm",
        "to_out.0": "proj_out",
        "to_": "",
    }.items():
        name = name.replace(new, old)
    return name


def _as_convolution(name: str, tensor: Tensor) -> Tensor:
    """Return a weight of attention as a 1x1 convolution's, which the original VAE has."""
    return tensor[:, :, None, None] if re.search(r"to_(q|k|v|out\.0)\.weight", name) else tensor


def _open_clip(text: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights by OpenCLIP's names; it keeps those of q, k and v in one tensor."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in text.items():
        if re.search(r"\.[kv]_proj\.|position_ids", name):
            continue
        if ".q_proj." in name:
            tensor = torch.cat([text[name.replace("q_proj", f"{part}_proj")] for part in "qkv"])
        for new, old in _OPEN_CLIP.items():
            name = name.replace(new, old)
        renamed[name] = tensor
    return renamed
