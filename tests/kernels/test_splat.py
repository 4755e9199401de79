"""The forward splat, by every kernel and the formula, against ranks by sorting and plain loops."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dragnoise.kernels import _native, has_native
from dragnoise.kernels.splat import Splatted, reference, splat
from waiting import never_waiting

Splat = Callable[..., Splatted]


def on_gpu(*inputs: Tensor | None) -> Splatted:
    """The Triton kernels, under their interpreter where there is no GPU."""
    from dragnoise.kernels.gpu.splat import launch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    moved = [None if each is None else each.to(device) for each in inputs]
    values, shift, weight, editable, *rest = moved
    assert values is not None
    assert shift is not None
    assert weight is not None
    assert editable is not None
    behind, blend = (*rest, None, None)[:2]
    with np.errstate(invalid="ignore"):  # the interpreter casts NaN before it is masked
        result, holes = launch(values, shift, weight, editable, behind, blend)
    return Splatted(result.cpu(), holes.cpu())


ALL = pytest.mark.parametrize(
    "function", [splat, reference, on_gpu], ids=["native", "reference", "triton"]
)


def sorted_ranks(
    values: Tensor,
    shift: Tensor,
    weight: Tensor,
    editable: Tensor,
    behind: Tensor | None = None,
    blend: Tensor | None = None,
) -> Splatted:
    """Splat by the ranks of a stable sort, as the engine did before there was a kernel."""
    height, width = weight.shape
    rows = torch.arange(height, dtype=torch.float32)[:, None] + shift[0]
    columns = torch.arange(width, dtype=torch.float32) + shift[1]
    row, column = (rows + 0.5).floor().long(), (columns + 0.5).floor().long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width) & editable
    there = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).flatten()
    inside = inside.flatten() & editable.flatten()[there]
    order = torch.argsort(weight.flatten(), stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    winner = torch.full_like(rank, -1)
    winner.scatter_reduce_(0, there, torch.where(inside, rank, -1), "amax")
    covered = (winner >= 0).view(height, width)
    flat = values.flatten(2)
    result = torch.where(covered.flatten(), flat[:, :, order[winner.clamp(min=0)]], flat)
    holes = editable & ~covered
    moved = result.view_as(values)
    if behind is not None:
        moved = torch.where(holes, behind, moved)
    return Splatted(moved if blend is None else values.lerp(moved, blend), holes)


def looped(
    values: Tensor, shift: Tensor, weight: Tensor, editable: Tensor, behind: Tensor
) -> Splatted:
    """Splat by the definition: look at every cell in its order; a firmer one, or as firm, wins."""
    height, width = weight.shape
    best: dict[tuple[int, int], tuple[float, int, int]] = {}
    for row in range(height):
        for column in range(width):
            down, right = (float(shift[axis, row, column]) for axis in (0, 1))
            there = (int(np.floor(row + down + 0.5)), int(np.floor(column + right + 0.5)))
            within = 0 <= there[0] < height and 0 <= there[1] < width
            if within and editable[row, column] and editable[there]:
                firm = float(weight[row, column])
                if there not in best or firm >= best[there][0]:
                    best[there] = (firm, row, column)
    result, holes = values.clone(), editable.clone()
    result[:, :, editable] = behind[:, :, editable]
    for there, (_, row, column) in best.items():
        result[:, :, there[0], there[1]] = values[:, :, row, column]
        holes[there] = False
    return Splatted(result, holes)


def case(
    size: tuple[int, int, int, int], seed: int, reach: float = 3.0, levels: int = 5
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return inputs: shifts of whole, half and quarter cells, weights that are often equal."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    values, behind = torch.randn(2, *size, generator=generator)
    shift = (8 * reach * (2 * drawn(2, *size[2:]) - 1)).round() / 4
    weight = (levels * drawn(*size[2:])).floor() / levels
    blend = (drawn(1, 1, *size[2:]) * 3 - 1).clamp(0, 1)
    return values, shift, weight, drawn(*size[2:]) > 0.25, behind, blend


def assert_equal(found: Splatted, wanted: Splatted) -> None:
    assert torch.equal(found.map, wanted.map)
    assert torch.equal(found.holes, wanted.holes)


@ALL
@pytest.mark.parametrize(
    "size",
    [
        pytest.param((1, 4, 16, 16), id="one-block"),
        pytest.param((1, 4, 23, 37), id="several-blocks-not-square"),
        pytest.param((3, 3, 9, 31), id="entries"),
        pytest.param((1, 1, 1, 1), id="one-cell"),
        pytest.param((2, 5, 1, 40), id="one-row"),
    ],
)
def test_equals_the_ranks_and_the_loops_bit_for_bit(
    function: Splat, size: tuple[int, int, int, int]
) -> None:
    *_, behind, _ = whole = case(size, seed=sum(size))
    inputs = whole[:4]
    assert_equal(function(*inputs), sorted_ranks(*inputs))
    assert_equal(function(*inputs, behind), sorted_ranks(*inputs, behind))
    assert_equal(function(*inputs, behind), looped(*inputs, behind))


@ALL
def test_what_may_not_change_and_what_is_blended(function: Splat) -> None:
    """Exact at both ends, between them as PyTorch rounds: on a CPU the very bits."""
    values, _, _, editable, behind, blend = whole = case((2, 4, 19, 22), seed=1)
    inputs = whole[:4]
    plain = function(*inputs, behind)
    assert torch.equal(plain.map[:, :, ~editable], values[:, :, ~editable])
    assert not plain.holes[~editable].any()
    assert torch.equal(plain.map[:, :, plain.holes], behind[:, :, plain.holes])
    found = function(*inputs, behind, blend)
    wanted = sorted_ranks(*inputs, behind, blend)
    none, all_ = blend[0, 0] == 0, blend[0, 0] == 1
    assert torch.equal(found.map[:, :, none], values[:, :, none])
    assert torch.equal(found.map[:, :, all_], plain.map[:, :, all_])
    torch.testing.assert_close(found.map, wanted.map, rtol=1e-6, atol=1e-6)
    if function is not on_gpu:
        assert_equal(found, wanted)


@ALL
def test_half_a_cell_is_rounded_one_way(function: Splat) -> None:
    """No two neighbours come to one cell, and none is left out."""
    values, _, weight, _, _, _ = case((1, 2, 6, 9), seed=2)
    everywhere = torch.ones(6, 9, dtype=torch.bool)
    for way in (-1.5, -0.5, 0.5, 1.5):
        shift = torch.full((2, 6, 9), way)
        found = function(values, shift, weight, everywhere)
        assert found.holes.sum() == 54 - (6 - abs(round(way + 0.01))) * (9 - abs(round(way + 0.01)))


@ALL
def test_who_wins(function: Splat) -> None:
    """The firmer; of equals the last, and zero equals minus zero; weights below zero are less."""
    values = torch.arange(3.0).view(1, 1, 1, 3)
    shift = torch.zeros(2, 1, 3)
    shift[1, 0] = torch.tensor([1.0, 0.0, -1.0])
    everywhere = torch.ones(1, 3, dtype=torch.bool)
    for weights, winner in (
        ((0.5, 0.25, 0.0), 0),
        ((0.5, 0.75, 0.5), 1),
        ((0.5, 0.5, 0.5), 2),
        ((0.5, 0.5, 0.25), 1),
        ((0.0, -0.0, -0.0), 2),
        ((-0.0, 0.0, -1e-30), 1),
        ((-1e-30, -2e-30, -1.0), 0),
        ((1e-45, 0.0, -1e-45), 0),
    ):
        found = function(values, shift, torch.tensor([weights]), everywhere)
        assert found.map[0, 0, 0, 1] == winner, weights
        assert found.holes.tolist() == [[True, False, True]]


@ALL
def test_ways_that_lead_nowhere(function: Splat) -> None:
    """Out of the map, and what is no number: nothing is read or written elsewhere."""
    values, _, weight, _, behind, _ = case((1, 2, 5, 7), seed=3)
    everywhere = torch.ones(5, 7, dtype=torch.bool)
    for way in (torch.nan, torch.inf, -torch.inf, 1e30, -1e30, 3e9):
        shift = torch.zeros(2, 5, 7)
        shift[:, 2, 3] = way
        found = function(values, shift, weight, everywhere, behind)
        assert found.holes.nonzero().tolist() == [[2, 3]]
        wanted = torch.where(found.holes, behind, values)
        assert torch.equal(found.map, wanted)


@ALL
def test_memory_order_does_not_matter_and_is_kept(function: Splat) -> None:
    values, shift, weight, editable, behind, blend = case((2, 4, 10, 14), seed=4)
    expected = function(values, shift, weight, editable, behind, blend)
    last = values.contiguous(memory_format=torch.channels_last)
    turned = values.mT.contiguous().mT
    wide = torch.cat([values, values], dim=3)[..., :14]
    for given_values in (last, turned, wide):
        for given_behind in (behind, behind.contiguous(memory_format=torch.channels_last)):
            maps = (shift.mT.contiguous().mT, weight.T.contiguous().T, editable.T.contiguous().T)
            shares = blend.mT.contiguous().mT
            found = function(given_values, *maps, given_behind, shares)
            torch.testing.assert_close(found.map, expected.map, rtol=1e-6, atol=1e-6)
            assert torch.equal(found.holes, expected.holes)
            unblended = function(given_values, *maps, given_behind)
            assert_equal(unblended, function(values, shift, weight, editable, behind))
    found = function(last, shift, weight, editable, behind, blend)
    assert found.map.is_contiguous(memory_format=torch.channels_last)


@ALL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(function: Splat, dtype: torch.dtype) -> None:
    """What is moved keeps its bits; what is blended is rounded once."""
    if dtype == torch.float64 and function is on_gpu:
        pytest.skip("the formula does float64")
    values, *_, blend = whole = case((1, 3, 11, 13), seed=5)
    inputs, behind = (values.to(dtype), *whole[1:4]), whole[4].to(dtype)
    assert_equal(function(*inputs, behind), sorted_ranks(*inputs, behind))
    found = function(*inputs, behind, blend)
    doubles = (inputs[0].double(), *whole[1:4], behind.double(), blend.double())
    assert found.map.dtype == dtype
    torch.testing.assert_close(found.map, sorted_ranks(*doubles).map.to(dtype))


@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 30), st.integers(1, 30)),
    reach=st.floats(0, 12),
    levels=st.integers(1, 9),
    seed=st.integers(0, 999),
)
def test_native_equals_the_ranks(
    size: tuple[int, int, int, int], reach: float, levels: int, seed: int
) -> None:
    inputs = case(size, seed, reach, levels)
    assert_equal(splat(*inputs), sorted_ranks(*inputs))


@settings(max_examples=10)
@given(
    size=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 24), st.integers(1, 24)),
    reach=st.floats(0, 8),
    dtype=st.sampled_from([torch.float32, torch.float16]),
    seed=st.integers(0, 999),
)
def test_triton_equals_native(
    size: tuple[int, int, int, int], reach: float, dtype: torch.dtype, seed: int
) -> None:
    values, shift, weight, editable, behind, _ = case(size, seed, reach)
    inputs = (values.to(dtype), shift, weight, editable, behind.to(dtype))
    assert_equal(on_gpu(*inputs), splat(*inputs))


def test_no_gradient() -> None:
    values, shift, weight, *rest = case((1, 2, 5, 6), seed=6)
    leaves = [each.requires_grad_() for each in (values, shift, weight)]
    assert not splat(*leaves, *rest).map.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operator_keeps_pytorchs_rules(dtype: torch.dtype) -> None:
    values, shift, weight, editable, behind, blend = case((2, 3, 5, 6), seed=7)
    last = values.to(dtype).contiguous(memory_format=torch.channels_last)
    for given_values in (values.to(dtype), last):
        for more in ((None, None), (behind.to(dtype), blend)):
            inputs = (given_values, shift, weight, editable, *more)
            torch.library.opcheck(torch.ops.dragnoise.splat.default, inputs)


def test_compiles_without_a_break() -> None:
    inputs = case((1, 4, 8, 9), seed=8)
    compiled = torch.compile(splat, fullgraph=True, backend="aot_eager")
    assert_equal(compiled(*inputs), splat(*inputs))


def test_shapes_without_values() -> None:
    found = splat(*(each.to("meta") for each in case((2, 4, 8, 7), seed=9)))
    assert (found.map.shape, found.holes.shape) == ((2, 4, 8, 7), (8, 7))
    assert (found.map.dtype, found.holes.dtype) == (torch.float32, torch.bool)


@pytest.mark.gpu
def test_cuda_equals_the_cpu_and_never_waits() -> None:
    inputs = case((1, 4, 64, 64), seed=10)
    there = [each.cuda() for each in inputs]
    splat(*there)  # compiled before: that may wait
    with never_waiting():
        found = splat(*there)
        plain = splat(*there[:5])
    assert_equal(Splatted(plain.map.cpu(), plain.holes.cpu()), splat(*inputs[:5]))
    torch.testing.assert_close(found.map.cpu(), splat(*inputs).map, rtol=1e-6, atol=1e-6)
    for _ in range(20):  # whatever the order of the atomic writes
        assert torch.equal(splat(*there).map, found.map)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"values": torch.zeros(4, 5, 6)}, r"values must be \[B, C, h, w\] floats with no side 0"),
        ({"values": torch.zeros(2, 0, 5, 6)}, "values must be"),
        ({"values": torch.zeros(2, 4, 5, 6).long()}, "values must be .* got .* torch.int64"),
        ({"shift": torch.zeros(2, 6, 5)}, r"shift must be \[2, 5, 6\] float32, got \[2, 6, 5\]"),
        ({"shift": torch.zeros(2, 5, 6).double()}, "shift must be .*, got .* torch.float64"),
        ({"weight": torch.zeros(5)}, r"weight must be \[5, 6\] float32, got \[5\]"),
        ({"editable": torch.zeros(5, 6)}, r"editable must be \[5, 6\] bool"),
        ({"behind": torch.zeros(1, 4, 5, 6)}, r"behind must be \[2, 4, 5, 6\] float32"),
        ({"blend": torch.zeros(5, 6)}, r"blend must be \[1, 1, 5, 6\] float32, got \[5, 6\]"),
        ({"weight": torch.zeros(5, 6, device="meta")}, "devices differ: weight meta, values cpu"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Tensor], message: str) -> None:
    names = ("values", "shift", "weight", "editable", "behind", "blend")
    inputs = dict(zip(names, case((2, 4, 5, 6), seed=11), strict=True))
    with pytest.raises(ValueError, match=message):
        splat(**(inputs | changed))


class TestNative:
    """The module by itself: it checks every argument before it touches memory."""

    values = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    shift = np.zeros((2, 3, 4), np.float32)
    weight = np.ones((3, 4), np.float32)
    editable = np.ones((3, 4), np.bool_)

    def test_takes_numpy_and_any_strides(self) -> None:
        shift = self.shift.copy()
        shift[1] = 1
        result, holes = (
            np.full((2, 1, 4, 3), np.nan, np.float32).transpose(1, 0, 3, 2),
            self.holes(),
        )
        behind = np.float32(-1) * self.values
        turned = self.values[..., ::-1]
        _native.splat(turned, shift, self.weight, self.editable, behind, result, holes)
        assert (result[..., 1:] == turned[..., :-1]).all()
        assert (result[..., 0] == behind[..., 0]).all()
        assert (holes == (np.arange(4) == 0)).all()

    def test_refuses_sizes(self) -> None:
        whole: Any = (self.shift, self.weight, self.editable, self.values, self.values.copy())
        for place, name in enumerate(
            ("shift", "weight", "editable", "behind", "splatted", "holes")
        ):
            wrong: Any = [*whole, self.holes()]
            wrong[place] = np.ascontiguousarray(wrong[place][..., :2])
            with pytest.raises(ValueError, match=f"{name}: must"):
                _native.splat(self.values, *wrong)

    def test_refuses_types_rather_than_converting_them(self) -> None:
        whole: Any = [self.values, self.shift, self.weight, self.editable, self.values]
        for place in range(5):
            wrong: Any = [*whole, self.values.copy(), self.holes()]
            wrong[place] = wrong[place].astype(np.float64)
            with pytest.raises(TypeError):
                _native.splat(*wrong)

    def holes(self) -> Any:
        return np.zeros((3, 4), np.bool_)


def test_a_module_that_was_built_before_is_named_and_the_formula_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = case((1, 2, 5, 6), seed=12)
    expected = splat(*inputs)
    has_native._is_built.cache_clear()
    monkeypatch.setattr(f"{has_native.__name__}.importlib.import_module", lambda name: object())
    try:
        with caplog.at_level(logging.WARNING, "dragnoise"):
            assert_equal(splat(*inputs), expected)
            assert_equal(splat(*inputs), expected)
    finally:
        has_native._is_built.cache_clear()
    assert [one.message for one in caplog.records] == [
        "the C++ kernels were built before splat was one of them, and its formula runs, which is "
        "slower; install dragnoise anew"
    ]
