"""The fused normalisation equals the reference, value and gradient, in every layout and precision.

On the CPU, and the GPU's kernels interpreted.
"""

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dragnoise.kernels.group_norm_silu import (
    added_group_norm_silu,
    group_norm_silu,
    reference,
    reference_gradient,
    summed,
)
from tolerances import assert_close

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
SHAPES = {
    "groups of two": (1, 8, 4, 6, 4),
    "groups that are no power of two": (1, 30, 3, 5, 6),
    "one group": (1, 6, 4, 4, 1),
    "a group a channel": (1, 5, 7, 3, 5),
    "a batch": (3, 12, 4, 5, 3),
    "one place": (2, 8, 1, 1, 2),
    "several blocks of places": (1, 4, 19, 11, 2),
}
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
every_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str
)
EPS = 1e-5
_FORWARD = torch.ops.dragnoise.group_norm_silu.default
_ADDED = torch.ops.dragnoise.added_group_norm_silu.default
_GRADIENT = torch.ops.dragnoise.group_norm_silu_gradient.default


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, mean: float = 0.5
) -> list[Tensor]:
    """x, weight, bias, and a gradient of y."""
    torch.manual_seed(sum(shape))
    *size, _ = shape
    x = (torch.randn(size) + mean).to(dtype).contiguous(memory_format=layout)
    return [
        x,
        (torch.randn(size[1]) + 1).to(dtype),
        torch.randn(size[1]).to(dtype),
        torch.randn(size).to(dtype),
    ]


def truth(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, along: Tensor, silu: bool
) -> tuple[Tensor, Tensor]:
    """y and the gradient of x, by PyTorch in float64."""
    leaf = x.detach().double().requires_grad_()
    y = F.group_norm(leaf, groups, weight.double(), bias.double(), EPS)
    y = F.silu(y) if silu else y
    (gradient,) = torch.autograd.grad(y, leaf, along.double())
    return y.detach(), gradient


def added(x: Tensor, others: int) -> Iterator[tuple[Tensor | None, Tensor | None, Tensor | None]]:
    """Yield (change, plus, beside): each kind of what is added, alone and all together."""
    batch, channels, *size = x.shape
    layout = torch.channels_last
    layout = layout if x.is_contiguous(memory_format=layout) else torch.contiguous_format
    change = torch.randn(x.shape).to(x.dtype).contiguous(memory_format=layout)
    beside = torch.randn(batch, others, *size).to(x.dtype).contiguous(memory_format=layout)
    pluses = [
        torch.randn(1, channels, 1, 1).to(x.dtype),
        torch.randn(batch, channels, 1, 1).to(x.dtype),
        torch.randn(1, channels, *size).contiguous(memory_format=layout),
        torch.randn(batch, channels, *size).to(x.dtype).contiguous(memory_format=layout),
    ]
    yield change, None, None
    yield None, None, beside
    for plus in pluses:
        yield None, plus, None
        yield change, plus, beside


def strides(x: Tensor) -> list[int]:
    """Return the strides that mean something."""
    return [stride for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1]


def check(y: Tensor, gradient: Tensor, x: Tensor, expected: tuple[Tensor, Tensor]) -> None:
    assert y.dtype == gradient.dtype == x.dtype
    assert strides(y) == strides(gradient) == strides(x)
    assert_close(y, expected[0], x.dtype)
    scale = expected[1].abs().max().clamp(min=1)
    assert_close(gradient / scale, expected[1] / scale, x.dtype)


@every_layout
@every_shape
@every_dtype
@pytest.mark.parametrize("silu", [True, False], ids=["with SiLU", "alone"])
def test_on_the_cpu(
    shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, silu: bool
) -> None:
    x, weight, bias, along = inputs(shape, dtype, layout)
    leaf = x.clone().requires_grad_()
    y = group_norm_silu(leaf, shape[-1], weight, bias, EPS, silu)
    (gradient,) = torch.autograd.grad(y, leaf, along)
    check(y.detach(), gradient, x, truth(x, shape[-1], weight, bias, along, silu))
    plain, statistics = reference(x, weight, bias, shape[-1], EPS, silu)
    assert_close(plain, y.detach())
    slope = reference_gradient(along, None, x, weight, bias, statistics, silu)
    check(plain, slope, x, truth(x, shape[-1], weight, bias, along, silu))


