"""The Adam update in place, by every kernel and the reference, against torch.optim's in float64."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dragnoise.kernels import _native
from dragnoise.kernels.adam import BETAS, EPSILON, adam_step, reference
from tolerances import assert_close

LR = 0.02
GOING, DONE = torch.tensor(False), torch.tensor(True)


@dataclass(frozen=True)
class Drag:
    """The tensors that one update reads and writes."""

    variable: Tensor
    gradient: Tensor
    first: Tensor
    second: Tensor
    copy: Tensor | None

    def clone(self) -> "Drag":
        return self.map(Tensor.clone)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Drag":
        variable, gradient, first, second = map(
            function, (self.variable, self.gradient, self.first, self.second)
        )
        return Drag(
            variable, gradient, first, second, None if self.copy is None else function(self.copy)
        )

    @property
    def updated(self) -> list[Tensor]:
        return [self.variable, self.first, self.second] + ([] if self.copy is None else [self.copy])


Update = Callable[[Drag, Tensor, Tensor], None]


def by_operator(drag: Drag, step: Tensor, done: Tensor) -> None:
    adam_step(drag.variable, drag.gradient, drag.first, drag.second, drag.copy, step, done, LR)


def by_reference(drag: Drag, step: Tensor, done: Tensor) -> None:
    reference(drag.variable, drag.gradient, drag.first, drag.second, drag.copy, step, done, LR)


def on_gpu(drag: Drag, step: Tensor, done: Tensor) -> None:
    """The Triton kernel, under its interpreter where there is no GPU."""
    from dragnoise.kernels.gpu.adam import launch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    on = drag.map(lambda tensor: tensor.to(device))
    launch(
        on.variable,
        on.gradient,
        on.first,
        on.second,
        on.copy,
        step.to(device),
        done.to(device),
        LR,
        BETAS,
        EPSILON,
    )
    for buffer, value in zip(drag.updated, on.updated, strict=True):
        buffer.copy_(value)


ALL = pytest.mark.parametrize(
    "update", [by_operator, by_reference, on_gpu], ids=["native", "reference", "triton"]
)


def case(size: tuple[int, ...], seed: int, copy: torch.dtype | None = None) -> Drag:
    """Return the middle of a drag: gradients of very different sizes, a few of them zero."""
    generator = torch.Generator().manual_seed(seed)
    variable, first = torch.randn(2, *size, generator=generator)
    magnitude = 10 ** torch.empty(size).uniform_(-6, 3, generator=generator)
    gradient = torch.randn(size, generator=generator) * magnitude
    gradient = gradient.where(torch.rand(size, generator=generator) > 0.1, 0)
    second = (torch.rand(size, generator=generator) + 0.01) * magnitude**2
    lower = None if copy is None else torch.full(size, 7.0, dtype=copy)
    return Drag(variable, gradient, first * magnitude, second, lower)


def expected(drag: Drag, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """One update by torch.optim.Adam, in float64: variable, first and second moment."""
    leaf = drag.variable.double().requires_grad_()
    optimiser = torch.optim.Adam([leaf], lr=LR, betas=(0.9, 0.999), eps=1e-8, foreach=False)
    state = {
        "step": torch.tensor(float(step - 1)),
        "exp_avg": drag.first,
        "exp_avg_sq": drag.second,
    }
    optimiser.state[leaf] = {
        name: value.double() if name != "step" else value for name, value in state.items()
    }
    leaf.grad = drag.gradient.double()
    optimiser.step()
    return leaf.detach(), optimiser.state[leaf]["exp_avg"], optimiser.state[leaf]["exp_avg_sq"]


def assert_update(drag: Drag, before: Drag, step: int) -> None:
    """Moments to 1e-6 of the larger of their terms, the update to 1e-6 of itself.

    Both and the variable to float32's last digit.
    """
    variable, first, second = expected(before, step)
    scale = torch.maximum(before.first.abs(), before.gradient.float().abs())
    assert ((drag.first - first).abs() <= 1e-6 * scale).all()
    assert ((drag.second - second).abs() <= 1e-6 * second).all()
    update = variable - before.variable
    cancelled = (
        1e-6 * scale / first.abs().clamp(min=1e-30)
    )  # what the first moment lost, the update has lost
    allowed = update.abs() * (1e-6 + cancelled) + 1.2e-7 * (variable.abs() + before.variable.abs())
    assert ((drag.variable - variable).abs() <= allowed).all()


@ALL
@pytest.mark.parametrize("step", [1, 2, 10, 80, 1000, 100_000])
def test_one_update(update: Update, step: int) -> None:
    """The first ones, where 1 - beta^t is small, and those where it is 1."""
    drag = case((1, 5, 7, 9), seed=step)
    before = drag.clone()
    update(drag, torch.tensor(step), GOING)
    assert_update(drag, before, step)


@ALL
def test_many_updates_are_adams(update: Update) -> None:
    """From zero, as a drag starts; the device's counter is all that changes from call to call."""
    generator = torch.Generator().manual_seed(1)
    gradients = (
        torch.randn(40, 1, 3, 4, 5, generator=generator)
        * torch.linspace(5, 0.1, 40)[:, None, None, None, None]
    )
    start = torch.randn(1, 3, 4, 5, generator=generator)
    drag = Drag(
        start.clone(), gradients[0].clone(), torch.zeros_like(start), torch.zeros_like(start), None
    )
    leaf, step = start.double().requires_grad_(), torch.tensor(0)
    optimiser = torch.optim.Adam([leaf], lr=LR, foreach=False)
    for gradient in gradients:
        drag.gradient.copy_(gradient)
        step += 1
        update(drag, step, GOING)
        leaf.grad = gradient.double()
        optimiser.step()
    assert step == 40
    assert_close(drag.variable, leaf.detach())
    assert (drag.variable - start).abs().min() > 1e-3


