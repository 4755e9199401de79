"""Fast: move the noisy latent along the drag, then mend it with a few updates of the bottleneck.

DragNoise walks: a patch of features goes one cell on, dozens of times, and what it leaves behind
lingers. Here the noisy latent itself is moved first, by a smooth field (`drag/field.py`), and the
encoder half and the middle block run on it anew. Then the bottleneck is optimised as in DragNoise,
but towards the whole goal at once: the patch at the target is compared with what the handle looks
like in the unedited picture (GoodDrag's comparison, with the whole way as its stride),

    loss = sum over points of K^2 * mean | F(q + o) - sg[F_0(p_0 + o)] |,  o in [-r, r]^2.

The noisy latent is a clean signal and noise. Noise moves by whole cells, which keep its deviation;
the signal is sampled between them, and comes to where it should.

Holes that the moved things leave get the harmonic continuation of the clean latent around them,
with new noise. What must stay is put back after every denoising step (blended latents; Avrahami
et al., 2022), so that the loss needs no mask term and the loop no network output.

It is an approximation of no published method: its own, with its price and quality measured
(docs/quality.md).
"""

import dataclasses
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from dragnoise.kernels.patch_motion import patches

from ..cache.structure import storable
from ..config import FastConfig
from ..diffusion.place import Place
from ..diffusion.unet import Folded
from ..drag.field import Field, displacement_field, harmonic, moved, remainder
from ..drag.method import Forward, Method, Start
from ..drag.scene import Scene
from ..drag.supervision import TrackedState, at_handles, track_features
from ..pipelines.diffusion import DIFFUSION
from ..stages import Denoising
from .dragnoise import EncoderHalf, features, preview, start

__all__ = ["FAST"]

_Scene: TypeAlias = Scene[Place, FastConfig]

_MOVED = 0.5
"""Cells that go farther than this have left their place."""


@storable
@dataclass(frozen=True, eq=False)
class _Still(EncoderHalf):
    """The constants of a place.

    Attributes:
        fresh: Noise for what the moved things leave, float32 [1, 4, h, w].
    """

    fresh: Tensor


@storable
@dataclass(frozen=True, eq=False)
class _Moved(EncoderHalf):
    """The constants of a drag.

    Attributes:
        blend: Where the picture may change, 0 to 1, float32 [1, 1, h, w]; None: everywhere.
        unedited: The latents of the inversion, the clean one first.
    """

    blend: Tensor | None
    unedited: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class _LookState(TrackedState):
    """Handles that are looked for at their targets.

    Attributes:
        looks: float [N, C, K, K], the unedited picture around each handle.
        passes: int64 [], forward passes until now.
    """

    looks: Tensor
    passes: Tensor


def _start(place: Place) -> Start[EncoderHalf]:
    """Run encoder half and middle block; draw the noise, which waits for the device, once."""
    begun = start(place)
    generator = torch.Generator().manual_seed(0)
    fresh = torch.randn(place.latent.shape, generator=generator, dtype=torch.float32)
    constants = _Still(**vars(begun.constants), fresh=fresh.to(place.latent.device))
    return Start(constants, begun.variable)


def _aim(
    scene: _Scene, still: Start[EncoderHalf], inversion: tuple[Tensor, ...]
) -> tuple[_Scene, Start[EncoderHalf]]:
    """Return the drag on the moved latent; what must stay is put back, and not weighed."""
    assert isinstance(still.constants, _Still)
    place = scene.place
    editable = None if scene.keep is None else scene.keep[0, 0] == 0
    field = _field(scene, editable)
    behind = _background(place, inversion[0], still.constants.fresh, field)
    blend = None if editable is None else _feathered(editable)
    latent, _ = moved(place.latent, field, behind, blend)
    latent = latent + _between_cells(place, inversion[0], field, blend)
    there = dataclasses.replace(place, latent=latent)
    begun = start(there) if scene.settings.iterations else _unfolded(there)
    constants = _Moved(**vars(begun.constants), blend=blend, unedited=inversion)
    aimed = dataclasses.replace(scene, place=there, keep=None, grip=None, ways=None)
    return aimed, Start(constants, begun.variable)


def _unfolded(place: Place) -> Start[EncoderHalf]:
    """Run encoder half and middle block, for a drag without updates: it decodes no folded half."""
    unet = place.model.unet
    down = unet.down(place.latent, place.step)
    nothing = Folded((), down.step.text, ())
    return Start(EncoderHalf(down, nothing), unet.middle(down).float())


