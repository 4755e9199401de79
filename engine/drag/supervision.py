"""The parts that DragNoise and DragDiffusion share: track points by features, stop when all have arrived, motion loss plus mask term."""

import dataclasses
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from dragnoise.kernels.latent_term import latent_term
from dragnoise.kernels.patch_motion import REACHED, distances, motion_loss, patches
from dragnoise.kernels.point_tracking import track

from .method import Forward, Scene, State

__all__ = ["all_reached", "at_handles", "motion_and_mask", "track_features"]


@dataclass(frozen=True, eq=False)
class Tracked(State):
    """origins: [N, C], the features at each handle in the reference pass. all_reached: bool [], every handle is at its target."""

    origins: Tensor
    all_reached: Tensor


def at_handles(scene: Scene, reference: Forward) -> Tracked:
    """Before the first update every handle is where it was put; what it looks like there is what tracking compares with."""
    origins = patches(reference.features[0], scene.handles, scene.resolution, 0)[:, :, 0, 0]
    return Tracked(
        scene.handles, origins, (distances(scene.handles, scene.targets) < REACHED).all()
    )


def track_features(scene: Scene, reference: Forward, seen: Forward, state: State) -> State:
    """Every handle goes to the place in its window whose features now are nearest (L1) to those at the handle in the reference pass."""
    tracked = cast(Tracked, state)
    features, radius = seen.features[0].detach(), scene.config.r_p
    now = track(features, tracked.origins, tracked.handles, scene.targets, scene.resolution, radius)
    return dataclasses.replace(tracked, handles=now.moved, all_reached=now.all_reached)


def all_reached(scene: Scene, state: State) -> Tensor:
    """bool []: every handle is strictly nearer than 2 supervision pixels to its target."""
    return cast(Tracked, state).all_reached


def motion_and_mask(scene: Scene, reference: Forward, seen: Forward, state: State) -> Tensor:
    """The motion loss, plus lambda * sum |(x_prev - x_prev_0)(1 - M)|, which is linear in eps: x_prev - x_prev_0 = c(t) (eps - eps_0)."""
    loss = motion_loss(
        seen.features[0], state.handles, scene.targets, scene.resolution, scene.config.r_m
    )
    if scene.keep is None or seen.noise is None:
        return loss
    slope = scene.schedule.slope(scene.timestep)
    return loss + latent_term(
        seen.noise, cast(Tensor, reference.noise), scene.keep, slope, scene.config.lam
    )