@ALL
@pytest.mark.parametrize("copy", [None, torch.float32, torch.bfloat16, torch.float16])
def test_the_copy_is_the_variable_rounded(update: Update, copy: torch.dtype | None) -> None:
    drag = case((2, 3, 5, 6), seed=2, copy=copy)
    before = drag.clone()
    update(drag, torch.tensor(3), GOING)
    assert_update(drag, before, 3)
    if drag.copy is not None:
        # Triton's interpreter cuts bfloat16 off instead of rounding; equal if the machine rounds.
        assert_close(drag.copy, drag.variable)
        if not (update is on_gpu and copy == torch.bfloat16 and not torch.cuda.is_available()):
            assert torch.equal(drag.copy, drag.variable.to(drag.copy.dtype))


@ALL
def test_done_leaves_every_bit(update: Update) -> None:
    """Also of what is not a number, and whatever the gradient and the counter are."""
    drag = case((2, 3, 5, 6), seed=3, copy=torch.bfloat16)
    for tensor in drag.updated:
        tensor[0, 0, 0, :3] = torch.tensor([torch.nan, torch.inf, -0.0])
    drag.gradient[0, 1] = torch.nan
    before = drag.clone()
    for done in (DONE, torch.tensor([True, True])):
        update(drag, torch.tensor(0), done)
        for now, was in zip(drag.updated, before.updated, strict=True):
            bits = torch.int32 if was.dtype == torch.float32 else torch.int16
            assert torch.equal(now.view(bits), was.view(bits))


@ALL
def test_an_entry_that_is_done_stays_while_others_go_on(update: Update) -> None:
    drag = case((4, 3, 5, 6), seed=4, copy=torch.float16)
    before, done = drag.clone(), torch.tensor([False, True, True, False])
    update(drag, torch.tensor(5), done)
    for now, was in zip(drag.updated, before.updated, strict=True):
        assert torch.equal(now[done], was[done])
    assert (drag.variable[~done] != before.variable[~done]).any(dim=(1, 2, 3)).all()
    assert_update(
        drag.map(lambda tensor: tensor[~done]), before.map(lambda tensor: tensor[~done]), 5
    )
    assert drag.copy is not None
    assert torch.equal(drag.copy[~done], drag.variable[~done].half())


