"""The published DragNoise as its implementation executes it (commit 1072731), restated plainly.

It is what every ratio is measured against. The numbers are `dragnoise`'s; the work is the published
code's, neither more nor less:

    invert     one whole pass a step; time embedding, keys and values anew at every pass
    start      a reference pass of its own, which iteration 0 repeats bit for bit
    features   the whole network in every iteration; the middle block runs and its output is
               replaced; the feature map is upsampled as a whole
    gradient   no weight is frozen: every weight that the loss depends on gets its gradient in every
               iteration, added up and never cleared
    follow     point by point, the nearest position read by the host; and so the stop condition
    finish     two equal images, of which one is kept; the middle block runs; nothing is reused from
               the drag
    decode     two equal images, of which one is kept

Attention: with an adapter, which its interface trains first, the published code loads it with
`load_attn_procs`, and diffusers 0.17.1 then runs PyTorch's fused attention
(`LoRAAttnProcessor2_0`, where PyTorch has it; the pinned 2.0.0 has). Without one it calls
`set_default_attn_processor`, and softmax(Q K^T) V is written out. `baseline` is the former, without
the adapter's own low-rank products; `baseline-plain` is the latter, which is several times slower
on many tokens and what the golden numbers were recorded with.

Everything is float32 whatever the model's precision. On CUDA the iterations alone run under
autocast, as published, but in bfloat16: float16 needs a gradient scaler, whose skipped updates are
no reference. Left out, being small: text embeddings computed three more times, copies of the
bottleneck, printing. At the borders, where the published code fails, windows and patches are
clamped as ours are.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn

from ..cache.structure import storable
from ..config import DragConfig
from ..diffusion.model import Model
from ..diffusion.place import Place
from ..diffusion.unet import FEATURE_BLOCK, Conditioning, Step, UNet
from ..diffusion.weights import frozen_view
from ..drag.method import Method, Start, State
from ..drag.scene import Scene
from ..errors import ConfigError
from ..pipelines.diffusion import DIFFUSION
from ..stages import Denoising
from .prediction import Prediction

__all__ = [
    "BASELINE",
    "BASELINE_PLAIN",
    "UpsampledPrediction",
    "autocast",
    "motion_of_all",
    "network",
]

_REACHED = 2.0
M = TypeVar("M", bound=nn.Module)

_Scene: TypeAlias = Scene[Place, DragConfig]


@dataclass(frozen=True, eq=False)
class _Pass:
    """One pass of the whole network.

    Attributes:
        output: [B, 4, h, w].
        features: [B, C, h, w], after the supervised block.
        bottleneck: [B, C, h, w], the middle block's own output.
    """

    output: Tensor
    features: Tensor
    bottleneck: Tensor


class _WholeUNet(UNet):
    """The network of diffusers, always run as a whole and told the text embedding itself."""

    def condition(
        self, timesteps: Sequence[int], text: Tensor, guidance: float = 1.0
    ) -> Conditioning:
        """Return the text as it is. Raises ConfigError for guidance, which is not published."""
        if guidance != 1:
            raise ConfigError(
                f"the method baseline has no guidance, got {guidance:g}; "
                "use guidance 1 or another method"
            )
        text = text.to(self.dtype)
        return Conditioning(tuple(timesteps), text, text, text.new_zeros(len(timesteps), 0))

    def __call__(self, latent: Tensor, step: Step) -> Tensor:
        return self.watched(latent, step).output

    def watched(self, latent: Tensor, step: Step, bottleneck: Tensor | None = None) -> _Pass:
        """Run a pass on a batch of latents.

        Args:
            bottleneck: Put in place of the middle block's output, which is computed all the same.
        """
        maps: dict[str, Tensor] = {}

        def middle(block: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
            maps["bottleneck"] = output
            return bottleneck

        def features(block: nn.Module, inputs: Any, output: Tensor) -> None:
            maps["features"] = output

        net = self.network
        hooks = [
            net.mid_block.register_forward_hook(middle),
            net.up_blocks[FEATURE_BLOCK].register_forward_hook(features),
        ]
        try:
            text = step.text.repeat(latent.shape[0], 1, 1)
            output = net(latent.to(self.dtype), step.timestep, encoder_hidden_states=text).sample
        finally:
            for hook in hooks:
                hook.remove()
        return _Pass(output, **maps)


@storable
@dataclass(frozen=True, eq=False)
class UpsampledPrediction(Prediction):
    """A forward pass with the map upsampled as a whole.

    Attributes:
        noise: float32 [1, 4, h, w].
        upsampled: The feature map at the supervision resolution [C, H, W].
        stepped: The latent one denoising step on that eps leads to, float32 [1, 4, h, w].
    """

    noise: Tensor
    upsampled: Tensor
    stepped: Tensor


def _prepare(attention: type[Any], model: Model) -> Model:
    """Return the model in float32, with trainable weights and that attention, decoding two.

    It lies on the same memory where it is float32 already.
    """
    network = _in_float32(model.unet.network).requires_grad_()
    network.set_attn_processor(attention())
    vae = _in_float32(model.vae)
    vae.decoder.register_forward_pre_hook(lambda decoder, inputs: (_twice(inputs[0]), *inputs[1:]))
    vae.decoder.register_forward_hook(lambda decoder, inputs, output: output[1:])
    how = (*model.how, "whole", attention.__name__)
    text = _in_float32(model.text_encoder)
    unet = _WholeUNet(network)
    return replace(model, unet=unet, vae=vae, text_encoder=text, how=how, halves=None)


def _in_float32(module: M) -> M:
    plain = frozen_view(module).float()
    for weight in plain.parameters():
        weight.data = weight.detach().contiguous()
    return plain


def _twice(tensor: Tensor) -> Tensor:
    return tensor.repeat(2, *[1] * (tensor.ndim - 1))


def network(place: Place) -> _WholeUNet:
    unet = place.model.unet
    assert isinstance(unet, _WholeUNet), "the model was not prepared for this method"
    return unet


def _start(place: Place) -> Start[None]:
    first = network(place).watched(place.latent, place.step)
    return Start(None, first.bottleneck.float())


def _features(scene: _Scene, constants: None, bottleneck: Tensor) -> UpsampledPrediction:
    place = scene.place
    with autocast(place.latent.device):
        seen = network(place).watched(place.latent, place.step, bottleneck)
        upsampled = F.interpolate(seen.features, scene.resolution, mode="bilinear")
        noise = place.schedule.noise(seen.output, place.latent, place.timestep)
        stepped = place.schedule.denoise(noise, place.latent, place.timestep)
    return UpsampledPrediction(seen.features, noise, upsampled[0], stepped)


def autocast(device: torch.device) -> AbstractContextManager[object]:
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def _begin(scene: _Scene, reference: UpsampledPrediction) -> State:
    return State(scene.handles)


def _follow(
    scene: _Scene, reference: UpsampledPrediction, forward: UpsampledPrediction, state: State
) -> State:
    """Move every handle to the nearest position (L1) of its window; the host reads each."""
    before = reference.upsampled
    now = forward.upsampled.detach()
    radius = scene.settings.r_p
    side = 2 * radius + 1
    moved = []
    for (row, column), origin in zip(state.handles.tolist(), scene.handles.tolist(), strict=True):
        window = _cut(now, row - radius, column - radius, side)
        distances = (before[:, origin[0], origin[1], None, None] - window).abs().sum(0)
        below, right = divmod(int(distances.argmin().item()), side)
        moved.append(
            [
                _clamped(row - radius + below, now.shape[1]),
                _clamped(column - radius + right, now.shape[2]),
            ]
        )
    return State(torch.tensor(moved, device=scene.handles.device))


def _finished(scene: _Scene, state: State) -> Tensor:
    pairs = zip(state.handles.tolist(), scene.targets.tolist(), strict=True)
    reached = all(math.dist(*pair) < _REACHED for pair in pairs)
    return torch.tensor(reached, device=scene.handles.device)


def _supervise(
    scene: _Scene, reference: UpsampledPrediction, forward: UpsampledPrediction, state: State
) -> Tensor:
    """Return the motion loss and the mask term.

    The mask term is computed even where it is zero, with its gradient: so does the published code.
    """
    with autocast(scene.place.latent.device):
        keep = 0.0 if scene.keep is None else scene.keep
        moved = (forward.stepped - reference.stepped) * keep
        return scene.settings.lam * moved.abs().sum() + motion_of_all(scene, forward, state)


def motion_of_all(scene: Scene[Place, Any], forward: UpsampledPrediction, state: State) -> Tensor:
    """Return the motion loss of all points, of which the host reads where they are."""
    loss = forward.upsampled[0, 0, 0] * 0  # with a gradient even where every handle has arrived
    pairs = zip(state.handles.tolist(), scene.targets.tolist(), strict=True)
    for handle, target in pairs:
        if math.dist(handle, target) >= _REACHED:
            loss = loss + _motion(forward.upsampled, handle, target, scene.settings.r_m)
    return loss


def _motion(features: Tensor, handle: list[int], target: list[int], radius: int) -> Tensor:
    """Return (2 r + 1)^2 * mean |sg[patch at the handle] - bilinear patch one unit nearer|.

    Args:
        features: The map [C, H, W].
    """
    distance = math.dist(handle, target)
    size = 2 * radius + 1
    row, column = (a + (b - a) / distance for a, b in zip(handle, target, strict=True))
    top = math.floor(row)
    left = math.floor(column)
    below = row - top
    right = column - left
    source = _cut(features, handle[0] - radius, handle[1] - radius, size).detach()
    corners = (
        (0, 0, (1 - below) * (1 - right)),
        (1, 0, below * (1 - right)),
        (0, 1, (1 - below) * right),
        (1, 1, below * right),
    )
    shifted = torch.zeros_like(source)
    for number, (down, across, weight) in enumerate(corners):
        corner = weight * _cut(features, top + down - radius, left + across - radius, size)
        shifted = corner if number == 0 else shifted + corner
    return size**2 * F.l1_loss(shifted, source)


def _cut(features: Tensor, top: int, left: int, size: int) -> Tensor:
    """Return a window [C, size, size] of a map [C, H, W]; outside, the border is repeated."""
    height, width = features.shape[1:]
    if 0 <= top <= height - size and 0 <= left <= width - size:
        return features[:, top : top + size, left : left + size]
    rows = [_clamped(top + k, height) for k in range(size)]
    columns = [_clamped(left + k, width) for k in range(size)]
    return features[:, rows][:, :, columns]


def _clamped(position: int, size: int) -> int:
    return min(max(position, 0), size - 1)


def _gradient(loss: Tensor, bottleneck: Tensor) -> Tensor:
    """Return the bottleneck's gradient; the weights' are computed and added to what they hold."""
    loss.backward()
    assert bottleneck.grad is not None
    return bottleneck.grad


def _finish(scene: _Scene, constants: None, bottleneck: Tensor) -> Denoising:
    place = scene.place
    unet = network(place)
    both = _twice(bottleneck)

    def noise(index: int, timestep: int, latent: Tensor) -> Tensor:
        held = both if index < scene.settings.injected_steps else None
        output = unet.watched(_twice(latent), place.conditioning.at(timestep), held).output[1:]
        return place.schedule.noise(output, latent, timestep)

    return Denoising(place.latent, noise)


def _preview(
    scene: _Scene, constants: None, bottleneck: Tensor, forward: UpsampledPrediction
) -> Tensor:
    return forward.clean(scene.place)


BASELINE = Method(
    name="baseline",
    source="The published implementation of Liu et al. (CVPR 2024), as it executes",
    pipeline=DIFFUSION,
    settings=DragConfig,
    start=_start,
    features=_features,
    begin=_begin,
    follow=_follow,
    finished=_finished,
    supervise=_supervise,
    finish=_finish,
    preview=_preview,
    prepare=partial(_prepare, AttnProcessor2_0),
    gradient=_gradient,
    captured=False,
)

BASELINE_PLAIN = replace(BASELINE, name="baseline-plain", prepare=partial(_prepare, AttnProcessor))
