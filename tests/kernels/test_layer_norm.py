"""The fused layer normalisation equals PyTorch's in float64, value and gradient.

On the CPU by the formula, and the GPU's kernels interpreted.
"""

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dragnoise.kernels.layer_norm import added_layer_norm, layer_norm
from tolerances import assert_close

SHAPES = {
    "tokens": (2, 9, 24),
    "rows that end within a tile": (1, 131, 40),
    "a width that is no power of two": (1, 3, 77),
    "channels alone": (6,),
    "rows wider than a tile": (2, 2050),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
every_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str
)
EPS = 1e-5
_FORWARD = torch.ops.dragnoise.layer_norm.default
_ADDED = torch.ops.dragnoise.added_layer_norm.default
_GRADIENT = torch.ops.dragnoise.layer_norm_gradient.default


def inputs(shape: tuple[int, ...], dtype: torch.dtype, mean: float = 0.5) -> list[Tensor]:
    """change, x, weight, bias, and the gradients of s and y."""
    torch.manual_seed(sum(shape))
    change, x, *along = torch.randn(4, *shape).to(dtype).unbind()
    weight, bias = torch.randn(2, shape[-1]).to(dtype).unbind()
    return [change, x + mean, weight + 1, bias, *along]


def truth(
    total: Tensor, weight: Tensor, bias: Tensor, along: Tensor, elsewhere: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """y and the gradient of s, by PyTorch in float64."""
    leaf = total.detach().double().requires_grad_()
    y = F.layer_norm(leaf, weight.shape, weight.double(), bias.double(), EPS)
    (gradient,) = torch.autograd.grad(y, leaf, along.double())
    return y.detach(), gradient if elsewhere is None else gradient + elsewhere.double()


def check(y: Tensor, gradient: Tensor, expected: tuple[Tensor, Tensor], dtype: torch.dtype) -> None:
    for mine, true in zip((y, gradient), expected, strict=True):
        assert mine.dtype == dtype
        assert mine.is_contiguous()
        scale = true.abs().max().clamp(min=1)
        assert_close(mine / scale, true / scale, dtype)


@every_shape
@every_dtype
def test_on_the_cpu(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    change, x, weight, bias, elsewhere, along = inputs(shape, dtype)
    leaf = x.clone().requires_grad_()
    y = layer_norm(leaf, weight, bias, EPS)
    (gradient,) = torch.autograd.grad(y, leaf, along)
    check(y.detach(), gradient, truth(x, weight, bias, along), dtype)

    leaves = [change.clone().requires_grad_(), leaf]
    total, y = added_layer_norm(leaves[0], leaf, weight, bias, EPS)
    assert torch.equal(total, change + x)
    of_change, of_x = torch.autograd.grad([total, y], leaves, [elsewhere, along])
    assert torch.equal(of_change, of_x)
    check(y.detach(), of_x, truth(total, weight, bias, along, elsewhere), dtype)


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or torch.cuda.is_available(),
    reason="interpreted only where Triton is installed and no CUDA device is",
)
@every_shape
@every_dtype
def test_the_gpus_kernels_interpreted(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    from dragnoise.kernels.gpu import layer_norm as gpu

    change, x, weight, bias, elsewhere, along = inputs(shape, dtype)
    y = gpu.forward(x, weight, bias, EPS)
    gradient = gpu.backward(along, None, x, weight, EPS)
    check(y, gradient, truth(x, weight, bias, along), dtype)

    total, y = gpu.added_forward(change, x, weight, bias, EPS)
    assert_close(total, change + x)  # the interpreter cuts bfloat16 off where a GPU rounds
    gradient = gpu.backward(along, elsewhere, total, weight, EPS)
    check(y, gradient, truth(total, weight, bias, along, elsewhere), dtype)


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or torch.cuda.is_available(),
    reason="interpreted only where Triton is installed and no CUDA device is",
)
def test_a_mean_far_from_zero_interpreted() -> None:
    """Sums of plain squares would lose the variance: 1e8 and 1 do not fit into one float32."""
    from dragnoise.kernels.gpu import layer_norm as gpu

    _, x, weight, bias, _, along = inputs((1, 9, 40), torch.float32, 1e4)
    expected, _ = truth(x, weight, bias, along)
    assert float((gpu.forward(x, weight, bias, EPS) - expected).abs().max()) < 5e-3


def test_one_result_alone() -> None:
    """Whatever gets no gradient counts as zero."""
    change, x, weight, bias, elsewhere, along = inputs((2, 3, 8), torch.float32)
    leaf = x.clone().requires_grad_()
    total, y = added_layer_norm(change, leaf, weight, bias, EPS)
    (gradient,) = torch.autograd.grad(y, leaf, along, retain_graph=True)
    check(y.detach(), gradient, truth(total, weight, bias, along), torch.float32)
    (gradient,) = torch.autograd.grad(total, leaf, elsewhere)
    assert torch.equal(gradient, elsewhere)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": torch.zeros(2, 0)}, r"no side 0, got \[2, 0\]"),
        ({"bias": torch.zeros(7)}, r"must be \[8\], got \[8\] and \[7\]"),
        ({"weight": torch.zeros(8, requires_grad=True)}, "must be frozen"),
        ({"change": torch.zeros(3, 8)}, r"as x, \[2, 8\] of torch.float32, got \[3, 8\]"),
        ({"change": torch.zeros(2, 8).half()}, "got .* of torch.float16"),
    ],
)
def test_refusals(change: dict[str, Tensor], words: str) -> None:
    given = {name: torch.zeros(2, 8) for name in ("change", "x")}
    given |= {name: torch.zeros(8) for name in ("weight", "bias")}
    with pytest.raises(ValueError, match=words):
        added_layer_norm(**(given | change), eps=EPS)


def test_operators() -> None:
    for dtype in (torch.float32, torch.float64):
        change, x, weight, bias, elsewhere, along = inputs((2, 3, 8), dtype)
        torch.library.opcheck(_FORWARD, (x.clone().requires_grad_(), weight, bias, EPS))
        leaves = (change.clone().requires_grad_(), x.clone().requires_grad_())
        torch.library.opcheck(_ADDED, (*leaves, weight, bias, EPS))
        for more in (None, elsewhere):
            torch.library.opcheck(_GRADIENT, (along, more, x, weight, EPS))


@pytest.mark.gpu
@every_dtype
@pytest.mark.parametrize("shape", [(1, 4096, 320), (2, 1024, 640), (1, 64, 1280)], ids=str)
def test_on_cuda(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    given = (one.cuda() for one in inputs(shape, dtype))
    change, x, weight, bias, elsewhere, along = given
    leaf = x.clone().requires_grad_()
    y = layer_norm(leaf, weight, bias, EPS)
    (gradient,) = torch.autograd.grad(y, leaf, along)
    check(y.detach(), gradient, truth(x, weight, bias, along), dtype)
    total, y = added_layer_norm(change, leaf, weight, bias, EPS)
    assert torch.equal(total, change + x)
    (gradient,) = torch.autograd.grad([total, y], leaf, [elsewhere, along])
    check(y.detach(), gradient, truth(total, weight, bias, along, elsewhere), dtype)