@ALL
def test_memory_order_does_not_matter(update: Update) -> None:
    """Everything channels_last; entries that are done in it; a done mask with a stride."""
    drag = case((3, 4, 5, 6), seed=5, copy=torch.float16)
    last = drag.map(lambda tensor: tensor.contiguous(memory_format=torch.channels_last))
    done = torch.tensor([False, False, True, True, False, False])[::2]
    update(drag, torch.tensor(2), done)
    update(last, torch.tensor(2), done)
    for one, other in zip(drag.updated, last.updated, strict=True):
        assert torch.equal(one, other)
        assert other.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_gradient_may_have_another_order_and_dtype(dtype: torch.dtype) -> None:
    drag = case((2, 4, 5, 6), seed=6)
    drag = dataclasses.replace(drag, gradient=drag.gradient.clamp(-100, 100).to(dtype))
    exact = dataclasses.replace(drag.clone(), gradient=drag.gradient.float())
    turned = dataclasses.replace(
        drag.clone(), gradient=drag.gradient.contiguous(memory_format=torch.channels_last)
    )
    on = drag.clone()
    by_operator(exact, torch.tensor(2), GOING)
    by_operator(turned, torch.tensor(2), GOING)
    assert torch.equal(turned.variable, exact.variable)
    on_gpu(on, torch.tensor(2), GOING)
    assert_close(on.variable, exact.variable)


@given(
    size=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    step=st.integers(1, 5000),
    seed=st.integers(0, 999),
)
def test_native_is_adam(size: list[int], step: int, seed: int) -> None:
    drag = case(tuple(size), seed)
    before = drag.clone()
    by_operator(drag, torch.tensor(step), GOING)
    assert_update(drag, before, step)


@settings(max_examples=10)
@given(
    size=st.lists(st.integers(1, 13), min_size=1, max_size=4).filter(lambda size: size[0] < 4),
    step=st.integers(1, 5000),
    per_entry=st.booleans(),
    seed=st.integers(0, 999),
)
def test_triton_equals_native(size: list[int], step: int, per_entry: bool, seed: int) -> None:
    drag = case(tuple(size), seed, torch.float32)
    done = torch.arange(size[0]) % 2 == 1 if per_entry else GOING
    other = drag.clone()
    by_operator(drag, torch.tensor(step), done)
    on_gpu(other, torch.tensor(step), done)
    for one, another in zip(drag.updated, other.updated, strict=True):
        assert_close(one, another)


def test_views_of_larger_memory_are_updated_in_place() -> None:
    """An entry of a batch, whose stride of the first axis is ignored, and nothing beside it."""
    memory = torch.randn(3, 2, 3, 4)
    before = memory.clone()
    zeros = torch.zeros(1, 2, 3, 4)
    adam_step(
        memory[1:2], zeros + 1, zeros.clone(), zeros.clone(), None, torch.tensor(1), GOING, LR
    )
    assert torch.equal(memory[::2], before[::2])
    assert_close(memory[1], before[1] - LR)


def test_the_counter_is_only_read() -> None:
    drag, step = case((1, 2, 3, 3), seed=8), torch.tensor(4)
    by_operator(drag, step, GOING)
    assert step == 4


@pytest.mark.parametrize("copy", [None, torch.bfloat16])
def test_operator_keeps_pytorchs_rules(copy: torch.dtype | None) -> None:
    drag = case((2, 3, 4, 5), seed=9, copy=copy)
    for order in (torch.contiguous_format, torch.channels_last):
        drag = drag.map(partial(Tensor.contiguous, memory_format=order))
        given_drag = (drag.variable, drag.gradient, drag.first, drag.second, drag.copy)
        inputs = (*given_drag, torch.tensor(3), torch.tensor([False, True]), LR)
        torch.library.opcheck(torch.ops.dragnoise.adam_step.default, inputs)


def test_compiles_without_a_break() -> None:
    drag = case((2, 3, 4, 5), seed=10, copy=torch.bfloat16)
    other = drag.clone()

    def twice(drag: Drag, step: Tensor, done: Tensor) -> Tensor:
        for count in range(2):
            by_operator(drag, step + count, done)
        return drag.variable * 2

    done = torch.tensor([False, True])
    compiled = torch.compile(twice, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(drag, torch.tensor(1), done), twice(other, torch.tensor(1), done))
    for one, another in zip(drag.updated, other.updated, strict=True):
        assert torch.equal(one, another)


