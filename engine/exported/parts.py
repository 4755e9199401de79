"""What of a model can be exported: every frozen part with the names, shapes and meaning of its inputs and outputs. Names are stable.

    part           inputs                                            outputs
    down           latent, times, text_kv                            skip_0 .. skip_N, bottom
    middle         bottom, times, text_kv                            bottleneck
    up             bottleneck, skip_0 .. skip_N, times, text_kv      eps (with a feature block: features, eps)
    unet           latent, times, text_kv                            eps
    unet-replaced  latent, times, text_kv, bottleneck                eps
    vae-encoder    pixels                                            latent
    vae-decoder    latent                                            pixels

latent      [B, 4, h, w], h = H / 8; the VAE's halves read and give it unscaled: the U-Net's times 1 / 0.18215 (the VAE's `scaling_factor`)
times       [S]: every residual block's projection of the time embedding, with its convolution's bias (`UNet.condition(...).times`)
text_kv     [B, L, P]: every cross attention's keys and values of the text, side by side (`UNet.condition(...).text`)
skip_i      [B, C_i, h_i, w_i]: what the encoder half hands the decoder half, from high to low resolution (12 in Stable Diffusion)
bottom      [B, C, h/8, w/8]: the middle block's input (the last skip, where the last level has no downsampling)
bottleneck  as bottom: the middle block's output, or what a drag has put in its place
features    [B, C, h', w']: the map after that up block, which drags supervise
eps         [B, 4, h, w]: what the network predicts: noise, or v in models that predict v
pixels      [B, 3, H, W], -1..1

All have the part's own precision. B is 1, or 2 with guidance (the negative text first).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..diffusion.model import Model
from ..diffusion.unet import UNet

__all__ = ["OF_AN_EDIT", "PARTS", "Extent", "Signature", "part_of", "precision_of", "signature"]

PARTS = ("down", "middle", "up", "unet", "unet-replaced", "vae-encoder", "vae-decoder")
OF_AN_EDIT = ("down", "middle", "up", "vae-encoder", "vae-decoder")
"""What an edit runs: whole passes are down, middle and up in a row."""

Shape = tuple[int, ...]


@dataclass(frozen=True, order=True)
class Extent:
    """How large a part's inputs are: height and width of the picture in pixels (multiples of the VAE's factor), and the batch."""

    height: int
    width: int
    batch: int = 1

    def __str__(self) -> str:
        return f"{self.width}x{self.height}-b{self.batch}"

    @classmethod
    def read(cls, text: str) -> "Extent":
        """Of what `str` gave. Raises ValueError for anything else."""
        found = re.fullmatch(r"(\d+)x(\d+)-b(\d+)", text)
        if found is None:
            raise ValueError(f"{text!r} is not an extent (512x512-b1)")
        width, height, batch = map(int, found.groups())
        return cls(height, width, batch)


@dataclass(frozen=True)
class Signature:
    """Names and shapes of a part's inputs and outputs, in the order in which the part takes and gives them."""

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]


def signature(model: Model, part: str, extent: Extent, features: int | None = None) -> Signature:
    """Of `part` on that extent; features: the up block whose map `up` gives too."""
    batch, pixels = extent.batch, (extent.batch, 3, extent.height, extent.width)
    height, width = extent.height // model.factor, extent.width // model.factor
    latent = (batch, 4, height, width)
    if part.startswith("vae-"):
        ends = {"pixels": pixels}, {"latent": latent}
        return Signature(*(ends if part == "vae-encoder" else ends[::-1]))
    times, text = model.unet.packed_sizes
    told: dict[str, Shape] = {
        "times": (times,),
        "text_kv": (batch, model.tokenizer.model_max_length, text),
    }
    shapes = model.unet.skip_shapes(height, width)
    skips: dict[str, Shape] = {
        f"skip_{number}": (batch, *shape) for number, shape in enumerate(shapes)
    }
    bottom = (batch, *shapes[-1])
    eps: dict[str, Shape] = {"eps": latent}
    if features is not None:
        eps = {"features": (batch, *_features(model, height, width, features)), **eps}
    return {
        "down": Signature({"latent": latent, **told}, {**skips, "bottom": bottom}),
        "middle": Signature({"bottom": bottom, **told}, {"bottleneck": bottom}),
        "up": Signature({"bottleneck": bottom, **skips, **told}, eps),
        "unet": Signature({"latent": latent, **told}, eps),
        "unet-replaced": Signature({"latent": latent, **told, "bottleneck": bottom}, eps),
    }[part]


def precision_of(model: Model, part: str) -> torch.dtype:
    """Of a part's weights, inputs and outputs: the VAE may have another than the U-Net."""
    dtype: torch.dtype = model.vae.dtype if part.startswith("vae-") else model.dtype
    return dtype


def _features(model: Model, height: int, width: int, block: int) -> Shape:
    """[C, h', w'] of the map after that up block: the next finer level's size, or the finest."""
    network = model.unet.network
    sizes = [(height, width)]
    for level in network.down_blocks:
        if level.downsamplers:
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return (
        network.up_blocks[block].resnets[-1].conv2.out_channels,
        *sizes[max(len(sizes) - 2 - block, 0)],
    )


def part_of(model: Model, unet: UNet, part: str, features: int | None = None) -> Callable[..., Any]:
    """The part as a function of its inputs, flat and in the order of its signature, giving a tensor or a tuple of them.

    unet: what is to be run, over the same network as the model's or another's weights.
    """
    count = len(model.unet.skip_shapes(8, 8))

    def up(bottleneck: Tensor, *given: Tensor) -> Any:
        skips, (times, text) = given[:count], given[count:]
        found, output = unet.part_up(bottleneck, tuple(skips), times, text, features)
        return output if features is None else (found, output)

    functions: Mapping[str, Callable[..., Any]] = {
        "down": unet.part_down,
        "middle": unet.part_middle,
        "up": up,
        "unet": unet.part_whole,
        "unet-replaced": unet.part_replaced,
        "vae-encoder": model.autoencoder.part_encoder,
        "vae-decoder": model.autoencoder.part_decoder,
    }
    return functions[part]
