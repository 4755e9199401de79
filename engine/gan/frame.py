"""Know how a picture of any size lies in the generator's, which has one size."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as Pillow
from torch import Tensor

from ..inputs.frame import Frame
from ..inputs.image import Image
from ..inputs.mask import Mask
from ..inputs.points import Point

__all__ = ["StyleFrame"]


@dataclass(frozen=True)
class StyleFrame(Frame):
    """The sizes of one edit: `padded` is the generator's, and the supervision map has the same.

    A picture of another size is resized, and so is the result. Points lie in the middle of pixels.
    """

    @classmethod
    def around(cls, image: Image, size: int) -> "StyleFrame":
        """Return the frame of an image in a generator's square of `size` pixels a side."""
        return cls((image.height, image.width), (size, size))

    @property
    def supervision(self) -> tuple[int, int]:
        """Size of the supervision map, which is the generator's picture's."""
        return self.padded

    @property
    def resizes(self) -> bool:
        """Whether the picture has another size than the generator's."""
        return self.image != self.padded

    def pixels(self, image: Image) -> Tensor:
        """Return the picture in the generator's size, float32 [1, 3, size, size] in -1..1."""
        pixels = image.pixels
        if self.resizes:
            height, width = self.padded
            resized = Pillow.fromarray(pixels).resize((width, height), Pillow.Resampling.LANCZOS)
            pixels = np.asarray(resized)
        tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
        return tensor.float() / 127.5 - 1

    def image_of(self, pixels: Tensor) -> Image:
        """Return pixels [1, 3, size, size] in -1..1 as a picture of the input's size."""
        levels = (pixels.detach().float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
        array = levels[0].permute(1, 2, 0).cpu().contiguous().numpy()
        if self.resizes:
            height, width = self.image
            resized = Pillow.fromarray(array).resize((width, height), Pillow.Resampling.LANCZOS)
            array = np.asarray(resized).copy()
        return Image(array)

    def image_points(self, cells: Tensor) -> tuple[Point, ...]:
        """Return (x, y) in image pixels of (row, column) in the supervision map, [N, 2]."""
        scale_y, scale_x = self._scales()
        points = ((column / scale_x, row / scale_y) for row, column in (cells + 0.5).tolist())
        height, width = self.image
        return tuple(
            (min(max(x - 0.5, 0.0), width - 1.0), min(max(y - 0.5, 0.0), height - 1.0))
            for x, y in points
        )

    def editable(self, mask: Mask, latent: tuple[int, int]) -> Tensor:
        """Return the mask in a map's size, float32 [1, 1, h, w], 1 where editable."""
        full = torch.from_numpy(mask.editable.astype(np.float32))[None, None]
        return F.interpolate(full, latent, mode="nearest-exact")

    def touched(self, mask: Mask, cells: tuple[int, int]) -> Tensor:
        """Return which cells of a map have a white pixel of a mask, bool [h, w]."""
        full = torch.from_numpy(mask.editable.astype(np.float32))[None, None]
        return F.adaptive_max_pool2d(full, cells)[0, 0] > 0

    def _cells(self, points: tuple[Point, ...]) -> Tensor:
        scale_y, scale_x = self._scales()
        cells = [[(y + 0.5) * scale_y - 0.5, (x + 0.5) * scale_x - 0.5] for x, y in points]
        return torch.tensor(cells, dtype=torch.float32).round().long()

    def _scales(self) -> tuple[float, float]:
        return self.padded[0] / self.image[0], self.padded[1] / self.image[1]
