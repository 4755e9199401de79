"""Measure every kernel beside its formula, alternately: cases are data, with a reason each.

Inputs are the same in every round. On CUDA a call is captured once and replayed, because an edit
replays its graphs, and launching by Python would cost more than the kernels; caches are emptied
before each replay, because in an edit a kernel's inputs have just been written by others.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from dragnoise.engine.backends.packed import PACKED_OPERATORS, objections_to
from dragnoise.engine.diffusion.unet import ConvWeight
from dragnoise.engine.diffusion.unet.operators import Conv, gated, sdpa
from dragnoise.engine.system.cuda_graphs import graph_on
from dragnoise.engine.system.incoming import first_line
from dragnoise.kernels import adam, group_norm_silu, latent_term, patch_motion, point_tracking
from dragnoise.kernels.attention import attention
from dragnoise.kernels.geglu import geglu
from dragnoise.kernels.layer_norm import added_layer_norm
from dragnoise.kernels.relax import reference as relax_by_formula
from dragnoise.kernels.relax import relax
from dragnoise.kernels.splat import reference as splat_by_formula
from dragnoise.kernels.splat import splat

from .timing import Spread, alternating, cold, ratio

__all__ = ["CASES", "Case", "measure"]

Pair: TypeAlias = tuple[Callable[[], object], Callable[[], object]]
"""A formula and a kernel: two calls that do the same."""

Make: TypeAlias = Callable[[torch.device, torch.dtype], Pair]
"""Makes the two calls of a case, with their inputs, on a device and in a precision."""


@dataclass(frozen=True)
class Case:
    """A case to measure.

    Attributes:
        kernel: The kernel's name.
        why: The reason for the shape.
        make: Makes formula and kernel.
        objections: Lists why the kernel cannot run on a device in a precision; empty if it can.
    """

    kernel: str
    why: str
    make: Make
    objections: Callable[[torch.device, torch.dtype], list[str]] = lambda device, dtype: []


def _map(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(shape, device=device).to(dtype, memory_format=torch.channels_last)


def _points(count: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    handles, targets = (torch.randint(8, size - 8, (count, 2), device=device) for _ in range(2))
    return handles, targets


def _plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Average the values by the softmax of all products, which are kept as a whole."""
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1)
    attended: Tensor = (weights @ value).transpose(1, 2)
    return attended


def _both_ways(run: Callable[[Tensor], Tensor], tensor: Tensor) -> Callable[[], object]:
    """Return a call of the forward pass and of the input's gradient."""

    def call() -> object:
        leaf = tensor.detach().requires_grad_()
        output = run(leaf)
        return torch.autograd.grad(output, leaf, torch.ones_like(output))

    return call


def _motion(channels: int, side: int, points: int) -> Make:
    def make(device: torch.device, dtype: torch.dtype) -> Pair:
        features = _map((1, channels, side, side), device, dtype)
        handles, targets = _points(points, 4 * side, device)
        size = (4 * side, 4 * side)

        def run(loss: Callable[..., Tensor]) -> Callable[[], object]:
            return _both_ways(lambda leaf: loss(leaf[0], handles, targets, size, 1), features)

        return run(patch_motion.reference_loss), run(patch_motion.motion_loss)

    return make


def _tracking(channels: int, side: int, points: int) -> Make:
    def make(device: torch.device, dtype: torch.dtype) -> Pair:
        features = _map((1, channels, side, side), device, dtype)[0]
        handles, targets = _points(points, 4 * side, device)
        size = (4 * side, 4 * side)
        origins = patch_motion.patches(features, handles, size, 0)[:, :, 0, 0]
        inputs = (features, origins, handles, targets, size, 3)
        return partial(point_tracking.reference, *inputs), partial(point_tracking.track, *inputs)

    return make