@every_layout
@every_shape
@every_dtype
def test_a_sum_on_the_cpu(
    shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    """The sum is rounded once, and every part gets the gradient of it, from y and elsewhere."""
    *_, groups = shape
    x = inputs(shape, dtype, layout)[0]
    for change, plus, beside in added(x, 2 * groups):
        leaves = [x, *(each for each in (change, beside) if each is not None)]
        leaves = [leaf.clone().requires_grad_() for leaf in leaves]
        rest = iter(leaves[1:])
        mine = None if change is None else next(rest)
        others = None if beside is None else next(rest)
        total = summed(x, change, plus, beside)
        _, weight, bias, along = inputs((*total.shape, groups), dtype, layout)
        elsewhere = torch.randn(total.shape).to(dtype)
        s, y = added_group_norm_silu(
            leaves[0], groups, weight, bias, EPS, change=mine, plus=plus, beside=others
        )
        assert torch.equal(s, total)
        assert_close(s, exact_sum(x, change, plus, beside), dtype)
        found = torch.autograd.grad([s, y], leaves, [elsewhere, along])
        of_s = of_sum(total, groups, weight, bias, along, elsewhere)
        own = x.shape[1]
        check(y.detach(), total, s, (of_s[0], total.double()))
        slopes = [of_s[1][:, :own]] + [of_s[1][:, :own]] * (change is not None)
        slopes += [of_s[1][:, own:]] * (beside is not None)
        scale = of_s[1].abs().max().clamp(min=1)
        for slope, true in zip(found, slopes, strict=True):
            assert slope.dtype == dtype
            assert_close(slope / scale, true / scale, dtype)


def exact_sum(
    x: Tensor, change: Tensor | None, plus: Tensor | None, beside: Tensor | None
) -> Tensor:
    total = x.double()
    for more in (change, plus):
        total = total if more is None else total + more.double()
    return total if beside is None else torch.cat([total, beside.double()], dim=1)


def of_sum(
    total: Tensor, groups: int, weight: Tensor, bias: Tensor, along: Tensor, elsewhere: Tensor
) -> tuple[Tensor, Tensor]:
    """y and the gradient of s, in float64."""
    y, gradient = truth(total, groups, weight, bias, along, True)
    return y, gradient + elsewhere.double()


def test_one_result_alone_of_a_sum() -> None:
    """Whatever gets no gradient counts as zero."""
    x, weight, bias, along = inputs((1, 6, 3, 4, 3), torch.float32, torch.channels_last)
    leaf = x.clone().requires_grad_()
    s, y = added_group_norm_silu(leaf, 3, weight, bias, EPS, change=x)
    (of_s,) = torch.autograd.grad(s, leaf, along, retain_graph=True)
    assert torch.equal(of_s, along)
    (of_y,) = torch.autograd.grad(y, leaf, along)
    expected = truth(x + x, 3, weight, bias, along, True)[1]
    assert_close(of_y, expected)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"change": torch.zeros(1, 6, 3, 5)}, r"change must be as x, .*got \[1, 6, 3, 5\]"),
        ({"change": torch.zeros(1, 6, 3, 4).half()}, "change must be as x, .*float16"),
        ({"beside": torch.zeros(2, 6, 3, 4)}, "in its channels alone"),
        ({"beside": torch.zeros(1, 0, 3, 4)}, "in its channels alone"),
        ({"plus": torch.zeros(6)}, r"plus must be \[1 or 1, 6"),
        ({"plus": torch.zeros(1, 6, 3, 1)}, r"got \[1, 6, 3, 1\]"),
        ({"plus": torch.zeros(1, 6, 1, 1, requires_grad=True)}, "plus must be frozen"),
        ({"beside": torch.zeros(1, 1, 3, 4)}, "and 1 channels beside it"),
    ],
)
def test_refusals_of_a_sum(given: dict[str, Any], words: str) -> None:
    weight = torch.ones(6)
    with pytest.raises(ValueError, match=words):
        added_group_norm_silu(torch.zeros(1, 6, 3, 4), 3, weight, weight, EPS, **given)


@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 3),
    groups=st.integers(1, 9),
    width=st.integers(1, 7),
    height=st.integers(1, 17),
    columns=st.integers(1, 17),
    half=st.booleans(),
)
def test_the_native_twin(
    seed: int, batch: int, groups: int, width: int, height: int, columns: int, half: bool
) -> None:
    torch.manual_seed(seed)
    dtype = torch.bfloat16 if half else torch.float32
    shape = (batch, groups * width, height, columns, groups)
    x, weight, bias, along = inputs(shape, dtype, torch.channels_last)
    if (
        groups * height * columns * width > groups
    ):  # a group of one value has no variance to speak of
        leaf = x.clone().requires_grad_()
        y = group_norm_silu(leaf, groups, weight, bias, 0.1)
        (gradient,) = torch.autograd.grad(y, leaf, along)
        exact = x.detach().double().requires_grad_()
        expected = F.silu(F.group_norm(exact, groups, weight.double(), bias.double(), 0.1))
        (true,) = torch.autograd.grad(expected, exact, along.double())
        assert_close(y, expected, dtype)
        scale = true.abs().max().clamp(min=1)
        assert_close(gradient / scale, true / scale, dtype)


