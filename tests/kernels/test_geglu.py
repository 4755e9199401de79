"""The gate equals PyTorch's operators in float64, value and gradient.

On the CPU by the formula, and the GPU's kernels interpreted.
"""

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dragnoise.kernels.geglu import geglu, reference, reference_gradient
from tolerances import assert_close

SHAPES = {
    "tokens": (2, 9, 24),
    "more channels than a tile": (1, 3, 560),
    "one value": (1, 2),
    "channels alone": (6,),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
every_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str
)
_FORWARD = torch.ops.dragnoise.geglu.default
_GRADIENT = torch.ops.dragnoise.geglu_gradient.default


def inputs(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x, and a gradient of y."""
    torch.manual_seed(sum(shape))
    x = 3 * torch.randn(shape)
    return x.to(dtype), torch.randn(*shape[:-1], shape[-1] // 2).to(dtype)


def check(y: Tensor, slope: Tensor, x: Tensor, along: Tensor) -> None:
    leaf = x.detach().double().requires_grad_()
    hidden, gate = leaf.chunk(2, dim=-1)
    expected = hidden * F.gelu(gate)
    (true,) = torch.autograd.grad(expected, leaf, along.double())
    assert y.dtype == slope.dtype == x.dtype
    assert y.is_contiguous()
    assert slope.is_contiguous()
    assert_close(y, expected.detach(), x.dtype)
    assert_close(slope, true, x.dtype)


@every_shape
@every_dtype
def test_on_the_cpu(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, along = inputs(shape, dtype)
    leaf = x.clone().requires_grad_()
    y = geglu(leaf)
    (slope,) = torch.autograd.grad(y, leaf, along)
    check(y.detach(), slope, x, along)
    check(reference(x), reference_gradient(along, x), x, along)


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or torch.cuda.is_available(),
    reason="interpreted only where Triton is installed and no CUDA device is",
)
@every_shape
@every_dtype
def test_the_gpus_kernels_interpreted(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    from dragnoise.kernels.gpu import geglu as gpu

    x, along = inputs(shape, dtype)
    check(gpu.forward(x), gpu.backward(along, x), x, along)
    wide = torch.cat([x, x], dim=-1)[..., : x.shape[-1]]
    assert torch.equal(gpu.forward(wide), gpu.forward(x))


def test_far_from_zero() -> None:
    """The gate is closed far below zero and open far above, and its slope is never not a number."""
    x = torch.tensor([[2.0, -100.0], [2.0, 100.0]]).requires_grad_()
    y = geglu(x)
    assert y.tolist() == [[0], [200]]
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert slope.tolist() == [[0, 0], [100, 2]]


@pytest.mark.parametrize("shape", [(), (3,), (2, 0)], ids=str)
def test_refusals(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x must be \[..., 2 C\] with no side 0, got \["):
        geglu(torch.zeros(shape))


def test_operators() -> None:
    for dtype in (torch.float32, torch.float64):
        x, along = inputs((2, 3, 8), dtype)
        torch.library.opcheck(_FORWARD, (x.clone().requires_grad_(),))
        torch.library.opcheck(_GRADIENT, (along, x))


@pytest.mark.gpu
@every_dtype
@pytest.mark.parametrize("shape", [(1, 4096, 2560), (2, 64, 10240), (1, 5, 26)], ids=str)
def test_on_cuda(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, along = (one.cuda() for one in inputs(shape, dtype))
    leaf = x.clone().requires_grad_()
    y = geglu(leaf)
    (slope,) = torch.autograd.grad(y, leaf, along)
    check(y.detach(), slope, x, along)
