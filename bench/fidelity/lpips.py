"""Measure how different two pictures look (LPIPS), in plain PyTorch.

Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018,
eq. 1, version 0.1 on AlexNet: the features behind each of its five convolutions, every place's
vector of length one, squared differences weighted by channel, the mean over places, the sum over
layers. *Image fidelity* is 1 less this, of pictures of 224 x 224 (DragBench).

The weights are the `lpips` package's, in a file without pickles:

    import lpips, safetensors.torch
    weights = lpips.LPIPS(net="alex").state_dict()
    weights = {name: weights[name] for name in weights if not name.startswith("lins")}
    safetensors.torch.save_file(weights, "lpips_alex.safetensors")
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from dragnoise.engine.diffusion.load.stored import SAFE, open_weights
from dragnoise.engine.errors import ModelError
from dragnoise.engine.system.incoming import read_bounded

from .pixels import Pixels

__all__ = ["LAYERS", "Layer", "Lpips"]

_SIDE_PX = 224
_MOST_BYTES = 2**28
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


@dataclass(frozen=True)
class Layer:
    """A convolution of AlexNet.

    Attributes:
        name: In the `lpips` package's state dict.
        shape: Of its weight: [to, from, height, width].
        stride: In pixels.
        padding: In pixels.
        pooled: Whether the largest of 3 x 3 places, every second, is taken before it.
    """

    name: str
    shape: tuple[int, int, int, int]
    stride: int
    padding: int
    pooled: bool


LAYERS = (
    Layer("net.slice1.0", (64, 3, 11, 11), 4, 2, pooled=False),
    Layer("net.slice2.3", (192, 64, 5, 5), 1, 2, pooled=True),
    Layer("net.slice3.6", (384, 192, 3, 3), 1, 1, pooled=True),
    Layer("net.slice4.8", (256, 384, 3, 3), 1, 1, pooled=False),
    Layer("net.slice5.10", (256, 256, 3, 3), 1, 1, pooled=False),
)


class Lpips:
    """A measure of how different pictures look.

    Args:
        weights: By the `lpips` package's names; others are left alone.
        device: Where it computes.

    Raises:
        ModelError: A weight is missing or of another shape.
    """

    def __init__(self, weights: Mapping[str, Tensor], device: torch.device | str = "cpu") -> None:
        def taken(name: str, shape: Sequence[int]) -> Tensor:
            if name not in weights or tuple(weights[name].shape) != tuple(shape):
                found = list(weights[name].shape) if name in weights else "nothing"
                raise ModelError(
                    f"LPIPS's weights have {found} for {name!r}, not {list(shape)}; save those of "
                    "lpips.LPIPS(net='alex')"
                )
            return weights[name].to(device, torch.float32)

        self.device = torch.device(device)
        self._layers = [
            (
                layer,
                taken(f"{layer.name}.weight", layer.shape),
                taken(f"{layer.name}.bias", layer.shape[:1]),
            )
            for layer in LAYERS
        ]
        self._shares = [
            taken(f"lin{number}.model.1.weight", (1, layer.shape[0], 1, 1))
            for number, layer in enumerate(LAYERS)
        ]

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        sha256: str | None = None,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Return the measure with the weights in a file.

        Args:
            path: A `.safetensors` file.
            sha256: What the file's digest must be, in hexadecimal; None: whatever it is.
            device: Where it computes.

        Raises:
            ModelError: It cannot be read, is another file, or holds other weights.
        """
        file = Path(path)
        if file.suffix.lower() != SAFE:
            raise ModelError(f"{str(path)!r} is no {SAFE} file; save LPIPS's weights as one")
        content = read_bounded(file, ModelError, _MOST_BYTES)
        found = hashlib.sha256(content).hexdigest()
        if sha256 is not None and found != sha256.lower():
            raise ModelError(f"the digest of {str(path)!r} is {found}, not {sha256}; which is it?")
        with open_weights([file]) as stored:
            return cls({name: tensor.read() for name, tensor in stored.items()}, device)

    @torch.no_grad()
    def distance(self, a: Pixels, b: Pixels) -> float:
        """Return how different two pictures look: 0 if they are equal.

        Args:
            a: uint8 [H, W, 3]; made 224 x 224 without regard to its shape, as published.
            b: Likewise, of any size.
        """
        pairs = zip(self._features(a), self._features(b), self._shares, strict=True)
        return float(sum(self._weighted(one, other, share) for one, other, share in pairs))

    def _features(self, picture: Pixels) -> Iterator[Tensor]:
        """Yield the map behind every layer [1, C, h, w], each place's vector of length one."""
        pixels = torch.from_numpy(picture.copy()).to(self.device).permute(2, 0, 1)[None].float()
        resized = F.interpolate(pixels / 127.5 - 1, (_SIDE_PX, _SIDE_PX), mode="bilinear")
        shift, scale = (resized.new_tensor(each).view(1, 3, 1, 1) for each in (_SHIFT, _SCALE))
        hidden = (resized - shift) / scale
        for layer, weight, bias in self._layers:
            if layer.pooled:
                hidden = F.max_pool2d(hidden, 3, 2)
            hidden = F.conv2d(hidden, weight, bias, layer.stride, layer.padding).relu()
            yield hidden / (hidden.square().sum(1, keepdim=True).sqrt() + 1e-10)

    @staticmethod
    def _weighted(one: Tensor, other: Tensor, share: Tensor) -> Tensor:
        """Return a layer's difference."""
        return F.conv2d((one - other).square(), share).mean()