def _latent(device: torch.device, dtype: torch.dtype) -> Pair:
    noise, reference = torch.randn(2, 1, 4, 64, 64, device=device).unbind()
    keep = (torch.rand(1, 1, 64, 64, device=device) > 0.5).float()

    def plain(leaf: Tensor) -> Tensor:
        return 0.2 * (-0.3 * (leaf - reference) * keep).abs().sum()

    def fused(leaf: Tensor) -> Tensor:
        return latent_term.latent_term(leaf, reference, keep, -0.3, 0.2)

    return _both_ways(plain, noise), _both_ways(fused, noise)


def _splat(device: torch.device, dtype: torch.dtype) -> Pair:
    torch.manual_seed(0)
    values, behind = torch.randn(2, 1, 4, 64, 64, device=device).unbind()
    shift = 5 * torch.randn(2, 64, 64, device=device)
    weight, blend = torch.rand(2, 1, 1, 64, 64, device=device).unbind()
    editable = torch.rand(64, 64, device=device) > 0.25
    inputs = (values, shift, weight[0, 0], editable, behind, blend)
    return partial(splat_by_formula, *inputs), partial(splat, *inputs)


def _relax(device: torch.device, dtype: torch.dtype) -> Pair:
    torch.manual_seed(0)
    values, start = torch.randn(2, 3, 64, 64, device=device).unbind()
    inputs = (values, torch.rand(64, 64, device=device) < 0.1, start, 40)
    return partial(relax_by_formula, *inputs), partial(relax, *inputs)


def _adam(device: torch.device, dtype: torch.dtype) -> Pair:
    def buffers() -> tuple[Any, ...]:
        variable, gradient, first, second = torch.randn(4, 1, 1280, 8, 8, device=device).unbind()
        step = torch.ones((), dtype=torch.int64, device=device)
        done = torch.zeros((), dtype=torch.bool, device=device)
        return variable, gradient, first, second.abs(), variable.to(dtype), step, done, 0.02

    return partial(adam.reference, *buffers()), partial(adam.adam_step, *buffers())


def _norm(channels: int, side: int, groups: int, gradient: bool) -> Make:
    def make(device: torch.device, dtype: torch.dtype) -> Pair:
        x = _map((1, channels, side, side), device, dtype)
        weight = torch.ones(channels, device=device, dtype=dtype)

        def plain(leaf: Tensor) -> Tensor:
            return F.silu(F.group_norm(leaf, groups, weight, weight, 1e-5))

        def fused(leaf: Tensor) -> Tensor:
            return group_norm_silu.group_norm_silu(leaf, groups, weight, weight, 1e-5)

        if gradient:
            return _both_ways(plain, x), _both_ways(fused, x)
        return partial(plain, x), partial(fused, x)

    return make


def _added_norm(channels: int, side: int, gradient: bool) -> Make:
    """A residual block's end: the map, its change and a bias added up and normed."""

    def make(device: torch.device, dtype: torch.dtype) -> Pair:
        x, change = (_map((1, channels, side, side), device, dtype) for _ in range(2))
        plus = torch.randn(1, channels, 1, 1, device=device).to(dtype)
        weight = torch.ones(channels, device=device, dtype=dtype)

        def plain(leaf: Tensor) -> Tensor:
            total = leaf + plus + change
            return total + F.silu(F.group_norm(total, 32, weight, weight, 1e-5))

        def fused(leaf: Tensor) -> Tensor:
            total, normed = group_norm_silu.added_group_norm_silu(
                leaf, 32, weight, weight, 1e-5, change=change, plus=plus
            )
            return total + normed

        if gradient:
            return _both_ways(plain, x), _both_ways(fused, x)
        return partial(plain, x), partial(fused, x)

    return make


def _conv(channels: int, side: int) -> Make:
    def make(device: torch.device, dtype: torch.dtype) -> Pair:
        x = _map((1, channels, side, side), device, dtype)
        weight = _map((channels, channels, 3, 3), device, dtype)
        plain = Conv(weight.contiguous(), None, 1, 1)
        packed = PACKED_OPERATORS.conv(ConvWeight.of(weight), None, 1, 1)
        return partial(plain, x.contiguous()), partial(packed, x)

    return make


