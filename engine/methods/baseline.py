"""The published DragNoise as its implementation executes it (commit 1072731), restated plainly.

It is what every ratio is measured against. The numbers are `dragnoise`'s; the work is the published code's, neither more nor less:

invert       one whole pass a step; time embedding, keys and values anew at every pass
start        a reference pass of its own, which iteration 0 repeats bit for bit
features     the whole network in every iteration; the middle block runs and its output is replaced; the feature map is upsampled as a whole
gradient     no weight is frozen: every weight that the loss depends on gets its gradient in every iteration, added up and never cleared
follow       point by point, the nearest position read by the host; and so the stop condition
propagate    two equal images, of which one is kept; the middle block runs; nothing is reused from the drag
decode       two equal images, of which one is kept

Attention: with an adapter, which its interface trains first, the published code loads it with `load_attn_procs`, and diffusers 0.17.1 then runs
PyTorch's fused attention (`LoRAAttnProcessor2_0`, where PyTorch has it; the pinned 2.0.0 has). Without one it calls `set_default_attn_processor`,
and softmax(Q K^T) V is written out. `baseline` is the former, without the adapter's own low-rank products; `baseline-plain` is the latter, which is
several times slower on many tokens and what the golden numbers were recorded with. Everything is float32 whatever the model's precision. On CUDA the
iterations alone run under autocast, as published, but in bfloat16: float16 needs a gradient scaler, whose skipped updates are no reference.
Left out, being small: text embeddings computed three more times, copies of the bottleneck, printing. At the borders, where the published code fails,
windows and patches are clamped as ours are.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn

from ..diffusion.model import Model
from ..diffusion.unet import Conditioning, Step, UNet
from ..diffusion.weights import frozen_view
from ..drag.method import Forward, Method, Place, Predictor, Scene, Start, State
from ..errors import ConfigError

__all__ = ["BASELINE", "BASELINE_PLAIN"]

_FEATURE_BLOCK = 2
_REACHED = 2.0
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class _Pass:
    """One pass of the network: its output [B, 4, h, w], the features [B, C, h, w], and what the middle block gave [B, C, h, w]."""

    output: Tensor
    features: Tensor
    bottleneck: Tensor


class _WholeUNet(UNet):
    """diffusers' own network, always run as a whole. What it is told is the text embedding itself."""

    def condition(
        self, timesteps: Sequence[int], text: Tensor, guidance: float = 1.0
    ) -> Conditioning:
        """Raises ConfigError for guidance, which the published code does not have."""
        if guidance != 1:
            raise ConfigError(
                f"the method baseline has no guidance, got {guidance:g}; use guidance 1 or another method"
            )
        text = text.to(self.dtype)
        return Conditioning(tuple(timesteps), text, text, text.new_zeros(len(timesteps), 0))

    def __call__(self, latent: Tensor, step: Step) -> Tensor:
        return self.watched(latent, step).output

    def watched(self, latent: Tensor, step: Step, bottleneck: Tensor | None = None) -> _Pass:
        """A pass on a batch of latents, with `bottleneck` in place of the middle block's output where one is given."""
        found: dict[str, Tensor] = {}

        def middle(block: nn.Module, given: Any, output: Tensor) -> Tensor | None:
            found["bottleneck"] = output
            return bottleneck

        def features(block: nn.Module, given: Any, output: Tensor) -> None:
            found["features"] = output

        net = self.network
        hooks = [
            net.mid_block.register_forward_hook(middle),
            net.up_blocks[_FEATURE_BLOCK].register_forward_hook(features),
        ]
        try:
            text = step.text.repeat(latent.shape[0], 1, 1)
            output = net(latent.to(self.dtype), step.timestep, encoder_hidden_states=text).sample
        finally:
            for hook in hooks:
                hook.remove()
        return _Pass(output, **found)


@dataclass(frozen=True, eq=False)
class _Upsampled(Forward):
    """Also the feature map at the supervision resolution [C, H, W] and the previous latent float32 [1, 4, h, w] that eps leads to."""

    upsampled: Tensor
    previous: Tensor

    def detach(self) -> "_Upsampled":
        assert self.noise is not None
        return _Upsampled(
            self.features.detach(),
            self.noise.detach(),
            self.upsampled.detach(),
            self.previous.detach(),
        )


def _prepare(attention: type[Any], model: Model) -> Model:
    """The model in float32, on the same memory where it is that already: the U-Net with trainable weights and that attention, decoding two."""
    network = _in_float32(model.unet.network).requires_grad_()
    network.set_attn_processor(attention())
    vae = _in_float32(model.vae)
    vae.decoder.register_forward_pre_hook(lambda decoder, given: (_twice(given[0]), *given[1:]))
    vae.decoder.register_forward_hook(lambda decoder, given, output: output[1:])
    how = (*model.how, "whole", attention.__name__)
    text = _in_float32(model.text_encoder)
    return replace(
        model, unet=_WholeUNet(network), vae=vae, text_encoder=text, how=how, halves=None
    )


def _in_float32(module: M) -> M:
    plain = frozen_view(module).float()
    for weight in plain.parameters():
        weight.data = weight.detach().contiguous()
    return plain


def _twice(tensor: Tensor) -> Tensor:
    return tensor.repeat(2, *[1] * (tensor.ndim - 1))


def _start(place: Place) -> Start:
    found = cast(_WholeUNet, place.model.unet).watched(place.latent, place.step)
    return Start(None, found.bottleneck.float())


