"""GoodDrag (Zhang et al., ICLR 2025): drag and denoise in turns, and aim at the first look.

Two things differ from DragDiffusion. Dragging alternates with denoising: after every few drags the
latent goes one denoising step on, and is dragged there, so that no step has to bear the whole
change. And a handle's patch is compared with what it looked like in the unedited picture at the
same step, not with what it looks like now, so that it does not drift:

    loss = sum over points with |q - p| >= 2 of
           K^2 * mean | F(p + s d + o) - sg[F_0(p_0 + o)] |,  o in [-r, r]^2,

    s = min(stride, |q - p|)

That patch is farther away than the next pixel, so several updates are made before a handle is
looked for again, in a wider window. How the terms are weighed is DragDiffusion's.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from dragnoise.kernels.patch_motion import REACHED, distances, patches

from ..config import GoodDragConfig
from ..diffusion.place import Place
from ..drag.method import Forward, Method
from ..drag.scene import Scene
from ..drag.supervision import TrackedState, all_reached, at_handles, track_features
from ..pipelines.diffusion import DIFFUSION
from . import latent
from .latent import LatentPrediction

__all__ = ["GOODDRAG"]

_Scene = Scene[Place, GoodDragConfig]


@dataclass(frozen=True, eq=False)
class _FirstLookState(TrackedState):
    """Handles that are followed now and then, and what they looked like.

    Attributes:
        looks: float [N, C, K, K], the unedited picture around each handle as it was placed.
        updates: int64 [], updates since a handle was last looked for.
    """

    looks: Tensor
    updates: Tensor


def _begin(scene: _Scene, reference: Forward) -> _FirstLookState:
    """Return the state before the first update at a step: the handles are looked for at once."""
    placed = at_handles(scene, reference)
    looks = patches(reference.features[0], scene.handles, scene.resolution, scene.settings.r_m)
    waited = scene.settings.motion_steps - 1
    updates = torch.full((), waited, dtype=torch.int64, device=scene.handles.device)
    return _FirstLookState(**vars(placed), looks=looks, updates=updates)


def _follow(
    scene: _Scene, reference: Forward, forward: Forward, state: _FirstLookState
) -> _FirstLookState:
    """Look for the handles where they have had their updates."""
    waited = state.updates + 1
    turn = waited >= scene.settings.motion_steps
    found = track_features(scene, reference, forward, state)
    return dataclasses.replace(
        state,
        handles=torch.where(turn, found.handles, state.handles),
        all_reached=torch.where(turn, found.all_reached, state.all_reached),
        updates=torch.where(turn, 0, waited),
    )


def _supervise(
    scene: _Scene, reference: LatentPrediction, forward: LatentPrediction, state: _FirstLookState
) -> Tensor:
    """Return the loss above plus lambda * sum |(x_prev - x_prev_0)(1 - M)|."""
    settings = scene.settings
    distance = distances(state.handles, scene.targets)[:, None]
    step = (settings.stride / distance.clamp(min=REACHED)).clamp(max=1)
    ahead = state.handles + step * (scene.targets - state.handles)
    look = patches(forward.features[0], ahead, scene.resolution, settings.r_m)
    off = (look - state.looks).abs().mean((1, 2, 3)) * (2 * settings.r_m + 1) ** 2
    loss = (off * (distance[:, 0] >= REACHED)).sum()
    return loss + latent.mask_term(scene, reference, forward, settings.lam)


def _rounds(settings: GoodDragConfig) -> tuple[int, ...]:
    """Return the updates at each step: as many at all, the rest at the last."""
    whole, rest = divmod(settings.iterations, settings.updates_per_step)
    return (settings.updates_per_step,) * whole + ((rest,) if rest or not whole else ())


GOODDRAG = Method(
    name="gooddrag",
    source="Zhang et al., GoodDrag: Towards Good Practices for Drag Editing with Diffusion Models, "
    "ICLR 2025",
    pipeline=DIFFUSION,
    settings=GoodDragConfig,
    start=latent.start,
    features=latent.features,
    begin=_begin,
    follow=_follow,
    finished=all_reached,
    supervise=_supervise,
    finish=latent.finish,
    preview=latent.preview,
    exact=True,
    mutual=latent.mutual,
    rounds=_rounds,
)