@every_layout
@pytest.mark.parametrize(("dtype", "mean"), [(torch.float32, 1e4), (torch.bfloat16, 100.0)])
def test_a_mean_far_from_zero(dtype: torch.dtype, mean: float, layout: torch.memory_format) -> None:
    """Plain sums of squares would lose the variance: 1e8 and 1 do not fit into one float32."""
    shape = (1, 8, 9, 8, 2)
    x, weight, bias, along = inputs(shape, dtype, layout, mean)
    y = group_norm_silu(x, 2, weight, bias, EPS)
    expected, _ = truth(x, 2, weight, bias, along, True)
    assert float((y.double() - expected).abs().max()) < (5e-3 if dtype == torch.float32 else 5e-2)


def test_threads_change_no_bit() -> None:
    x, weight, bias, along = inputs((2, 64, 40, 33, 8), torch.float32, torch.channels_last)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y, statistics = _FORWARD(x, weight, bias, 8, EPS, True)
            found.append((y, _GRADIENT(along, None, x, weight, bias, statistics, True, 64)))
    finally:
        torch.set_num_threads(before)
    for y, gradient in found[1:]:
        assert torch.equal(y, found[0][0])
        assert torch.equal(gradient, found[0][1])


def test_extreme_values() -> None:
    """z from -200 to 200: SiLU is 0 below, z above, and never not a number."""
    x = torch.linspace(-1, 1, 64).view(1, 1, 8, 8).contiguous(memory_format=torch.channels_last)
    y = group_norm_silu(x, 1, torch.tensor([120.0]), torch.zeros(1), EPS)
    expected = F.silu(F.group_norm(x.double(), 1, torch.tensor([120.0]).double(), eps=EPS))
    assert_close(y, expected)
    strange = x.clone()
    strange[0, 0, 3, 3] = torch.nan
    assert group_norm_silu(strange, 1, torch.ones(1), torch.zeros(1), EPS).isnan().all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": torch.zeros(1, 8, 4)}, r"x must be \[B, C, H, W\]"),
        ({"x": torch.zeros(1, 8, 0, 4)}, r"no side 0 .*got \[1, 8, 0, 4\]"),
        ({"groups": 3}, "multiple of 3 groups"),
        ({"groups": 0}, "multiple of 0 groups"),
        ({"bias": torch.zeros(7)}, r"must be \[8\], got \[8\] and \[7\]"),
        ({"weight": torch.zeros(8, requires_grad=True)}, "must be frozen"),
    ],
)
def test_refusals(change: dict[str, object], words: str) -> None:
    given = {
        "x": torch.zeros(1, 8, 4, 4),
        "groups": 4,
        "weight": torch.zeros(8),
        "bias": torch.zeros(8),
        "eps": EPS,
    }
    with pytest.raises(ValueError, match=words):
        group_norm_silu(**(given | change))  # type: ignore[arg-type]


@every_layout
def test_operators(layout: torch.memory_format) -> None:
    for dtype in (torch.float32, torch.float64):
        x, weight, bias, along = inputs((2, 6, 3, 4, 3), dtype, layout)
        torch.library.opcheck(_FORWARD, (x.clone().requires_grad_(), weight, bias, 3, EPS, True))
        _, statistics = _FORWARD(x, weight, bias, 3, EPS, True)
        for elsewhere in (None, along):
            given = (along, elsewhere, x, weight, bias, statistics, True)
            for kept in (6, 4):
                torch.library.opcheck(_GRADIENT, (*given, kept))
        for change, plus, beside in added(x, x.shape[1]):
            more = x.shape[1] if beside is None else x.shape[1] + beside.shape[1]
            weights = (weight.new_ones(more), weight.new_ones(more))
            leaf = x.clone().requires_grad_()
            torch.library.opcheck(_ADDED, (leaf, change, plus, beside, *weights, 3, EPS, True))


def test_in_a_compiled_function() -> None:
    x, weight, bias, _ = inputs((1, 8, 4, 4, 4), torch.float32, torch.channels_last)

    def run(x: Tensor) -> Tensor:
        return group_norm_silu(x, 4, weight, bias, EPS).square().sum()

    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    (gradient,) = torch.autograd.grad(compiled(mine), mine)
    (expected,) = torch.autograd.grad(run(theirs), theirs)
    assert torch.equal(gradient, expected)