def _features(scene: Scene, constants: None, bottleneck: Tensor) -> Forward:
    with _autocast(scene.latent.device):
        return _look(scene, bottleneck)[0]


def _look(scene: Scene, bottleneck: Tensor | None) -> tuple[_Upsampled, Tensor]:
    """A pass at the drag's step, and the middle block's own output."""
    found = cast(_WholeUNet, scene.model.unet).watched(scene.latent, scene.step, bottleneck)
    upsampled = F.interpolate(found.features, scene.resolution, mode="bilinear")
    noise = scene.schedule.noise(found.output, scene.latent, scene.timestep)
    previous = scene.schedule.denoise(noise, scene.latent, scene.timestep)
    return _Upsampled(found.features, noise, upsampled[0], previous), found.bottleneck


def _autocast(device: torch.device) -> AbstractContextManager[object]:
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def _begin(scene: Scene, reference: Forward) -> State:
    return State(scene.handles)


def _follow(scene: Scene, reference: Forward, seen: Forward, state: State) -> State:
    """Every handle goes to the nearest position of its window, by L1, to its features in the reference pass; the host reads each."""
    before, now = cast(_Upsampled, reference).upsampled, cast(_Upsampled, seen).upsampled.detach()
    radius = scene.config.r_p
    moved = []
    for (row, column), origin in zip(state.handles.tolist(), scene.handles.tolist(), strict=True):
        window = _cut(now, row - radius, column - radius, 2 * radius + 1)
        distances = (before[:, origin[0], origin[1], None, None] - window).abs().sum(0)
        below, right = divmod(int(distances.argmin().item()), 2 * radius + 1)
        moved.append(
            [
                _clamped(row - radius + below, now.shape[1]),
                _clamped(column - radius + right, now.shape[2]),
            ]
        )
    return State(torch.tensor(moved, device=scene.handles.device))


def _finished(scene: Scene, state: State) -> Tensor:
    pairs = zip(state.handles.tolist(), scene.targets.tolist(), strict=True)
    return torch.tensor(
        all(math.dist(*pair) < _REACHED for pair in pairs), device=scene.handles.device
    )


def _supervise(scene: Scene, reference: Forward, seen: Forward, state: State) -> Tensor:
    """The motion loss, and the mask term even where it is nought: the published code always computes it, and its gradient."""
    now, before = cast(_Upsampled, seen), cast(_Upsampled, reference)
    with _autocast(scene.latent.device):
        keep = 0.0 if scene.keep is None else scene.keep
        loss = scene.config.lam * ((now.previous - before.previous) * keep).abs().sum()
        for handle, target in zip(state.handles.tolist(), scene.targets.tolist(), strict=True):
            if math.dist(handle, target) >= _REACHED:
                loss = loss + _motion(now.upsampled, handle, target, scene.config.r_m)
    return loss


def _motion(features: Tensor, handle: list[int], target: list[int], radius: int) -> Tensor:
    """(2 r + 1)^2 * mean |sg[patch at the handle] - bilinear patch one unit nearer to the target| on the map [C, H, W]."""
    distance, size = math.dist(handle, target), 2 * radius + 1
    row, column = (a + (b - a) / distance for a, b in zip(handle, target, strict=True))
    top, left = math.floor(row), math.floor(column)
    below, right = row - top, column - left
    source = _cut(features, handle[0] - radius, handle[1] - radius, size).detach()
    shifted = sum(
        weight * _cut(features, top + down - radius, left + across - radius, size)
        for down, across, weight in (
            (0, 0, (1 - below) * (1 - right)),
            (1, 0, below * (1 - right)),
            (0, 1, (1 - below) * right),
            (1, 1, below * right),
        )
    )
    return size**2 * F.l1_loss(cast(Tensor, shifted), source)


def _cut(features: Tensor, top: int, left: int, size: int) -> Tensor:
    """A window [C, size, size] of a map [C, H, W]; rows and columns outside repeat the border."""
    height, width = features.shape[1:]
    if 0 <= top <= height - size and 0 <= left <= width - size:
        return features[:, top : top + size, left : left + size]
    rows, columns = (
        [_clamped(first + k, last) for k in range(size)]
        for first, last in ((top, height), (left, width))
    )
    return features[:, rows][:, :, columns]


def _clamped(position: int, size: int) -> int:
    return min(max(position, 0), size - 1)


def _gradient(loss: Tensor, bottleneck: Tensor) -> Tensor:
    """Of the bottleneck; the weights' are computed beside it and added to what they hold."""
    loss.backward()
    assert bottleneck.grad is not None
    return bottleneck.grad


def _propagate(scene: Scene, constants: None, bottleneck: Tensor) -> Predictor:
    unet, both = cast(_WholeUNet, scene.model.unet), _twice(bottleneck)

    def noise(index: int, timestep: int, latent: Tensor) -> Tensor:
        held = both if index < scene.config.injected_steps else None
        output = unet.watched(_twice(latent), scene.conditioning.at(timestep), held).output[1:]
        return scene.schedule.noise(output, latent, timestep)

    return noise


BASELINE = Method(
    name="baseline",
    source="The published implementation of Liu et al. (CVPR 2024), as it executes",
    start=_start,
    features=_features,
    begin=_begin,
    follow=_follow,
    finished=_finished,
    supervise=_supervise,
    propagate=_propagate,
    prepare=partial(_prepare, AttnProcessor2_0),
    gradient=_gradient,
    captured=False,
)

BASELINE_PLAIN = replace(BASELINE, name="baseline-plain", prepare=partial(_prepare, AttnProcessor))
