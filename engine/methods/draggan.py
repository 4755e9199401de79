"""DragGAN (Pan et al., SIGGRAPH 2023): optimise the first style vectors of a generator.

Features of a middle resolution are resized to the picture's. Motion supervision moves the disc of
pixels around each handle one unit step to its target (equation 1); tracking looks for the pixel
that is most like the handle was at first (equation 2). A forward pass makes the picture anyway, so
every iteration is its own preview.
"""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dragnoise.kernels.patch_motion import distances, patches

from ..cache.structure import storable
from ..config import DragGANConfig
from ..drag.method import Forward, Method, Start
from ..drag.scene import Scene
from ..drag.supervision import TrackedState
from ..errors import ConfigError
from ..gan.model import StylePlace
from ..pipelines.styles import STYLES

__all__ = ["DRAGGAN", "StyleForward"]

_Scene: TypeAlias = Scene[StylePlace, DragGANConfig]

SHORTEST = 2.0
"""Distance to the target, in pixels, up to which a handle has arrived; 2 / 512 of a larger side."""


@storable
@dataclass(frozen=True, eq=False)
class StyleForward(Forward):
    """A forward pass through a generator.

    Attributes:
        picture: The picture, float32 [1, 3, size, size], about -1..1.
    """

    picture: Tensor


def _start(place: StylePlace) -> Start[tuple[()]]:
    return Start((), place.rows[:, : place.count].clone())


def _features(scene: _Scene, constants: tuple[()], variable: Tensor) -> StyleForward:
    block, blocks = scene.settings.block, scene.place.model.synthesis.blocks
    if block > blocks:
        raise ConfigError(f"block is {block}, but the generator has {blocks} resolutions")
    return StyleForward(*scene.place.look(variable, block))


def _begin(scene: _Scene, reference: StyleForward) -> TrackedState:
    origins = patches(reference.features[0], scene.handles, scene.resolution, 0)[:, :, 0, 0]
    return TrackedState(scene.handles, origins, _arrived(scene, scene.handles))


def _follow(
    scene: _Scene, reference: StyleForward, forward: StyleForward, state: TrackedState
) -> TrackedState:
    """Move every handle to the pixel of its window that is nearest to its first features (L2).

    Among equals the first in row-major order wins; outside of the picture there are none.
    """
    radius = scene.settings.r2
    window = patches(forward.features[0].detach(), state.handles, scene.resolution, radius)
    apart = (window - state.origins[:, :, None, None]).square().sum(1)
    offsets = torch.arange(-radius, radius + 1, device=apart.device)
    rows, columns = (state.handles[:, axis, None] + offsets for axis in (0, 1))
    height, width = scene.resolution
    outside = ((rows < 0) | (rows >= height))[:, :, None] | ((columns < 0) | (columns >= width))[
        :, None
    ]
    nearest = apart.masked_fill(outside, torch.inf).flatten(1).argmin(1, keepdim=True)
    count = 2 * radius + 1
    moved = torch.cat([rows.gather(1, nearest // count), columns.gather(1, nearest % count)], 1)
    return TrackedState(moved, state.origins, _arrived(scene, moved))


def _supervise(
    scene: _Scene, reference: StyleForward, forward: StyleForward, state: TrackedState
) -> Tensor:
    """Return the motion loss plus lambda times the mean |(F - F0)(1 - M)| (equation 1)."""
    loss = _motion(scene, forward.features[0], state.handles)
    if scene.keep is None:
        return loss
    apart = forward.features - reference.features
    if tuple(apart.shape[2:]) != scene.resolution:
        apart = interpolate(apart, scene.resolution, mode="bilinear", align_corners=False)
    return loss + scene.settings.lam * (apart * scene.keep).abs().mean()


def _motion(scene: _Scene, features: Tensor, handles: Tensor) -> Tensor:
    """Return the sum over handles of the mean |F(q + d) - sg F(q)|, q less than r1 away.

    Handles at most one pixel from their target do not count, nor pixels outside of the picture.
    """
    radius = scene.settings.r1
    apart = (scene.targets - handles).float()
    length = distances(handles, scene.targets)[:, None]
    shifted = handles + apart / length.clamp(min=1.0)
    source = patches(features.detach(), handles, scene.resolution, radius)
    moved = patches(features, shifted, scene.resolution, radius)
    counts = _disc(radius, handles, scene.resolution)
    mean = ((moved - source).abs().mean(1) * counts).sum((1, 2)) / counts.sum((1, 2))
    return (mean * (length[:, 0] > 1)).sum()


def _disc(radius: int, handles: Tensor, resolution: tuple[int, int]) -> Tensor:
    """Return 1 for pixels of the patches that are less than `radius` from the handle, and inside.

    Returns:
        float32 [N, 2 radius + 1, 2 radius + 1].
    """
    offsets = torch.arange(-radius, radius + 1, device=handles.device)
    near = offsets[:, None].square() + offsets.square() < radius * radius
    rows, columns = (handles[:, axis, None] + offsets for axis in (0, 1))
    inside_rows = (rows >= 0) & (rows < resolution[0])
    inside_columns = (columns >= 0) & (columns < resolution[1])
    return (near & inside_rows[:, :, None] & inside_columns[:, None]).float()


def _arrived(scene: _Scene, handles: Tensor) -> Tensor:
    """Return bool []: every handle is at most 2 pixels, or 2 / 512 of the side, from its target."""
    nearest = max(SHORTEST, SHORTEST / 512 * max(scene.resolution))
    return (distances(handles, scene.targets) <= nearest).all()


def _finished(scene: _Scene, state: TrackedState) -> Tensor:
    return state.all_reached


def _finish(scene: _Scene, constants: tuple[()], variable: Tensor) -> Tensor:
    return scene.place.look(variable, scene.settings.block)[1]


def _preview(
    scene: _Scene, constants: tuple[()], variable: Tensor, forward: StyleForward
) -> Tensor:
    return forward.picture


DRAGGAN = Method(
    name="draggan",
    source="Pan et al., Drag Your GAN: Interactive Point-based Manipulation on the Generative "
    "Image Manifold, SIGGRAPH 2023",
    pipeline=STYLES,
    settings=DragGANConfig,
    start=_start,
    features=_features,
    begin=_begin,
    follow=_follow,
    finished=_finished,
    supervise=_supervise,
    finish=_finish,
    preview=_preview,
    exact=True,
)
