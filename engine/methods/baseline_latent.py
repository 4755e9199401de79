"""The published DragDiffusion and FreeDrag as their implementations execute them, restated plainly.

As `baseline`, which says what is counted and what is left out; what differs:

    features   the latent is the variable: the whole network in every iteration
    follow     FreeDrag runs the network once more between two waypoints
    finish     the unedited picture beside the edited one, both by its keys and values

Attention is fused, or written out in the rows that end in `-plain`, as there.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor

from ..cache.structure import storable
from ..diffusion.place import Place
from ..drag.method import Method, Start, State
from ..drag.scene import Scene
from ..stages import Denoising
from . import baseline, freedrag
from .baseline import UpsampledPrediction
from .dragdiffusion import DRAGDIFFUSION
from .freedrag import FREEDRAG, WaypointState

__all__ = [
    "DRAGDIFFUSION_BASELINE",
    "DRAGDIFFUSION_BASELINE_PLAIN",
    "FREEDRAG_BASELINE",
    "FREEDRAG_BASELINE_PLAIN",
]

_Scene: TypeAlias = Scene[Place, Any]


@storable
@dataclass(frozen=True, eq=False)
class _LatentPass(UpsampledPrediction):
    """A pass from a latent.

    Attributes:
        latent: What the network read, float32 [1, 4, h, w].
    """

    latent: Tensor

    def clean(self, place: Place) -> Tensor:
        """Return the predicted clean latent."""
        return place.schedule.clean(self.noise, self.latent, place.timestep)


def _start(place: Place) -> Start[None]:
    baseline.network(place).watched(place.latent, place.step)  # the reference pass
    return Start(None, place.latent)


def _features(scene: _Scene, constants: None, latent: Tensor) -> _LatentPass:
    place = scene.place
    with baseline.autocast(latent.device):
        seen = baseline.network(place).watched(latent, place.step)
        upsampled = F.interpolate(seen.features, scene.resolution, mode="bilinear")
        noise = place.schedule.noise(seen.output, latent, place.timestep)
        stepped = place.schedule.denoise(noise, latent, place.timestep)
    return _LatentPass(seen.features, noise, upsampled[0], stepped, latent)


def _supervise(scene: _Scene, reference: _LatentPass, forward: _LatentPass, state: State) -> Tensor:
    """Return the motion loss, and the mask term where something must stay."""
    loss = baseline.motion_of_all(scene, forward, state)
    if scene.keep is None:
        return loss
    moved = (forward.stepped - reference.stepped) * scene.keep
    return loss + float(scene.settings.lam) * moved.abs().sum()


def _follow_waypoints(
    scene: _Scene, reference: _LatentPass, forward: _LatentPass, state: WaypointState
) -> WaypointState:
    """Go on, or to the next waypoints after a pass of their own; the host reads which."""
    settings = scene.settings
    half = settings.l_expected / 2
    if int(state.updates) >= settings.inner_steps or float(state.losses.amax()) < half:
        with torch.no_grad():
            baseline.network(scene.place).watched(forward.latent, scene.place.step)
    return freedrag.follow(scene, reference, forward, state)


def _supervise_waypoints(
    scene: _Scene, reference: _LatentPass, forward: _LatentPass, state: WaypointState
) -> Tensor:
    loss = freedrag.template_losses(scene, forward, state.handles, state.templates).sum()
    if scene.keep is None:
        return loss
    moved = (forward.stepped - reference.stepped) * scene.keep
    return loss + float(scene.settings.lam) * moved.abs().mean()


class _Mutual:
    """Self-attention of both pictures on the first one's keys and values."""

    def __init__(self, attend: Any) -> None:
        self._attend = attend

    def __call__(self, attn: Attention, hidden_states: Tensor, *inputs: Any, **more: Any) -> Tensor:
        read = hidden_states[:1].expand_as(hidden_states)
        attended: Tensor = self._attend(attn, hidden_states, read)
        return attended


def _finish(scene: _Scene, constants: None, latent: Tensor) -> Denoising:
    """Denoise both pictures side by side; the first is the unedited one, whose keys both read."""
    place = scene.place
    unet = baseline.network(place)
    settings = scene.settings
    layers = _self_attentions(unet.network)[settings.start_layer :]
    unedited = place.latent

    def noise(index: int, timestep: int, current: Tensor) -> Tensor:
        nonlocal unedited
        both = torch.cat([unedited, current])
        reads = index - place.index >= settings.start_step
        plain = [layer.processor for layer in layers]
        for layer, attend in zip(layers, plain, strict=True):
            layer.set_processor(_Mutual(attend) if reads else attend)
        try:
            output = unet.watched(both, place.conditioning.at(timestep)).output
        finally:
            for layer, attend in zip(layers, plain, strict=True):
                layer.set_processor(attend)
        eps = place.schedule.noise(output, both, timestep)
        unedited = place.schedule.denoise(eps[:1], unedited, timestep)
        return eps[1:]

    return Denoising(latent, noise)


def _self_attentions(network: Any) -> list[Attention]:
    """Return the self-attentions in the order in which they run."""
    blocks = (*network.down_blocks, network.mid_block, *network.up_blocks)
    return [
        transformer.attn1
        for block in blocks
        for attention in getattr(block, "attentions", None) or ()
        for transformer in attention.transformer_blocks
    ]


_restated = partial(
    replace,
    start=_start,
    features=_features,
    finish=_finish,
    prepare=baseline.BASELINE.prepare,
    gradient=baseline.BASELINE.gradient,
    captured=False,
    mutual=None,
)

DRAGDIFFUSION_BASELINE: Method[Any, Any, Any, Any, Any] = _restated(
    DRAGDIFFUSION,
    name="dragdiffusion-baseline",
    source="The published implementation of Shi et al. (CVPR 2024), as it executes",
    begin=baseline.BASELINE.begin,
    follow=baseline.BASELINE.follow,
    finished=baseline.BASELINE.finished,
    supervise=_supervise,
)

FREEDRAG_BASELINE: Method[Any, Any, Any, Any, Any] = _restated(
    FREEDRAG,
    name="freedrag-baseline",
    source="The published implementation of Ling et al. (CVPR 2024), as it executes",
    follow=_follow_waypoints,
    supervise=_supervise_waypoints,
)

_written_out = partial(replace, prepare=baseline.BASELINE_PLAIN.prepare)

DRAGDIFFUSION_BASELINE_PLAIN = _written_out(
    DRAGDIFFUSION_BASELINE, name="dragdiffusion-baseline-plain"
)
FREEDRAG_BASELINE_PLAIN = _written_out(FREEDRAG_BASELINE, name="freedrag-baseline-plain")
