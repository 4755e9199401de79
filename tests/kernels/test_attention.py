"""Our gradients of attention equal PyTorch's in float64, and are the same bits every time.

On the CPU by the formula, and the GPU's kernels interpreted.
"""

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from called import Called
from dragnoise.kernels.attention import (
    attention,
    reference_key_gradient,
    reference_query_gradient,
)
from tolerances import assert_close

SHAPES = {
    "blocks that are whole": (1, 64, 64, 2, 16),
    "a text's keys": (2, 33, 7, 2, 20),
    "one query, one key": (1, 1, 1, 1, 8),
    "more keys than queries": (1, 5, 70, 3, 40),
    "heads of odd width": (1, 40, 35, 1, 13),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
every_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str
)
_FORWARD = torch.ops.dragnoise.attention.default
_OF_QUERY = torch.ops.dragnoise.attention_query_gradient.default
_OF_KEY = torch.ops.dragnoise.attention_key_gradient.default

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or torch.cuda.is_available(),
    reason="interpreted only where Triton is installed and no CUDA device is",
)


def inputs(shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """query, key, value and a gradient; key and value are slices of a wider row, as a text's."""
    batch, queries, keys, heads, width = shape
    torch.manual_seed(sum(shape))
    text = torch.randn(batch, keys, 2 * heads * width + 3)
    key, value = (
        text[..., start : start + heads * width].to(dtype).unflatten(2, (heads, -1))
        for start in (3, 3 + heads * width)
    )
    query, gradient = torch.randn(2, batch, queries, heads, width).to(dtype).unbind()
    return [2 * query, key, value, gradient]


def truth(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """The result and the three gradients, by PyTorch in float64."""
    leaves = [one.detach().double().requires_grad_() for one in (query, key, value)]
    q, k, v = (one.transpose(1, 2) for one in leaves)
    attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    return [attended.detach(), *torch.autograd.grad(attended, leaves, gradient.double())]


def check(found: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    for mine, true in zip(found, expected, strict=True):
        assert mine.dtype == dtype
        assert mine.is_contiguous()
        scale = true.abs().max().clamp(min=1)
        assert_close(mine / scale, true / scale, dtype)


@every_shape
@every_dtype
def test_on_the_cpu(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    *given, gradient = inputs(shape, dtype)
    leaves = [one.detach().requires_grad_() for one in given]
    attended = attention(*leaves)
    gradients = torch.autograd.grad(attended, leaves, gradient)
    check([attended.detach(), *gradients], truth(gradient, *given), dtype)


@needs_triton
@every_shape
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("tile", [(16, 32), (32, 16)], ids=str)
def test_the_gpus_kernels_interpreted(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    tile: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without bfloat16: Triton's interpreter multiplies its bits as whole numbers."""
    from dragnoise.kernels.gpu import attention as gpu

    padded = gpu.tiling(shape[-1], dtype)[0]
    monkeypatch.setattr(gpu, "tiling", lambda dim, dtype: (padded, *tile, 4))
    *given, gradient = inputs(shape, dtype)
    query, key, value = given
    expected = truth(gradient, *given)
    attended = expected[0].to(dtype)
    of_query, statistics = gpu.query_gradient(gradient, attended, *given)
    of_key, of_value = gpu.key_gradient(gradient, query, key, value, statistics)
    check([of_query, of_key, of_value], expected[1:], dtype)
    _, true = reference_query_gradient(gradient, attended, *given)
    assert_close(statistics / true.abs().max(), true / true.abs().max(), torch.float32)
    for one in given:
        one.requires_grad_()
    plain = reference_key_gradient(gradient, query, key, value, true)
    check(list(plain), expected[2:], dtype)


@needs_triton
def test_large_scores_interpreted() -> None:
    """Scores of thousands: one key has all the weight, and nothing overflows."""
    from dragnoise.kernels.gpu import attention as gpu

    *given, gradient = inputs((1, 20, 24, 1, 16), torch.float32)
    given[0] = given[0] * 500
    query, key, value = given
    expected = truth(gradient, *given)
    of_query, statistics = gpu.query_gradient(gradient, expected[0].float(), *given)
    found = [of_query, *gpu.key_gradient(gradient, query, key, value, statistics)]
    for mine, true in zip(found, expected[1:], strict=True):
        assert float((mine - true).abs().max()) < 2e-3 * float(true.abs().max().clamp(min=1))


def test_a_text_wants_no_gradient() -> None:
    *given, gradient = inputs(SHAPES["a text's keys"], torch.float32)
    leaf = given[0].requires_grad_()
    attended = attention(*given)
    with Called() as called:
        (found,) = torch.autograd.grad(attended, leaf, gradient)
    assert called.times["dragnoise::attention_query_gradient"] == 1
    assert called.times["dragnoise::attention_key_gradient"] == 0
    check([found], truth(gradient, *given)[1:2], torch.float32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"query": torch.zeros(1, 4, 8)}, r"query must be \[B, L, heads, d\]"),
        ({"query": torch.zeros(1, 0, 2, 8)}, r"query must be \[B, L, heads, d\]"),
        ({"value": torch.zeros(1, 5, 2, 8)}, "key and value one shape"),
        ({"query": torch.zeros(1, 4, 2, 16)}, "with the query's B, heads, d"),
        ({"query": torch.zeros(1, 4, 2, 8).half()}, "one dtype, got torch.float16"),
    ],
)
def test_refusals(change: dict[str, Tensor], words: str) -> None:
    given = {name: torch.zeros(1, 6, 2, 8) for name in ("query", "key", "value")}
    with pytest.raises(ValueError, match=words):
        attention(**(given | change))


def test_operators() -> None:
    for dtype in (torch.float32, torch.float64):
        *given, gradient = inputs((2, 5, 6, 2, 8), dtype)
        torch.library.opcheck(_FORWARD, tuple(one.clone().requires_grad_() for one in given))
        attended = attention(*given)
        torch.library.opcheck(_OF_QUERY, (gradient, attended, *given))
        _, statistics = _OF_QUERY(gradient, attended, *given)
        torch.library.opcheck(_OF_KEY, (gradient, *given, statistics))


def test_in_a_compiled_function() -> None:
    *given, _ = inputs((1, 9, 6, 2, 8), torch.float32)

    def run(query: Tensor) -> Tensor:
        return attention(query, given[1], given[2]).square().sum()

    mine, theirs = (given[0].clone().requires_grad_() for _ in range(2))
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    (gradient,) = torch.autograd.grad(compiled(mine), mine)
    (expected,) = torch.autograd.grad(run(theirs), theirs)
    assert torch.equal(gradient, expected)


@pytest.mark.gpu
@every_dtype
@pytest.mark.parametrize(
    "shape",
    [(1, 4096, 4096, 8, 40), (1, 1024, 77, 8, 80), (2, 256, 256, 8, 160), (1, 100, 100, 2, 13)],
    ids=str,
)
def test_on_cuda(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    *given, gradient = (one.cuda() for one in inputs(shape, dtype))
    leaves = [one.detach().requires_grad_() for one in given]
    runs = []
    for _ in range(4):
        attended = attention(*leaves)
        runs.append([attended.detach(), *torch.autograd.grad(attended, leaves, gradient)])
    check(runs[0], truth(gradient, *given), dtype)
    for again in runs[1:]:
        assert all(torch.equal(*pair) for pair in zip(runs[0], again, strict=True))
