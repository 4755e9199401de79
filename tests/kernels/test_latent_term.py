"""The mask term, by every kernel and by the reference, against autograd of its definition."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dragnoise.kernels import _native
from dragnoise.kernels.latent_term import latent_term, reference
from tolerances import assert_close
from waiting import never_waiting

Pair = Callable[[Tensor, Tensor, Tensor, float, float], tuple[Tensor, Tensor]]
SLOPE, LAM = -0.37, 0.2


def definition(
    noise: Tensor, original: Tensor, keep: Tensor, slope: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Compute the term as the method states it, in float64, its gradient by autograd."""
    leaf = noise.detach().double().requires_grad_()
    loss = lam * (slope * (leaf - original.double()) * keep.double()).abs().sum()
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def by_operator(
    noise: Tensor, original: Tensor, keep: Tensor, slope: float, lam: float
) -> tuple[Tensor, Tensor]:
    leaf = noise.detach().requires_grad_()
    loss = latent_term(leaf, original, keep, slope, lam)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def on_gpu(
    noise: Tensor, original: Tensor, keep: Tensor, slope: float, lam: float
) -> tuple[Tensor, Tensor]:
    """The Triton kernel, under its interpreter where there is no GPU."""
    from dragnoise.kernels.gpu.latent_term import launch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loss, gradient = launch(noise.to(device), original.to(device), keep.to(device), slope, lam)
    return loss.cpu(), gradient.cpu()


ALL = pytest.mark.parametrize(
    "function", [by_operator, reference, on_gpu], ids=["native", "reference", "triton"]
)


