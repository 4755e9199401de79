"""Say which parts of a model can be exported, and how large their inputs and outputs are.

What each part takes and returns stands in `diffusion/parts.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..diffusion.model import Model
from ..diffusion.parts import PARTS, SKIPS, Part, PartFunction
from ..diffusion.unet import UNet
from ..errors import ExportError

__all__ = [
    "EXPORTABLE",
    "OF_AN_EDIT",
    "Extent",
    "Signature",
    "extent_of",
    "multiple_px",
    "part_named",
    "part_of",
    "precision_of",
    "signature",
]

EXPORTABLE = tuple(part.name for part in PARTS.values() if part.exported)
"""Names of the parts that can be exported: the frozen ones."""

OF_AN_EDIT = tuple(name for name in EXPORTABLE if PARTS[name].in_edit)
"""Names of the parts that an edit runs: whole passes are down, middle and up in a row."""

Shape = tuple[int, ...]


@dataclass(frozen=True, order=True)
class Extent:
    """A size that a part runs at.

    Attributes:
        height: Of the picture in pixels, a multiple of the VAE's factor.
        width: Of the picture in pixels, likewise.
        batch: Number of texts: 1, or 2 with guidance.
    """

    height: int
    width: int
    batch: int = 1

    def __str__(self) -> str:
        return f"{self.width}x{self.height}-b{self.batch}"

    @classmethod
    def read(cls, text: str) -> "Extent":
        """Read what `str` wrote: "512x512-b1".

        Raises:
            ValueError: For any other text.
        """
        numbers = re.fullmatch(r"(\d+)x(\d+)-b(\d+)", text)
        if numbers is None:
            raise ValueError(f"{text!r} is not an extent (512x512-b1)")
        width, height, batch = map(int, numbers.groups())
        return cls(height, width, batch)


@dataclass(frozen=True)
class Signature:
    """Names and shapes of a part's tensors, in the order in which it takes and returns them."""

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]


def part_named(name: str) -> Part:
    """Return the row of a part that can be exported.

    Raises:
        ExportError: For a name that is none of theirs.
    """
    if name not in EXPORTABLE:
        raise ExportError(f"there is no part {name!r}; use {', '.join(EXPORTABLE)}")
    return PARTS[name]


def signature(model: Model, name: str, extent: Extent, features: int | None = None) -> Signature:
    """Return the signature of a part at an extent.

    Args:
        model: Whose part it is.
        name: Of the part.
        extent: What it runs at.
        features: Number of the up block whose map `up` returns too.
    """
    part = part_named(name)
    shapes = _shapes(model, extent)
    if features is not None:
        shapes["features"] = (extent.batch, *_feature_shape(model, extent, features))
    count = _skip_count(model)
    outputs = part.output_names(count, features is not None)
    return Signature(
        {tensor: shapes[tensor] for tensor in part.input_names(count)},
        {tensor: shapes[tensor] for tensor in outputs},
    )


def _shapes(model: Model, extent: Extent) -> dict[str, Shape]:
    """Return the shape of every tensor between parts, by name."""
    batch = extent.batch
    height = extent.height // model.factor
    width = extent.width // model.factor
    times, text = model.unet.packed_sizes
    skips = model.unet.skip_shapes(height, width)
    return {
        "pixels": (batch, 3, extent.height, extent.width),
        "latent": (batch, 4, height, width),
        "eps": (batch, 4, height, width),
        "times": (times,),
        "text_kv": (batch, model.tokenizer.model_max_length, text),
        **{f"skip_{number}": (batch, *shape) for number, shape in enumerate(skips)},
        "bottom": (batch, *skips[-1]),
        "bottleneck": (batch, *skips[-1]),
    }


def _feature_shape(model: Model, extent: Extent, block: int) -> Shape:
    """Return [C, h', w'] of an up block's map: the next finer level's size, or the finest."""
    network = model.unet.held.network
    sizes = [(extent.height // model.factor, extent.width // model.factor)]
    for level in network.down_blocks:
        if level.downsamplers:
            height, width = sizes[-1]
            sizes.append((-(-height // 2), -(-width // 2)))
    channels = network.up_blocks[block].resnets[-1].conv2.out_channels
    return channels, *sizes[max(len(sizes) - 2 - block, 0)]


def _skip_count(model: Model) -> int:
    return len(model.unet.skip_shapes(8, 8))


def multiple_px(model: Model) -> int:
    """Return the multiple of pixels at which maps halve without a remainder: 64 in SD."""
    levels = len(model.unet.held.network.down_blocks) - 1
    return int(model.factor * 2**levels)


def extent_of(model: Model, part: Part, inputs: Mapping[str, Tensor]) -> Extent:
    """Return the extent of a part's inputs, by the one that tells."""
    pixels = {"pixels": 1, "bottom": multiple_px(model)}.get(part.sized_by, model.factor)
    batch, _, height, width = inputs[part.sized_by].shape
    return Extent(height * pixels, width * pixels, batch)


def precision_of(model: Model, name: str) -> torch.dtype:
    """Return the dtype of a part's weights, inputs and outputs.

    The VAE may have another than the U-Net.
    """
    precisions: Mapping[str, torch.dtype] = {"unet": model.dtype, "vae": model.vae.dtype}
    return precisions[part_named(name).network]


def part_of(model: Model, unet: UNet, name: str, features: int | None = None) -> PartFunction:
    """Return a part as a function of its inputs, flat and in the order of its signature.

    Args:
        model: Whose part it is.
        unet: What runs the U-Net's parts: the model's, or one on another's weights.
        name: Of the part.
        features: Number of the up block whose map `up` returns too.
    """
    part = part_named(name)
    function = {**unet.functions, **model.autoencoder.functions}[part]
    if SKIPS not in part.inputs:
        return function
    first = part.inputs.index(SKIPS)
    after = first + _skip_count(model)

    def flat(*inputs: Tensor) -> Any:
        skips = inputs[first:after]
        features_and_eps = function(*inputs[:first], skips, *inputs[after:], features)
        return features_and_eps[1] if features is None else features_and_eps

    return flat
