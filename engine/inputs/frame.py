"""Where a picture's pixels, the latent's cells and the supervision map's cells lie, and how points and masks go from one to the other.

A picture whose sides are not multiples of the VAE's factor is padded on the right and at the bottom by repeating its border, so that points keep
their coordinates, and the result is cropped back. The *supervision resolution*, in which points live inside the drag, is half the (padded) picture.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from .image import Image
from .mask import Mask
from .points import Point, Points

__all__ = ["Frame"]


@dataclass(frozen=True)
class Frame:
    """The sizes of one edit, all (height, width).

    image: the input's. padded: what the VAE sees. supervision: where points live.
    published: keep the published code's treatment (no padding; resize at the end).
    """

    image: tuple[int, int]
    padded: tuple[int, int]
    published: bool = False

    @classmethod
    def of(cls, image: Image, factor: int, published: bool = False) -> "Frame":
        """The frame of an image under a VAE that shrinks by `factor`."""
        size = (image.height, image.width)
        padded = (
            size if published else (-(-size[0] // factor) * factor, -(-size[1] // factor) * factor)
        )
        return cls(size, padded, published)

    @property
    def supervision(self) -> tuple[int, int]:
        return int(0.5 * self.padded[0]), int(0.5 * self.padded[1])

    def pixels(self, image: Image) -> Tensor:
        """float32 [1, 3, H, W] in -1..1 of the padded size, on the CPU."""
        tensor = torch.from_numpy(self._padded(image.pixels)).permute(2, 0, 1)[None]
        return tensor.float() / 127.5 - 1

    def image_of(self, pixels: Tensor) -> Image:
        """The picture, in the input's size, of decoded pixels [1, 3, h, w] in -1..1."""
        unit = (pixels.float() / 2 + 0.5).clamp(0, 1)
        if self.published:
            if tuple(unit.shape[2:]) != self.image:
                unit = F.interpolate(unit, self.image, mode="bilinear")
            levels = (unit * 255).to(torch.uint8)
        else:
            levels = (unit * 255).round().to(torch.uint8)
        return Image(levels[0, :, : self.image[0], : self.image[1]].permute(1, 2, 0).cpu().numpy())

    def points(self, points: Points) -> tuple[Tensor, Tensor]:
        """Handles and targets as int64 [N, 2], (row, column) in the supervision map, rounded half to even.

        Handles are kept on the map; a target at the far border may round to one past it, as published: it is only a direction.
        """
        handles, targets = self._cells(points.handles), self._cells(points.targets)
        last = torch.tensor(self.supervision) - 1
        return torch.minimum(handles, last), targets

    def _cells(self, points: tuple[Point, ...]) -> Tensor:
        (height, width), (rows, columns) = self.padded, self.supervision
        return (
            torch.tensor(
                [[y / height * rows, x / width * columns] for x, y in points], dtype=torch.float32
            )
            .round()
            .long()
        )

    def image_points(self, cells: Tensor) -> tuple[Point, ...]:
        """(x, y) image pixels of (row, column) in the supervision map, kept on the image."""
        (height, width), (rows, columns) = self.padded, self.supervision
        scaled = ((column * width / columns, row * height / rows) for row, column in cells.tolist())
        return tuple((min(x, self.image[1] - 1.0), min(y, self.image[0] - 1.0)) for x, y in scaled)

    def editable(self, mask: Mask, latent: tuple[int, int]) -> Tensor:
        """The mask at the latent's size, float32 [1, 1, h, w], 1 = editable: nearest to the supervision size, then nearest to the latent's."""
        full = torch.from_numpy(self._padded(mask.editable.astype(np.uint8))).float()[None, None]
        return F.interpolate(
            F.interpolate(full, self.supervision, mode="nearest"), latent, mode="nearest"
        )

    def _padded(self, array: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        below, right = self.padded[0] - self.image[0], self.padded[1] - self.image[1]
        return np.pad(array, ((0, below), (0, right)) + ((0, 0),) * (array.ndim - 2), mode="edge")