interpreted = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or torch.cuda.is_available(),
    reason="interpreted only where Triton is installed and no CUDA device is",
)


@interpreted
@every_layout
@every_shape
@every_dtype
@pytest.mark.parametrize("whole", [True, False], ids=["whole groups", "blocks"])
def test_the_gpus_kernels_interpreted(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    layout: torch.memory_format,
    whole: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blocks are of 32 elements, so that maps this small have several."""
    from dragnoise.kernels.gpu import group_norm_silu as gpu

    monkeypatch.setattr(gpu, "ELEMENTS", 32)
    if not whole:
        monkeypatch.setattr(gpu, "WHOLE", 0)
    x, weight, bias, along = inputs(shape, dtype, layout)
    for silu in (True, False):
        s, y, statistics = gpu.forward(x, weight, bias, shape[-1], EPS, silu)
        assert s is x
        gradient = gpu.backward(along, None, x, weight, bias, statistics, silu)
        check(y, gradient, x, truth(x, shape[-1], weight, bias, along, silu))


@interpreted
@every_layout
@every_shape
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("whole", [True, False], ids=["whole groups", "blocks"])
def test_a_sum_interpreted(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    layout: torch.memory_format,
    whole: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dragnoise.kernels.gpu import group_norm_silu as gpu

    monkeypatch.setattr(gpu, "ELEMENTS", 32)
    if not whole:
        monkeypatch.setattr(gpu, "WHOLE", 0)
    *_, groups = shape
    x = inputs(shape, dtype, layout)[0]
    for change, plus, beside in added(x, 2 * groups):
        total = summed(x, change, plus, beside)
        _, weight, bias, along = inputs((*total.shape, groups), dtype, layout)
        elsewhere = torch.randn(total.shape).to(dtype)
        s, y, statistics = gpu.forward(x, weight, bias, groups, EPS, True, change, plus, beside)
        assert torch.equal(s, total)
        assert strides(s) == strides(total)
        expected = of_sum(total, groups, weight, bias, along, elsewhere)
        gradient = gpu.backward(along, elsewhere, total, weight, bias, statistics, True)
        check(y, gradient, total, expected)


@interpreted
@pytest.mark.parametrize("whole", [0, 4096], ids=["blocks", "whole groups"])
def test_a_mean_far_from_zero_interpreted(whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from dragnoise.kernels.gpu import group_norm_silu as gpu

    monkeypatch.setattr(gpu, "ELEMENTS", 32)
    monkeypatch.setattr(gpu, "WHOLE", whole)
    x, weight, bias, along = inputs((1, 8, 9, 8, 2), torch.float32, torch.channels_last, 1e4)
    _, y, _ = gpu.forward(x, weight, bias, 2, EPS, True)
    assert float((y.double() - truth(x, 2, weight, bias, along, True)[0]).abs().max()) < 5e-3


@pytest.mark.gpu
@every_layout
@every_dtype
@pytest.mark.parametrize("size", [(1, 320, 64, 64, 32), (1, 1320, 16, 16, 44), (2, 1280, 8, 8, 32)])
def test_on_cuda(size: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> None:
    x, weight, bias, along = (given.cuda() for given in inputs(size, dtype, layout))
    x = x.contiguous(memory_format=layout)
    leaf = x.clone().requires_grad_()
    y = group_norm_silu(leaf, size[-1], weight, bias, EPS)
    (gradient,) = torch.autograd.grad(y, leaf, along)
    check(y.detach(), gradient, x, truth(x, size[-1], weight, bias, along, True))


@pytest.mark.gpu
@every_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("size", [(1, 320, 64, 64, 32), (1, 1280, 16, 16, 32), (2, 640, 8, 8, 32)])
def test_a_sum_on_cuda(
    size: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    x = inputs(size, dtype, layout)[0]
    for parts in added(x, size[1]):
        change, plus, beside = (None if each is None else each.cuda() for each in parts)
        leaf = x.cuda().requires_grad_()
        total = summed(leaf.detach(), change, plus, beside)
        _, *rest = inputs((*total.shape, size[-1]), dtype, layout)
        weight, bias, along = (given.cuda() for given in rest)
        s, y = added_group_norm_silu(
            leaf, size[-1], weight, bias, EPS, change=change, plus=plus, beside=beside
        )
        assert torch.equal(s, total)
        assert strides(s) == strides(total)
        (found,) = torch.autograd.grad([s, y], leaf, [along, along])
        expected = of_sum(total, size[-1], weight, bias, along, along)
        check(y.detach(), total, total, (expected[0], total.double()))
        own = expected[1][:, : x.shape[1]]
        check(found, found, x, (own, own))
