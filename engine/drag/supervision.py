"""Motion and tracking by features, which most methods share."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor

from dragnoise.kernels.patch_motion import REACHED, distances, motion_loss, patches
from dragnoise.kernels.point_tracking import track

from ..config import DragSettings
from .method import Forward, State
from .scene import Scene

__all__ = ["PatchSettings", "TrackedState", "all_reached", "at_handles", "motion", "track_features"]


class PatchSettings(DragSettings, Protocol):
    """The settings of patches around handles.

    Attributes:
        r_m: Radius of the motion patch, in supervision pixels.
        r_p: Radius of the tracking window, in supervision pixels.
    """

    @property
    def r_m(self) -> int: ...
    @property
    def r_p(self) -> int: ...


_Scene = Scene[Any, PatchSettings]
S = TypeVar("S", bound="TrackedState")


@dataclass(frozen=True, eq=False)
class TrackedState(State):
    """Handles that are followed by their features.

    Attributes:
        origins: float [N, C], the features at each handle in the reference pass.
        all_reached: bool [], whether every handle is at its target.
    """

    origins: Tensor
    all_reached: Tensor


def at_handles(scene: _Scene, reference: Forward) -> TrackedState:
    """Return the state before the first update: handles as placed, and their features there."""
    origins = patches(reference.features[0], scene.handles, scene.resolution, 0)[:, :, 0, 0]
    reached = distances(scene.handles, scene.targets) < REACHED
    return TrackedState(scene.handles, origins, reached.all())


def track_features(
    scene: _Scene, reference: Forward, forward: Forward, state: TrackedState
) -> TrackedState:
    """Move every handle to the place in its window whose features are nearest to its own (L1)."""
    tracked = track(
        forward.features[0].detach(),
        state.origins,
        state.handles,
        scene.targets,
        scene.resolution,
        scene.settings.r_p,
    )
    return dataclasses.replace(state, handles=tracked.moved, all_reached=tracked.all_reached)


def all_reached(scene: _Scene, state: TrackedState) -> Tensor:
    """Return bool []: every handle is strictly nearer than 2 supervision pixels to its target."""
    return state.all_reached


def motion(scene: _Scene, forward: Forward, state: State) -> Tensor:
    """Return the motion loss [], which draws every handle's patch one unit to its target."""
    return motion_loss(
        forward.features[0], state.handles, scene.targets, scene.resolution, scene.settings.r_m
    )
