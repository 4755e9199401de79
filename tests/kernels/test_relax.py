"""Relaxation by every kernel and the formula, against the solution of the linear system."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dragnoise.kernels import _native
from dragnoise.kernels.relax import reference, relax, speeds
from waiting import never_waiting

Relax = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def on_gpu(values: Tensor, fixed: Tensor, start: Tensor, sweeps: int) -> Tensor:
    """The Triton kernel, under its interpreter where there is no GPU."""
    from dragnoise.kernels.gpu.relax import launch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return launch(values.to(device), fixed.to(device), start.to(device), sweeps).cpu()


ALL = pytest.mark.parametrize(
    "function", [relax, reference, on_gpu], ids=["native", "reference", "triton"]
)


def case(
    size: tuple[int, int, int], seed: int, share: float = 0.2
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values, start = torch.randn(2, *size, generator=generator)
    fixed = torch.rand(size[1:], generator=generator) < share
    fixed[0, 0] = True  # without any the solution is any constant
    return values, fixed, start


def solved(values: Tensor, fixed: Tensor) -> Tensor:
    """The harmonic map by elimination: every free cell is the mean of the four beside it."""
    channels, rows, columns = values.shape
    matrix, right = np.eye(rows * columns), np.zeros((rows * columns, channels))
    for cell in range(rows * columns):
        row, column = divmod(cell, columns)
        if fixed[row, column]:
            right[cell] = values[:, row, column].numpy()
            continue
        for down, beside in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            there = min(max(row + down, 0), rows - 1), min(max(column + beside, 0), columns - 1)
            matrix[cell, there[0] * columns + there[1]] -= 0.25
    found = np.linalg.solve(matrix, right)
    return torch.from_numpy(found.T.reshape(channels, rows, columns)).float()


@ALL
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 5), (1, 6, 1), (3, 8, 8), (2, 5, 9)])
def test_comes_to_the_harmonic_map(function: Relax, size: tuple[int, int, int]) -> None:
    values, fixed, start = case(size, seed=sum(size))
    found = function(values, fixed, start, 300)
    torch.testing.assert_close(found, solved(values, fixed), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "size", [(1, 1, 1), (2, 1, 5), (1, 6, 1), (3, 7, 16), (4, 64, 64), (1, 46, 47)]
)
@pytest.mark.parametrize("sweeps", [1, 2, 10, 41])
def test_kernels_equal_the_formula(size: tuple[int, int, int], sweeps: int) -> None:
    """The native one to the bit. 46 x 47 cells are more than one block of a Triton program."""
    values, fixed, start = case(size, seed=sweeps)
    kept = [each.clone() for each in (values, fixed, start)]
    wanted = reference(values, fixed, start, sweeps)
    assert torch.equal(relax(values, fixed, start, sweeps), wanted)
    if sweeps <= 10:
        found = on_gpu(values, fixed, start, sweeps)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for given, before in zip((values, fixed, start), kept, strict=True):
        assert torch.equal(given, before)


@ALL
def test_what_is_fixed_stays_and_nothing_else_need(function: Relax) -> None:
    values, fixed, start = case((2, 8, 9), seed=3, share=0.0)
    found = function(values, torch.ones_like(fixed), start, 3)
    assert torch.equal(found, values)
    free = function(values, torch.zeros_like(fixed), start, 1)
    assert torch.equal(function(start, torch.zeros_like(fixed), start, 1), free)  # no values read


@ALL
def test_any_memory_order(function: Relax) -> None:
    values, fixed, start = case((3, 6, 7), seed=4)
    turned = [each.transpose(-1, -2).contiguous().transpose(-1, -2) for each in (values, start)]
    slanted = fixed.t().contiguous().t()
    found = function(turned[0], slanted, turned[1], 5)
    assert torch.equal(found, function(values, fixed, start, 5))


def test_speeds_accelerate() -> None:
    """They rise from 1 after the first two to the best one of successive overrelaxation."""
    factors = list(speeds(64, 200))
    assert factors[0] == 1
    assert all(1 < factor < 2 for factor in factors[1:])
    assert factors[-1] == pytest.approx(2 / (1 + np.sin(np.pi / 65)), rel=1e-3)


def test_float64_is_the_formula() -> None:
    values, fixed, start = (
        each.double() if each.is_floating_point() else each for each in case((2, 6, 5), seed=5)
    )
    found = relax(values, fixed, start, 7)
    assert found.dtype == torch.float64
    assert torch.equal(found, reference(values, fixed, start, 7))


def test_nothing_is_differentiated() -> None:
    values, fixed, start = case((2, 6, 5), seed=6)
    assert not relax(values.requires_grad_(), fixed, start.requires_grad_(), 2).requires_grad


def test_operator_keeps_pytorchs_rules() -> None:
    values, fixed, start = case((2, 6, 5), seed=7)
    torch.library.opcheck(torch.ops.dragnoise.relax.default, (values, fixed, start, 3))


def test_compiles_without_a_break() -> None:
    inputs = case((2, 6, 5), seed=8)
    compiled = torch.compile(relax, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*inputs, 4), relax(*inputs, 4))


def test_shapes_without_values() -> None:
    values, fixed, start = (each.to("meta") for each in case((2, 6, 5), seed=9))
    found = relax(values, fixed, start, 4)
    assert (found.shape, found.dtype) == ((2, 6, 5), torch.float32)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(3, 64, 64), (4, 8, 8), (3, 128, 96), (1, 301, 300)])
def test_cuda_equals_the_cpu_and_never_waits(size: tuple[int, int, int]) -> None:
    inputs = case(size, seed=10, share=0.01)
    values, fixed, start = (each.cuda() for each in inputs)
    relax(values, fixed, start, 40)  # compiled before: that may wait
    with never_waiting():
        found = relax(values, fixed, start, 40)
    torch.testing.assert_close(found.cpu(), relax(*inputs, 40), rtol=1e-4, atol=1e-4)
    for _ in range(20):
        assert torch.equal(relax(values, fixed, start, 40), found)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"values": torch.zeros(5, 6)}, r"values must be \[C, h, w\] float32 with no side 0"),
        ({"values": torch.zeros(2, 0, 6)}, "values must be"),
        ({"values": torch.zeros(2, 5, 6).half()}, "values must be .* got .* torch.float16"),
        ({"fixed": torch.zeros(5, 6)}, r"fixed must be \[5, 6\] bool"),
        ({"fixed": torch.zeros(6, 5, dtype=torch.bool)}, "fixed must be"),
        ({"start": torch.zeros(1, 5, 6)}, r"start must be \[2, 5, 6\] torch.float32"),
        ({"start": torch.zeros(2, 5, 6, device="meta")}, "devices differ: start meta, values cpu"),
        ({"sweeps": 0}, "sweeps must be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Tensor | int], message: str) -> None:
    values, fixed, start = case((2, 5, 6), seed=11)
    inputs = {"values": values, "fixed": fixed, "start": start, "sweeps": 2}
    with pytest.raises(ValueError, match=message):
        relax(**(inputs | changed))  # type: ignore[arg-type]


def test_native_kernel_refuses_sizes_that_do_not_fit() -> None:
    values, fixed, _ = case((2, 5, 6), seed=12)
    factors = torch.ones(2)
    with pytest.raises(ValueError, match="fixed: must be a map of found's cells"):
        _native.relax(fixed.t().contiguous(), factors, values, values.clone())
    with pytest.raises(ValueError, match="before: must have the shape of found"):
        _native.relax(fixed, factors, values, values[:1].clone())