def test_without_values() -> None:
    drag = case((1, 2, 3, 3), seed=11, copy=torch.bfloat16).map(lambda tensor: tensor.to("meta"))
    by_operator(drag, torch.tensor(1, device="meta"), torch.tensor(False, device="meta"))


@pytest.mark.gpu
def test_cuda_equals_the_cpu_and_is_one_graph() -> None:
    """The captured update is replayed with another gradient and count, then with a done drag."""
    drag = case((2, 64, 8, 8), seed=12, copy=torch.bfloat16)
    on = drag.map(Tensor.cuda)
    step, done = torch.tensor(1).cuda(), torch.tensor([False, False]).cuda()
    by_operator(on.clone(), step, done)  # compiled before
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        by_operator(on, step, done)
    for count, stop in ((1, False), (2, False), (3, True)):
        drag.gradient.mul_(-0.7)
        on.gradient.copy_(drag.gradient)
        step.fill_(count)
        done[1] = stop
        graph.replay()
        by_operator(drag, torch.tensor(count), torch.tensor([False, stop]))
        for one, another in zip(on.updated, drag.updated, strict=True):
            assert_close(one.cpu(), another)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"variable": torch.zeros(2, 0)},
            r"variable must be \[B, ...\] with no side 0, got \[2, 0\]",
        ),
        (
            {"variable": torch.zeros(2, 3, 4, 5).double()},
            "variable must be float32, got torch.float64",
        ),
        (
            {"variable": torch.zeros(2, 3, 5, 4).mT},
            r"variable must be \[2, 3, 4, 5\] in variable's memory order",
        ),
        ({"first": torch.zeros(2, 3, 4, 4)}, r"first must be \[2, 3, 4, 5\].*got \[2, 3, 4, 4\]"),
        ({"second": torch.zeros(2, 3, 4, 5).half()}, "second must be float32"),
        (
            {"copy": torch.zeros(2, 4, 5, 3).movedim(3, 1)},
            r"copy must be .*strides \[60, 1, 15, 3\]",
        ),
        ({"gradient": torch.zeros(3, 4, 5)}, r"gradient must be \[2, 3, 4, 5\], got \[3, 4, 5\]"),
        ({"step": torch.tensor(1.0)}, r"step must be \[\] int64, got \[\] torch.float32"),
        ({"step": torch.tensor([1])}, r"step must be \[\] int64, got \[1\]"),
        ({"done": torch.tensor([False])}, r"done must be \[\] or \[2\] bool, got \[1\]"),
        ({"done": torch.tensor(0)}, r"done must be \[\] or \[2\] bool, got \[\] torch.int64"),
        ({"step": torch.tensor(1, device="meta")}, "devices differ"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Tensor], message: str) -> None:
    drag = case((2, 3, 4, 5), seed=13)
    inputs = vars(drag) | {"step": torch.tensor(1), "done": GOING, "lr": LR} | changed
    with pytest.raises(ValueError, match=message):
        adam_step(**inputs)


class TestNative:
    """The module by itself: it checks every argument before it touches memory."""

    def test_refuses_sizes(self) -> None:
        for place, name in ((1, "gradient"), (2, "first"), (3, "second"), (4, "done")):
            arrays: list[Any] = [
                *(np.zeros((2, 3), np.float32) for _ in range(4)),
                np.zeros(2, np.bool_),
            ]
            arrays[place] = arrays[place][:1]
            with pytest.raises(ValueError, match=f"{name}: must have"):
                self.step(*arrays)

    def test_refuses_types_rather_than_converting_them(self) -> None:
        for place, wrong in (
            (0, np.zeros((2, 3), np.float64)),
            (1, np.zeros((2, 3), np.float16)),
            (2, np.zeros((2, 6), np.float32)[:, ::2]),
            (3, np.zeros(6, np.float32)),
            (4, np.zeros(2, np.uint8)),
        ):
            arrays: list[Any] = [
                *(np.zeros((2, 3), np.float32) for _ in range(4)),
                np.zeros(2, np.bool_),
            ]
            arrays[place] = wrong
            with pytest.raises(TypeError):
                self.step(*arrays)

    @staticmethod
    def step(*arrays: Any) -> None:
        variable, gradient, first, second, done = arrays
        _native.adam_step(variable, gradient, first, second, done, 1, LR, *BETAS, EPSILON)