def _attention(tokens: int, heads: int, width: int) -> Make:
    def make(device: torch.device, dtype: torch.dtype) -> Pair:
        x = torch.randn(1, tokens, heads, width, device=device).to(dtype)

        def plain(leaf: Tensor) -> Tensor:
            return _plain_attention(leaf, leaf, leaf)

        def fused(leaf: Tensor) -> Tensor:
            return sdpa(leaf, leaf, leaf)

        return _both_ways(plain, x), _both_ways(fused, x)

    return make


def _deterministic(tokens: int, heads: int, width: int) -> Make:
    def make(device: torch.device, dtype: torch.dtype) -> Pair:
        x = torch.randn(1, tokens, heads, width, device=device).to(dtype)
        return (
            _both_ways(lambda leaf: sdpa(leaf, leaf, leaf), x),
            _both_ways(lambda leaf: attention(leaf, leaf, leaf), x),
        )

    return make


def _fixed_keys(tokens: int, heads: int, width: int) -> Make:
    def make(device: torch.device, dtype: torch.dtype) -> Pair:
        x = torch.randn(1, tokens, heads, width, device=device).to(dtype)
        key, value = torch.randn(2, 1, 77, heads, width, device=device).to(dtype).unbind()
        return (
            _both_ways(lambda leaf: sdpa(leaf, key, value), x),
            _both_ways(lambda leaf: attention(leaf, key, value), x),
        )

    return make


def _on_cuda(device: torch.device, dtype: torch.dtype) -> list[str]:
    return [] if device.type == "cuda" else ["only CUDA has a kernel of ours; others run a formula"]


def _gate(tokens: int, channels: int, gradient: bool) -> Make:
    def make(device: torch.device, dtype: torch.dtype) -> Pair:
        torch.manual_seed(0)
        x = torch.randn(1, tokens, 2 * channels, device=device).to(dtype)
        if gradient:
            return _both_ways(gated, x), _both_ways(geglu, x)
        return partial(gated, x), partial(geglu, x)

    return make


def _token_norm(tokens: int, channels: int, gradient: bool) -> Make:
    def make(device: torch.device, dtype: torch.dtype) -> Pair:
        torch.manual_seed(0)
        change, x = torch.randn(2, 1, tokens, channels, device=device).to(dtype).unbind()
        weight = torch.ones(channels, device=device, dtype=dtype)

        def plain(leaf: Tensor) -> Tensor:
            return F.layer_norm(change + leaf, (channels,), weight, weight, 1e-5)

        def fused(leaf: Tensor) -> Tensor:
            return added_layer_norm(change, leaf, weight, weight, 1e-5)[1]

        if gradient:
            return _both_ways(plain, x), _both_ways(fused, x)
        return partial(plain, x), partial(fused, x)

    return make


