"""The frame of an edit: how a picture's pixels lie in the latent and in the supervision map.

A picture whose sides are not multiples of the VAE's factor is padded on the right and at the bottom
by repeating its border, so that points keep their coordinates, and the result is cropped back. The
*supervision resolution*, in which points live inside the drag, is half the (padded) picture.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from .image import Image
from .mask import Mask
from .points import Point, Points

__all__ = ["Frame"]


@dataclass(frozen=True)
class Frame:
    """The sizes of one edit, all (height, width).

    Attributes:
        image: Size of the input in pixels.
        padded: Size of the picture that the VAE sees, in pixels.
        published: Whether the published code's treatment is kept: no padding, resized at the end.
    """

    image: tuple[int, int]
    padded: tuple[int, int]
    published: bool = False

    @classmethod
    def of(cls, image: Image, factor: int, published: bool = False) -> "Frame":
        """Return the frame of an image under a VAE that shrinks by `factor`.

        Raises:
            ConfigError: For a published one of an image that leaves the VAE nothing.
        """
        size = (image.height, image.width)
        if published:
            _check_published(size, factor)
            return cls(size, size, published)
        padded = (-(-size[0] // factor) * factor, -(-size[1] // factor) * factor)
        return cls(size, padded, published)

    @property
    def supervision(self) -> tuple[int, int]:
        """Size of the supervision map, in which points live."""
        return int(0.5 * self.padded[0]), int(0.5 * self.padded[1])

    def pixels(self, image: Image) -> Tensor:
        """Return the padded picture, float32 [1, 3, H, W] in -1..1, on the CPU."""
        tensor = torch.from_numpy(self._padded(image.pixels)).permute(2, 0, 1)[None]
        return tensor.float() / 127.5 - 1

    def image_of(self, pixels: Tensor) -> Image:
        """Return decoded pixels [1, 3, h, w] in -1..1 as a picture of the input's size."""
        unit = (pixels.float() / 2 + 0.5).clamp(0, 1)
        if self.published:
            if tuple(unit.shape[2:]) != self.image:
                unit = F.interpolate(unit, self.image, mode="bilinear")
            levels = (unit * 255).to(torch.uint8)
        else:
            levels = (unit * 255).round().to(torch.uint8)
        cropped = levels[0, :, : self.image[0], : self.image[1]]
        return Image(cropped.permute(1, 2, 0).cpu().numpy())

    def points(self, points: Points) -> tuple[Tensor, Tensor]:
        """Return handles and targets, int64 [N, 2], (row, column) in the supervision map.

        They are rounded half to even. Handles are kept on the map; a target at the far border may
        round to one past it, as published: it is only a direction.
        """
        last = torch.tensor(self.supervision) - 1
        return torch.minimum(self._cells(points.handles), last), self._cells(points.targets)

    def ways(self, points: Points) -> Tensor:
        """Return from handles to targets, float32 [N, 2], not rounded, in the same cells."""
        return self._unrounded(points.targets) - self._unrounded(points.handles)

    def _cells(self, points: tuple[Point, ...]) -> Tensor:
        return self._unrounded(points).round().long()

    def _unrounded(self, points: tuple[Point, ...]) -> Tensor:
        height, width = self.padded
        rows, columns = self.supervision
        cells = [[y / height * rows, x / width * columns] for x, y in points]
        return torch.tensor(cells, dtype=torch.float32)

    def image_points(self, cells: Tensor) -> tuple[Point, ...]:
        """Return (x, y) in image pixels of (row, column) in the supervision map, [N, 2].

        They are kept on the image.
        """
        height, width = self.padded
        rows, columns = self.supervision
        scaled = ((column * width / columns, row * height / rows) for row, column in cells.tolist())
        return tuple((min(x, self.image[1] - 1.0), min(y, self.image[0] - 1.0)) for x, y in scaled)

    def editable(self, mask: Mask, latent: tuple[int, int]) -> Tensor:
        """Return the mask at the latent's size, float32 [1, 1, h, w], 1 where editable.

        It is resized to the supervision size, then to the latent's, each time to the nearest.
        """
        full = torch.from_numpy(self._padded(mask.editable.astype(np.uint8))).float()[None, None]
        halved = F.interpolate(full, self.supervision, mode="nearest")
        return F.interpolate(halved, latent, mode="nearest")

    def touched(self, mask: Mask, cells: tuple[int, int]) -> Tensor:
        """Return which cells of a map have a white pixel of a mask, bool [h, w].

        So a thing that hangs together does so in cells, thin ropes and all.
        """
        full = torch.from_numpy(self._padded(mask.editable.astype(np.uint8))).float()
        return F.adaptive_max_pool2d(full[None, None], cells)[0, 0] > 0

    def _padded(self, array: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        below = self.padded[0] - self.image[0]
        right = self.padded[1] - self.image[1]
        return np.pad(array, ((0, below), (0, right)) + ((0, 0),) * (array.ndim - 2), mode="edge")


def _check_published(size: tuple[int, int], factor: int) -> None:
    """Check that the published treatment, which pads nothing, leaves a latent to drag in."""
    if min(size) < factor:
        raise ConfigError(
            f"parity keeps the picture unpadded, and the model needs {factor} pixels a side, got "
            f"{size[1]}x{size[0]}; leave parity out, or give a larger picture"
        )