def _between_cells(place: Place, clean: Tensor, field: Field, blend: Tensor | None) -> Tensor:
    """Return what is missing where the clean signal was moved by whole cells, [1, 4, h, w]."""
    a = place.schedule.alphas[place.timestep]
    missing = a.sqrt() * remainder(clean, field)
    return missing if blend is None else missing * blend


def _feathered(editable: Tensor) -> Tensor:
    """Return where the picture may change, softened by a cell, float32 [1, 1, h, w]."""
    wide = F.pad(editable.float()[None, None], (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(wide, 3, 1)


def _field(scene: _Scene, editable: Tensor | None) -> Field:
    """Return the drag's field in cells of the latent."""
    height, width = scene.place.latent.shape[2:]
    rows, columns = scene.resolution
    scales = (height / rows, width / columns)
    radius = scene.settings.grip_px * width / (2 * columns)  # two pixels of the image are a cell
    handles, targets = _in_cells(scene.handles, scales), _in_cells(scene.targets, scales)
    if scene.ways is not None:
        targets = handles + torch.stack([scene.ways[:, n] * scales[n] for n in (0, 1)], -1)
    return displacement_field(
        handles, targets, editable, (height, width), radius, scene.grip, scene.settings.fit
    )


def _in_cells(points: Tensor, scales: tuple[float, float]) -> Tensor:
    """Return points of the supervision map in cells, from the middles of pixels to those of cells.

    By numbers: a tensor of them would wait for the device.
    """
    return torch.stack([(points[:, n] + 0.5) * scales[n] - 0.5 for n in (0, 1)], -1)


def _background(place: Place, clean: Tensor, fresh: Tensor, field: Field) -> Tensor:
    """Return the noisy latent without what has moved: its surroundings go on, under new noise."""
    gone = field.shift.square().sum(0) > _MOVED**2
    around = harmonic(clean[0], ~gone)[None]
    a = place.schedule.alphas[place.timestep]
    return a.sqrt() * around + (1 - a).sqrt() * fresh


def _begin(scene: _Scene, reference: Forward) -> _LookState:
    placed = at_handles(scene, reference)
    looks = patches(reference.features[0], scene.handles, scene.resolution, scene.settings.r_m)
    passes = torch.zeros((), dtype=torch.int64, device=scene.handles.device)
    there = dataclasses.replace(placed, handles=scene.targets)
    return _LookState(**vars(there), looks=looks, passes=passes)


def _follow(scene: _Scene, reference: Forward, forward: Forward, state: _LookState) -> _LookState:
    """Look for the handles around their targets."""
    there = dataclasses.replace(state, handles=scene.targets)
    found = track_features(scene, reference, forward, there)
    return dataclasses.replace(
        state,
        handles=found.handles,
        all_reached=found.all_reached,
        passes=state.passes + 1,
    )


def _finished(scene: _Scene, state: _LookState) -> Tensor:
    """Return bool []: all handles are found at their targets, in the last pass."""
    return state.all_reached & (state.passes >= scene.settings.iterations)


def _supervise(scene: _Scene, reference: Forward, forward: Forward, state: _LookState) -> Tensor:
    radius = scene.settings.r_m
    look = patches(forward.features[0], scene.targets.float(), scene.resolution, radius)
    off = (look - state.looks).abs().mean((1, 2, 3))
    return (2 * radius + 1) ** 2 * off.sum()


def _finish(scene: _Scene, constants: EncoderHalf, bottleneck: Tensor) -> Denoising:
    """Denoise from the moved latent; after every step what must stay is put back."""
    place = scene.place
    unet = place.model.unet
    assert isinstance(constants, _Moved)
    blend, unedited = constants.blend, constants.unedited

    def noise(index: int, timestep: int, latent: Tensor) -> Tensor:
        step = place.conditioning.at(timestep)
        if index == place.index:
            output = unet.up(constants.down, bottleneck).output
            assert output is not None
        else:
            output = unet.replaced(latent, step, bottleneck)
        return place.schedule.noise(output, latent, timestep)

    def put_back(done: int, latent: Tensor) -> Tensor:
        assert blend is not None
        return unedited[place.active_steps - done].lerp(latent, blend)

    return Denoising(place.latent, noise, None if blend is None else put_back)


FAST = Method(
    name="fast",
    source="this project: a moved latent, then DragNoise's bottleneck towards the whole goal",
    pipeline=DIFFUSION,
    settings=FastConfig,
    start=_start,
    features=features,
    begin=_begin,
    follow=_follow,
    finished=_finished,
    supervise=_supervise,
    finish=_finish,
    preview=preview,
    grips=True,
    aim=_aim,
)