CASES: tuple[Case, ...] = (
    Case("patch_motion", "one handle, Stable Diffusion at 512: [640, 64, 64]", _motion(640, 64, 1)),
    Case("patch_motion", "eight handles, the same map", _motion(640, 64, 8)),
    Case("patch_motion", "one handle, the golden model at 512: [24, 64, 64]", _motion(24, 64, 1)),
    Case("point_tracking", "one handle, Stable Diffusion at 512", _tracking(640, 64, 1)),
    Case("point_tracking", "eight handles, the same map", _tracking(640, 64, 8)),
    Case("latent_term", "the latent at 512: [4, 64, 64]", _latent),
    Case("splat", "the latent at 512: [4, 64, 64]", _splat),
    Case("relax", "forty sweeps of the field at 512: [3, 64, 64]", _relax),
    Case("adam", "the bottleneck at 512: [1280, 8, 8]", _adam),
    Case("group_norm_silu", "forward, [320, 64, 64]", _norm(320, 64, 32, False)),
    Case("group_norm_silu", "with gradient, [320, 64, 64]", _norm(320, 64, 32, True)),
    Case(
        "group_norm_silu",
        "with gradient, folded: 44 groups of 30, [1320, 16, 16]",
        _norm(1320, 16, 44, True),
    ),
    Case(
        "group_norm_silu",
        "with gradient, the embedded model: [48, 16, 16]",
        _norm(48, 16, 16, True),
    ),
    Case("group_norm_silu", "added, forward, [320, 64, 64]", _added_norm(320, 64, False)),
    Case("group_norm_silu", "added, with gradient, [320, 64, 64]", _added_norm(320, 64, True)),
    Case("layer_norm", "added, forward, 4096 tokens of 320", _token_norm(4096, 320, False)),
    Case("layer_norm", "added, with gradient, 1024 of 640", _token_norm(1024, 640, True)),
    Case("geglu", "forward, 4096 tokens of 1280", _gate(4096, 1280, False)),
    Case("geglu", "with gradient, 1024 tokens of 2560", _gate(1024, 2560, True)),
    Case(
        "packed convolution",
        "large weights, small map: [1280, 8, 8]",
        _conv(1280, 8),
        objections_to,
    ),
    Case("packed convolution", "[640, 32, 32]", _conv(640, 32), objections_to),
    Case("packed convolution", "[320, 64, 64]", _conv(320, 64), objections_to),
    Case("attention, both ways", "4096 tokens, 8 heads of 40", _attention(4096, 8, 40)),
    Case("attention, both ways", "1024 tokens, 8 heads of 80", _attention(1024, 8, 80)),
    Case("attention, both ways", "256 tokens, 8 heads of 160", _attention(256, 8, 160)),
    Case(
        "attention",
        "our gradients beside PyTorch's: 4096 tokens, 8 heads of 40",
        _deterministic(4096, 8, 40),
        _on_cuda,
    ),
    Case(
        "attention",
        "our gradients beside PyTorch's: 256 tokens, 8 heads of 160",
        _deterministic(256, 8, 160),
        _on_cuda,
    ),
    Case(
        "attention",
        "a text's fixed keys, our gradients: 4096 tokens, 8 heads of 40",
        _fixed_keys(4096, 8, 40),
        _on_cuda,
    ),
)


def measure(
    device: torch.device,
    dtype: torch.dtype,
    rounds: int,
    *,
    watch: Callable[[str], object] = lambda what: None,
) -> Iterator[Mapping[str, Any]]:
    """Measure every case that the device can run; yield its figures as the record holds them."""
    before = cold(device) if device.type == "cuda" else None
    for case in CASES:
        if case.objections(device, dtype):
            continue
        watch(f"{case.kernel}: {case.why}")
        contenders = dict(zip(("formula", "kernel"), case.make(device, dtype), strict=True))
        launched = _capture(contenders, device)
        times = alternating(contenders, device, rounds, before=before)
        yield {
            "kernel": case.kernel,
            "case": case.why,
            "launched": launched,
            "formula_ms": Spread.of(times["formula"]).to_dict(),
            "kernel_ms": Spread.of(times["kernel"]).to_dict(),
            "ratio": ratio(times["formula"], times["kernel"]).to_dict(),
        }


def _capture(contenders: dict[str, Callable[[], object]], device: torch.device) -> dict[str, str]:
    """Put graphs in the place of calls; return why some are launched by Python as they are."""
    launched = {}
    for name, run in contenders.items():
        try:
            contenders[name] = _graph(run, device)
        except RuntimeError as refused:
            launched[name] = first_line(refused)
    return launched


def _graph(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """Return the graph of a call that has run before; its results stay where they are."""
    kept = [run()]

    def work() -> None:
        kept[0] = run()

    return graph_on(device)(work)