def case(
    size: tuple[int, int, int, int], seed: int, masks: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Return noise, a fifth of it original, the original, and a mask with soft values and zeros."""
    generator = torch.Generator().manual_seed(seed)
    noise, original = torch.randn(2, *size, generator=generator)
    same = torch.rand(size, generator=generator) < 0.2
    keep = torch.rand(masks, 1, *size[2:], generator=generator)
    return (
        torch.where(same, original, noise),
        original,
        keep.where(keep > 0.3, 0).where(keep < 0.9, 1),
    )


@ALL
@pytest.mark.parametrize(
    ("size", "masks"),
    [
        pytest.param((1, 4, 16, 16), 1, id="one-block"),
        pytest.param((1, 4, 23, 37), 1, id="several-blocks-not-square"),
        pytest.param((3, 4, 9, 31), 1, id="entries-one-mask"),
        pytest.param((3, 3, 17, 16), 3, id="entries-a-mask-each"),
        pytest.param((1, 1, 1, 1), 1, id="one-place"),
    ],
)
@pytest.mark.parametrize("slope", [SLOPE, 0.6, 0.0])
def test_equals_the_definition(
    function: Pair, size: tuple[int, int, int, int], masks: int, slope: float
) -> None:
    noise, original, keep = case(size, seed=sum(size), masks=masks)
    loss, gradient = function(noise, original, keep, slope, LAM)
    expected = definition(noise, original, keep, slope, LAM)
    assert (loss.shape, loss.dtype, gradient.dtype) == ((), torch.float32, torch.float32)
    assert_close(loss, expected[0])
    assert_close(gradient, expected[1])


@ALL
def test_nothing_moves_what_has_not_moved(function: Pair) -> None:
    """sign(0) = 0: of equal predictions, of a mask that keeps nothing, and of either alone."""
    noise, original, keep = case((1, 4, 8, 8), seed=1)
    for still in ((original, original, keep), (noise, original, torch.zeros_like(keep))):
        loss, gradient = function(*still, SLOPE, LAM)
        assert loss == 0
        assert (gradient == 0).all()
    gradient = function(noise, original, keep, SLOPE, LAM)[1]
    assert torch.equal(gradient != 0, (noise != original) & (keep != 0))


@ALL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(function: Pair, dtype: torch.dtype) -> None:
    """The loss is the float32 loss of the rounded inputs; the gradient is rounded once."""
    noise, original, keep = case((2, 4, 11, 13), seed=2)
    noise, original = noise.to(dtype), original.to(dtype)
    loss, gradient = function(noise, original, keep, SLOPE, LAM)
    expected = definition(noise, original, keep, SLOPE, LAM)
    assert (loss.dtype, gradient.dtype) == (torch.float32, dtype)
    assert_close(loss, expected[0])
    assert_close(gradient, expected[1])
    assert_close(
        function(noise, original.float(), keep.to(dtype), SLOPE, LAM)[0],
        expected[0],
        computed_in=dtype,
    )


def test_float64_is_computed_in_float64() -> None:
    noise, original, keep = (tensor.double() for tensor in case((2, 4, 11, 13), seed=3))
    loss, gradient = by_operator(noise, original, keep, SLOPE, LAM)
    expected = definition(noise, original, keep, SLOPE, LAM)
    assert (loss.dtype, gradient.dtype) == (torch.float64, torch.float64)
    assert_close(loss, expected[0])
    assert_close(gradient, expected[1])


@ALL
def test_memory_order_does_not_matter(function: Pair) -> None:
    noise, original, keep = case((2, 4, 10, 14), seed=4)
    expected = function(noise, original, keep, SLOPE, LAM)
    last = noise.contiguous(memory_format=torch.channels_last)
    turned = noise.mT.contiguous().mT
    wide = torch.cat([noise, noise], dim=3)[..., :14]
    for given_noise in (last, turned, wide):
        for given_reference in (original, original.contiguous(memory_format=torch.channels_last)):
            for given_keep in (keep, keep.mT.contiguous().mT, keep.expand(2, 1, 10, 14)):
                loss, gradient = function(given_noise, given_reference, given_keep, SLOPE, LAM)
                assert_close(loss, expected[0])
                assert torch.equal(gradient, expected[1])
    assert function(last, original, keep, SLOPE, LAM)[1].is_contiguous(
        memory_format=torch.channels_last
    )


@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 40), st.integers(1, 40)),
    each=st.booleans(),
    slope=st.floats(-2, 2),
    lam=st.floats(0, 10),
    last=st.booleans(),
    seed=st.integers(0, 999),
)
def test_native_equals_the_definition(
    size: tuple[int, int, int, int], each: bool, slope: float, lam: float, last: bool, seed: int
) -> None:
    noise, original, keep = case(size, seed, masks=size[0] if each else 1)
    if last:
        noise = noise.contiguous(memory_format=torch.channels_last)
    loss, gradient = by_operator(noise, original, keep, slope, lam)
    expected = definition(noise, original, keep, slope, lam)
    assert_close(loss, expected[0])
    assert_close(gradient, expected[1])


@settings(max_examples=10)
@given(
    size=st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 24), st.integers(1, 40)),
    dtype=st.sampled_from([torch.float32, torch.float16]),
    seed=st.integers(0, 999),
)
def test_triton_equals_native(
    size: tuple[int, int, int, int], dtype: torch.dtype, seed: int
) -> None:
    noise, original, keep = case(size, seed)
    noise = noise.to(dtype)
    loss, gradient = on_gpu(noise, original, keep, SLOPE, LAM)
    expected = by_operator(noise, original, keep, SLOPE, LAM)
    assert_close(loss, expected[0])
    assert torch.equal(gradient.sign(), expected[1].sign())
    assert_close(gradient, expected[1])


def test_the_same_bits_every_time() -> None:
    noise, original, keep = case((1, 4, 64, 64), seed=5)
    first = by_operator(noise, original, keep, SLOPE, LAM)[0]
    assert all(
        torch.equal(by_operator(noise, original, keep, SLOPE, LAM)[0], first) for _ in range(5)
    )


def test_gradient_is_scaled_by_what_follows_and_only_noise_has_one() -> None:
    noise, original, keep = (tensor.requires_grad_() for tensor in case((1, 4, 6, 6), seed=6))
    loss = latent_term(noise, original, keep, SLOPE, LAM)
    (3 * loss).backward()
    assert noise.grad is not None
    assert_close(
        noise.grad, 3 * definition(noise.detach(), original.detach(), keep.detach(), SLOPE, LAM)[1]
    )
    assert original.grad is None
    assert keep.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_operator_keeps_pytorchs_rules(dtype: torch.dtype) -> None:
    noise, original, keep = case((2, 4, 5, 6), seed=7)
    last = noise.to(dtype).contiguous(memory_format=torch.channels_last)
    for given_noise in (noise.to(dtype).requires_grad_(), last.requires_grad_()):
        inputs = (given_noise, original.to(dtype), keep.to(dtype), SLOPE, LAM)
        torch.library.opcheck(torch.ops.dragnoise.latent_term.default, inputs)


def test_compiles_without_a_break() -> None:
    noise, original, keep = case((1, 4, 8, 9), seed=8)

    def loss_and_gradient(noise: Tensor) -> Tensor:
        return 2 * latent_term(noise * 1.5, original, keep, SLOPE, LAM)

    compiled = torch.compile(loss_and_gradient, fullgraph=True, backend="aot_eager")
    leaves = [noise.clone().requires_grad_() for _ in range(2)]
    losses = [compiled(leaves[0]), loss_and_gradient(leaves[1])]
    for loss in losses:
        loss.backward()
    assert torch.equal(losses[0], losses[1])
    assert leaves[0].grad is not None
    assert leaves[1].grad is not None
    assert leaves[1].grad.any()
    assert torch.equal(leaves[0].grad, leaves[1].grad)


def test_shapes_without_values() -> None:
    noise, original, keep = (tensor.to("meta") for tensor in case((1, 4, 8, 8), seed=9))
    loss = latent_term(noise.bfloat16().requires_grad_(), original, keep, SLOPE, LAM)
    assert (loss.shape, loss.dtype, loss.device.type) == ((), torch.float32, "meta")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_equals_the_cpu_and_never_waits(dtype: torch.dtype) -> None:
    noise, original, keep = case((1, 4, 64, 64), seed=10)
    noise = noise.to(dtype)
    expected = by_operator(noise, original, keep, SLOPE, LAM)
    noise, original, keep = noise.cuda(), original.cuda(), keep.cuda()
    by_operator(noise, original, keep, SLOPE, LAM)  # compiled before: that may wait
    with never_waiting():
        loss, gradient = by_operator(noise, original, keep, SLOPE, LAM)
    assert_close(loss.cpu(), expected[0])
    assert_close(gradient.cpu(), expected[1])
    assert torch.equal(by_operator(noise, original, keep, SLOPE, LAM)[0], loss)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"noise": torch.zeros(4, 5, 5)},
            r"noise must be \[B, C, h, w\] with no side 0, got \[4, 5, 5\]",
        ),
        ({"noise": torch.zeros(2, 4, 0, 5)}, r"noise must be \[B, C, h, w\] with no side 0"),
        ({"original": torch.zeros(1, 4, 5, 5)}, r"original must be \[2, 4, 5, 5\] as noise is"),
        (
            {"keep": torch.zeros(1, 4, 5, 5)},
            r"keep must be \[1, 1, 5, 5\], or one for each entry, got \[1, 4, 5, 5\]",
        ),
        ({"keep": torch.zeros(3, 1, 5, 5)}, r"keep must be \[1, 1, 5, 5\]"),
        ({"keep": torch.zeros(5, 5)}, r"keep must be \[1, 1, 5, 5\]"),
        ({"keep": torch.zeros(1, 1, 5, 5, device="meta")}, "devices differ"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Tensor], message: str) -> None:
    inputs = {
        "noise": torch.zeros(2, 4, 5, 5),
        "original": torch.zeros(2, 4, 5, 5),
        "keep": torch.zeros(1, 1, 5, 5),
    }
    with pytest.raises(ValueError, match=message):
        latent_term(**(inputs | changed), slope=SLOPE, lam=LAM)


class TestNative:
    """The module by itself: it checks every argument before it touches memory."""

    noise = np.ones((2, 4, 3, 3), np.float32)
    keep = np.ones((1, 1, 3, 3), np.float32)

    def test_takes_numpy_and_any_strides(self) -> None:
        gradient = np.full((2, 4, 3, 3), np.nan, np.float32)
        loss = _native.latent_term(
            self.noise[..., ::-1], 0 * self.noise, self.keep, 0.5, 2, gradient
        )
        assert loss == 72
        assert (gradient == 1).all()

    def test_refuses_sizes(self) -> None:
        for place, name in enumerate(("reference", "keep", "gradient")):
            given = [self.noise, self.keep, self.noise.copy()]
            given[place] = given[place][..., :2]
            with pytest.raises(ValueError, match=f"{name}: must have the shape of noise"):
                _native.latent_term(self.noise, given[0], given[1], 0.5, 2, given[2])

    def test_refuses_types_rather_than_converting_them(self) -> None:
        for noise in (self.noise.astype(np.float64), self.noise[0]):
            with pytest.raises(TypeError):
                _native.latent_term(
                    noise,  # type: ignore[arg-type]
                    self.noise,
                    self.keep,
                    0.5,
                    2,
                    self.noise.copy(),
                )
        fixed = self.noise.copy()
        fixed.flags.writeable = False
        with pytest.raises(TypeError):
            _native.latent_term(self.noise, self.noise, self.keep, 0.5, 2, fixed)
