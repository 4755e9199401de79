"""Adapters' files as other tools write them, made of a network that PEFT has adapted."""

import re
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["SPELLINGS", "adapted", "changes_of", "kohya", "kohya_original", "write"]

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
"""What kohya's scripts adapt: all linear layers of the transformers, and 1 x 1 convolutions."""


def adapted(network: Any, *, even: bool = False) -> Any:
    """Adapt a U-Net with PEFT, unless `even` with another rank and alpha for some layers."""
    torch.manual_seed(0)
    network.add_adapter(
        LoraConfig(
            r=4,
            lora_alpha=2,
            target_modules=TARGETS,
            init_lora_weights=False,
            rank_pattern={} if even else {"proj_in": 3, "attn2.to_q": 2},
            alpha_pattern={} if even else {"proj_in": 1, "attn2.to_q": 8},
        )
    )
    return network


def changes_of(network: Any) -> dict[str, Tensor]:
    """Return what PEFT says that each layer's weights change by, as matrices."""
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight("default")
        .detach()
        .flatten(1)
        for name, module in network.named_modules()
        if hasattr(module, "get_delta_weight")
    }


def kohya(network: Any) -> dict[str, Tensor]:
    """Spell as kohya's scripts do."""
    return {
        f"lora_unet_{name.replace('.', '_')}.{part}": tensor
        for name, module in network.named_modules()
        if hasattr(module, "get_delta_weight")
        for part, tensor in _parts(module).items()
    }


def kohya_original(network: Any) -> dict[str, Tensor]:
    """Spell as kohya's scripts do for a U-Net that names its blocks as the original does."""
    return {
        f"lora_unet_{_original(name).replace('.', '_')}.{part}": tensor
        for name, module in network.named_modules()
        if hasattr(module, "get_delta_weight")
        for part, tensor in _parts(module).items()
    }


def _parts(module: Any) -> dict[str, Tensor]:
    return {
        "lora_down.weight": module.lora_A["default"].weight.detach(),
        "lora_up.weight": module.lora_B["default"].weight.detach(),
        "alpha": torch.tensor(float(module.lora_alpha["default"])),
    }


def _original(name: str) -> str:
    side, block, layer, rest = re.fullmatch(
        r"(down|mid|up)_blocks?\.?(\d?)\.attentions\.(\d)\.(.+)", name
    ).groups()  # type: ignore[union-attr]
    if side == "mid":
        return f"middle_block.1.{rest}"
    number = 3 * int(block) + int(layer)
    return (
        f"input_blocks.{1 + number}.1.{rest}"
        if side == "down"
        else (f"output_blocks.{number}.1.{rest}")
    )


SPELLINGS = {"kohya": kohya, "kohya_original": kohya_original}


def write(tensors: dict[str, Tensor], path: Path, **metadata: str) -> Path:
    """Write a file as kohya's scripts do."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, path, metadata={"ss_network_module": "networks.lora", **metadata})
    return path
