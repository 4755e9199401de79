"""A diffusers U-Net cut at the bottleneck: down | middle | up.

`down` and `middle` depend on (latent, step, text) alone, so within a drag, where none of these changes, they run once; `up` runs with any bottleneck.
Run in a row the three are the U-Net, bit for bit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ..errors import ModelError
from .folded import FoldedBlock

__all__ = ["Decoder", "Down", "UNet", "Up", "objections"]

_UNKNOWN = (
    "class_embed_type",
    "addition_embed_type",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
    "center_input_sample",
    "num_class_embeds",
)
"""Settings of a U-Net that bring inputs which Stable Diffusion has not."""


@dataclass(frozen=True, eq=False)
class Down:
    """What the encoder half hands on: the time embedding [B, E], the skips from high to low resolution, and the middle block's input."""

    embedding: Tensor
    skips: tuple[Tensor, ...]
    bottom: Tensor


@dataclass(frozen=True, eq=False)
class Up:
    """What the decoder half gives: the feature map of the block asked for [B, C, h, w], and the network's output [B, 4, H, W] unless not wanted."""

    features: Tensor | None
    output: Tensor | None


def objections(config: Mapping[str, Any]) -> list[str]:
    """Why a U-Net with this configuration cannot be run in parts; empty if it can. Stable Diffusion 1.x and 2.x can."""
    reads, gives, blocks = (
        config.get("in_channels"),
        config.get("out_channels"),
        len(config.get("up_block_types") or ()),
    )
    found = [f"{name}={config[name]!r} is not supported" for name in _UNKNOWN if config.get(name)]
    if (reads, gives) != (4, 4):
        found.append(f"it maps {reads} channels to {gives}, not 4 to 4 (an inpainting or depth model?)")
    if config.get("mid_block_type") is None:
        found.append("it has no middle block, so no bottleneck to optimise")
    if blocks != 4:
        found.append(f"it has {blocks} up blocks, not 4, so the supervision features are not defined")
    return found


class UNet:
    """The parts of a frozen `UNet2DConditionModel` in evaluation mode. Latents may have any float type; they are cast to the network's.

    Raises ModelError for a network that cannot be cut, with every reason.
    """

    def __init__(self, network: UNet2DConditionModel) -> None:
        reasons = objections(network.config)
        if reasons:
            raise ModelError(
                f"this U-Net cannot be dragged: {'; '.join(reasons)}. Use a Stable Diffusion 1.x or 2.x text-to-image model"
            )
        self.network = network

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = next(self.network.parameters()).dtype
        return dtype

    def down(self, latent: Tensor, timestep: int, text: Tensor) -> Down:
        """latent [B, 4, H, W], timestep 0 to 999, text [B, L, D]."""
        net = self.network
        times = torch.full((latent.shape[0],), timestep, device=latent.device)
        embedding = net.time_embedding(net.time_proj(times).to(self.dtype))
        hidden = net.conv_in(latent.to(self.dtype))
        skips: tuple[Tensor, ...] = (hidden,)
        for block in net.down_blocks:
            hidden, more = block(hidden, embedding, **_text(block, text))
            skips += more
        return Down(embedding, skips, hidden)

    def middle(self, down: Down, text: Tensor) -> Tensor:
        """The bottleneck [B, C, h, w] that the network itself computes."""
        bottleneck: Tensor = self.network.mid_block(down.bottom, down.embedding, **_text(self.network.mid_block, text))
        return bottleneck

    def up(
        self, down: Down, bottleneck: Tensor, text: Tensor, feature_block: int | None = None, output: bool = True
    ) -> Up:
        """The decoder half, once; see `Decoder`."""
        return self.decoder(down, text)(bottleneck, feature_block, output)

    def decoder(self, down: Down, text: Tensor, folded: bool = False) -> "Decoder":
        """The decoder half on these skips, to be run with several bottlenecks.

        folded: what the skips contribute is computed now, once; the same sums in another order (see folded.py).
        """
        net = self.network
        blocks: list[Callable[[Tensor], Tensor]] = []
        skips = down.skips
        sized = any(side % 2 ** (len(net.up_blocks) - 1) for side in skips[0].shape[2:])
        for block in net.up_blocks:
            mine, skips = skips[-len(block.resnets) :], skips[: -len(block.resnets)]
            size = tuple(skips[-1].shape[2:]) if sized and skips else None
            if folded:
                blocks.append(FoldedBlock.of(block, mine, down.embedding, text, size))
            else:
                given = {"temb": down.embedding, "res_hidden_states_tuple": mine, "upsample_size": size}
                blocks.append(partial(block, **given, **_text(block, text)))
        return Decoder(net, tuple(blocks))

    def __call__(self, latent: Tensor, timestep: int, text: Tensor) -> Tensor:
        """The whole network's output [B, 4, H, W], in its own precision."""
        down = self.down(latent, timestep, text)
        output = self.up(down, self.middle(down, text), text).output
        assert output is not None
        return output


@dataclass(frozen=True, eq=False)
class Decoder:
    """The decoder half on given skips: a function of the bottleneck alone."""

    network: UNet2DConditionModel
    blocks: tuple[Callable[[Tensor], Tensor], ...]

    def __call__(self, bottleneck: Tensor, feature_block: int | None = None, output: bool = True) -> Up:
        """With `bottleneck` in place of the middle block's output.

        feature_block: the up block whose output is wanted as features. output: False stops after that block.
        """
        net = self.network
        hidden, features = bottleneck.to(net.dtype), None
        for index, block in enumerate(self.blocks):
            hidden = block(hidden)
            if index == feature_block:
                features = hidden
                if not output:
                    return Up(features, None)
        return Up(features, net.conv_out(net.conv_act(net.conv_norm_out(hidden))))


def _text(block: torch.nn.Module, text: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
