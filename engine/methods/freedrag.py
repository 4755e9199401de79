"""FreeDrag (Ling et al., CVPR 2024), its diffusion version: drag features, not points.

Nothing is tracked. Each handle has a template, what the picture looks like around it, and a
waypoint on the line to its target, at which the features are to become the template's:

    loss = sum over points of  mean |F(waypoint + o) - T|,  o in [-r, r]^2
         + lambda * mean |(x_prev - x_prev_0)(1 - M)|

After at most `inner_steps` updates, or when every point's loss is below l / 2, a template follows
what has been reached (equation 3) and the next waypoint is looked for (equation 7), with l the
expected distance, L_0 and L a point's loss when it came to its waypoint and now:

    T <- k F + (1 - k) T,    k = 1 / (1 + exp(a (L - b))),    a = ln 9 / (0.6 l),    b = 0.2 l
    L < l / 2   advance: within d_max, where the distance to T is nearest to l
    L < L_0     stay
    else        roll back: from d_max behind to d_max ahead, where the distance to T is least

A point is done within 2 pixels of its target with L <= l / 2: it stays, and its template is what
is there (k = 1). The published code runs the network once more between two waypoints; here that
pass is the next iteration's own. Templates and line search repeat the map's border, where the
published code leaves the map.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dragnoise.kernels.patch_motion import REACHED, distances, patches

from ..config import FreeDragConfig
from ..diffusion.place import Place
from ..drag.method import Forward, Method, State
from ..drag.scene import Scene
from ..pipelines.diffusion import DIFFUSION
from . import latent
from .latent import LatentPrediction

__all__ = ["FREEDRAG", "WaypointState", "follow", "template_losses"]

_Scene = Scene[Place, FreeDragConfig]

_POSITIONS = 10
"""Positions of a line search."""


@dataclass(frozen=True, eq=False)
class WaypointState(State):
    """Waypoints in the supervision map, and what they are to look like.

    Attributes:
        handles: The waypoints, float32 [N, 2], (row, column).
        templates: float32 [N, C, 2 r + 1, 2 r + 1].
        arrived: The losses in the first pass at these waypoints, float32 [N].
        losses: The losses in the last pass, float32 [N].
        updates: int64 [], updates at these waypoints, the one to come included.
        all_done: bool [], whether every point is done.
    """

    templates: Tensor
    arrived: Tensor
    losses: Tensor
    updates: Tensor
    all_done: Tensor


def _begin(scene: _Scene, reference: Forward) -> WaypointState:
    """Take the templates at the handles, and go to the first waypoints."""
    handles = scene.handles.float()
    none = handles.new_zeros(len(handles))
    nothing = torch.zeros((), dtype=torch.bool, device=handles.device)
    begun = WaypointState(
        handles, _looks(scene, reference, handles), none, none, nothing.long(), nothing
    )
    waypoints = _search(scene, reference, begun)
    losses = template_losses(scene, reference, waypoints, begun.templates)
    return WaypointState(waypoints, begun.templates, losses, losses, nothing.long() + 1, nothing)


def follow(
    scene: _Scene, reference: Forward, forward: Forward, state: WaypointState
) -> WaypointState:
    """Go on at the same waypoints, or, where they have had their updates, to the next ones.

    Both are computed, and chosen on the device.
    """
    settings = scene.settings
    half = settings.l_expected / 2
    turn = (state.updates >= settings.inner_steps) | (state.losses.amax() < half)
    look = _looks(scene, forward, state.handles)
    losses = _distances(look, state.templates)
    done = (distances(state.handles, scene.targets) < REACHED) & (losses <= half)
    share = torch.where(done, 1.0, _share(losses, settings.l_expected))[:, None, None, None]
    templates = share * look + (1 - share) * state.templates
    left = WaypointState(state.handles, templates, state.arrived, losses, state.updates, done.all())
    waypoints = torch.where(done[:, None], state.handles, _search(scene, forward, left))
    arrived = template_losses(scene, forward, waypoints, templates)
    return WaypointState(
        torch.where(turn, waypoints, state.handles),
        torch.where(turn, templates, state.templates),
        torch.where(turn, arrived, state.arrived),
        torch.where(turn, arrived, losses),
        torch.where(turn, 1, state.updates + 1),
        turn & left.all_done,
    )


def _share(losses: Tensor, expected: float) -> Tensor:
    """Return how much of what is there a template takes on, k above, float32 [N]."""
    return torch.sigmoid(-math.log(9) / (0.6 * expected) * (losses - 0.2 * expected))


def _search(scene: _Scene, forward: Forward, state: WaypointState) -> Tensor:
    """Return the next waypoints, float32 [N, 2]: ahead, the same, or back."""
    settings = scene.settings
    here = state.handles
    targets = scene.targets.float()
    step = _towards(here, targets, settings.d_max)
    advances = (state.losses < settings.l_expected / 2)[:, None]
    stays = (state.losses < state.arrived)[:, None]
    first = torch.where(advances, here, here - step)
    reach = torch.where(advances, step, _towards(first, targets, 2 * settings.d_max))
    parts = torch.arange(1, _POSITIONS + 1, device=here.device)[:, None] / _POSITIONS
    candidates = (1 - parts) * first[:, None] + parts * (first + reach)[:, None]
    found = _nearest(scene, forward, state.templates, candidates, advances * settings.l_expected)
    return torch.where(~advances & stays, here, found)


def _towards(points: Tensor, targets: Tensor, most: float) -> Tensor:
    """Return the step [N, 2] from points to targets, at most so many pixels long."""
    length = distances(points, targets)[:, None]
    return (most / (length + 1e-8)).clamp(max=1) * (targets - points)


def _nearest(
    scene: _Scene, forward: Forward, templates: Tensor, candidates: Tensor, wanted: Tensor
) -> Tensor:
    """Return of every point's candidates [N, P, 2] the first whose distance is nearest to `wanted`.

    Args:
        templates: [N, C, K, K], what distances are to.
        wanted: Distances, [N, 1].
    """
    count = candidates.shape[1]
    looks = _looks(scene, forward, candidates.flatten(0, 1)).unflatten(0, (-1, count))
    found = (looks - templates[:, None]).abs().mean((2, 3, 4))
    best = (found - wanted).abs().argmin(1)
    return candidates.gather(1, best[:, None, None].expand(-1, 1, 2))[:, 0]


def _looks(scene: _Scene, forward: Forward, points: Tensor) -> Tensor:
    """Return the features around points, [N, C, K, K], differentiably."""
    return patches(forward.features[0], points, scene.resolution, scene.settings.win_r)


def template_losses(scene: _Scene, forward: Forward, points: Tensor, templates: Tensor) -> Tensor:
    """Return every point's mean distance to its template, [N], differentiably."""
    return _distances(_looks(scene, forward, points), templates)


def _distances(looks: Tensor, templates: Tensor) -> Tensor:
    """Return the mean distance of each [N, C, K, K], [N]."""
    return (looks - templates).abs().mean((1, 2, 3))


def _finished(scene: _Scene, state: WaypointState) -> Tensor:
    return state.all_done


def _supervise(
    scene: _Scene,
    reference: LatentPrediction,
    forward: LatentPrediction,
    state: WaypointState,
) -> Tensor:
    """Return the losses of all points and the mask term."""
    loss = template_losses(scene, forward, state.handles, state.templates).sum()
    weight = scene.settings.lam / scene.place.latent.numel()
    return loss + latent.mask_term(scene, reference, forward, weight)


FREEDRAG = Method(
    name="freedrag",
    source="Ling et al., FreeDrag: Feature Dragging for Reliable Point-based Image Editing, "
    "CVPR 2024 (diffusion version)",
    pipeline=DIFFUSION,
    settings=FreeDragConfig,
    start=latent.start,
    features=latent.features,
    begin=_begin,
    follow=follow,
    finished=_finished,
    supervise=_supervise,
    finish=latent.finish,
    preview=latent.preview,
    exact=True,
    mutual=latent.mutual,
)
