"""Attention whose gradients are the same bits every time: PyTorch's forward pass, our gradients.

For every entry of the batch and every head, with scale d^-1/2 (Vaswani et al. 2017):

    P = softmax(scale Q K^T),    O = P V

and with G the gradient of O, D_i = sum over d of G_i O_i (Dao et al. 2022, appendix B.2):

    S = P (G V^T - D),    gradient of Q = scale S K,  of K = scale S^T Q,  of V = P^T G

| tensor       | shape            | dtype     | meaning                                          |
|--------------|------------------|-----------|--------------------------------------------------|
| query        | [B, L, heads, d] | any float | Q                                                |
| key, value   | [B, M, heads, d] | as query  | K, V                                             |
| attended     | [B, L, heads, d] | as query  | O, by the kernel that PyTorch chooses            |
| gradient     | [B, L, heads, d] | as query  | G                                                |
| statistics   | [2, B, heads, L] | float32   | log2 of every query's sum in the softmax, and D; |
|              |                  |           | float64 if query is                              |

PyTorch's own fused gradients add up the blocks of keys in whatever order they end. Here a program
of a GPU owns a block of queries, or a block of keys, and walks along the others in one order: no
atomics. The softmax's sums are found again, so that any forward pass will do. On a CPU the formula
runs: PyTorch's own attention is deterministic there, and faster.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .has_triton import has_triton

__all__ = ["attention", "has_kernels", "reference_key_gradient", "reference_query_gradient"]

WIDEST = {torch.float32: 64, torch.float16: 256, torch.bfloat16: 256}
"""Channels a head that the GPU's kernels take at most, by dtype: more would not fit its registers.

Wider heads have few places in Stable Diffusion, and run by the formula.
"""


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return O of the formula, contiguous and differentiable.

    Args:
        query: [B, L, heads, d], any float dtype.
        key: [B, M, heads, d].
        value: [B, M, heads, d].

    Raises:
        ValueError: Shapes or dtypes do not fit each other.
    """
    _check(query, key, value)
    attended: Tensor = _forward(query, key, value)
    return attended


def reference_query_gradient(
    gradient: Tensor, attended: Tensor, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what the kernels must equal: the gradient of the query, and the statistics."""
    exact = _exact(query)
    g, o, q, k, v = (_by_head(one, exact) for one in (gradient, attended, query, key, value))
    scores = q @ k.mT * query.shape[-1] ** -0.5
    sums = scores.logsumexp(dim=-1)
    d = (g * o).sum(dim=-1)
    s = (scores - sums[..., None]).exp() * (g @ v.mT - d[..., None])
    of_query = (s @ k * query.shape[-1] ** -0.5).transpose(1, 2)
    return of_query.to(query.dtype).contiguous(), torch.stack([sums * _LOG2_E, d])


def reference_key_gradient(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, statistics: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what the kernels must equal: the gradients of the key and of the value."""
    exact = _exact(query)
    g, q, k, v = (_by_head(one, exact) for one in (gradient, query, key, value))
    sums, d = statistics.unsqueeze(-1)
    scale = query.shape[-1] ** -0.5
    p = (q @ k.mT * scale - sums / _LOG2_E).exp()
    s = p * (g @ v.mT - d)
    of_key, of_value = ((one.mT @ by).transpose(1, 2) for one, by in ((s * scale, q), (p, g)))
    return of_key.to(key.dtype).contiguous(), of_value.to(value.dtype).contiguous()


_LOG2_E = 1.4426950408889634


def _exact(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _by_head(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor [B, L, heads, d] as [B, heads, L, d]."""
    return tensor.detach().to(dtype).transpose(1, 2)


def _check(query: Tensor, key: Tensor, value: Tensor) -> None:
    shapes = [list(one.shape) for one in (query, key, value)]
    if query.ndim != 4 or 0 in query.shape or 0 in key.shape or key.shape != value.shape:
        raise ValueError(f"query must be [B, L, heads, d], key and value one shape, got {shapes}")
    if key.ndim != 4 or (key.shape[0], *key.shape[2:]) != (query.shape[0], *query.shape[2:]):
        raise ValueError(f"key must be [B, M, heads, d] with the query's B, heads, d, got {shapes}")
    if not query.dtype == key.dtype == value.dtype:
        raise ValueError(
            f"query, key and value must have one dtype, "
            f"got {query.dtype}, {key.dtype} and {value.dtype}"
        )


def has_kernels(query: Tensor) -> bool:
    """Whether a GPU's kernels take heads of that width and dtype; else the formula runs."""
    return has_triton() and query.shape[-1] <= WIDEST.get(query.dtype, 0)


@torch.library.custom_op("dragnoise::attention", mutates_args=())
def _forward(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (one.transpose(1, 2) for one in (query, key, value))
    attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    return attended.contiguous()


@_forward.register_fake
def _(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return query.new_empty(query.shape)


@torch.library.custom_op("dragnoise::attention_query_gradient", mutates_args=())
def _query_gradient(
    gradient: Tensor, attended: Tensor, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the query, contiguous, and the statistics."""
    return reference_query_gradient(gradient, attended, query, key, value)


@_query_gradient.register_kernel("cuda")
def _(
    gradient: Tensor, attended: Tensor, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    if not has_kernels(query):
        return reference_query_gradient(gradient, attended, query, key, value)
    from .gpu.attention import query_gradient

    return query_gradient(gradient, attended, query, key, value)


@_query_gradient.register_fake
def _(
    gradient: Tensor, attended: Tensor, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    batch, length, heads, _ = query.shape
    statistics = query.new_empty(2, batch, heads, length, dtype=_exact(query))
    return query.new_empty(query.shape), statistics


@torch.library.custom_op("dragnoise::attention_key_gradient", mutates_args=())
def _key_gradient(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, statistics: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the key and the value, contiguous."""
    return reference_key_gradient(gradient, query, key, value, statistics)


@_key_gradient.register_kernel("cuda")
def _(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, statistics: Tensor
) -> tuple[Tensor, Tensor]:
    if not has_kernels(query):
        return reference_key_gradient(gradient, query, key, value, statistics)
    from .gpu.attention import key_gradient

    return key_gradient(gradient, query, key, value, statistics)


@_key_gradient.register_fake
def _(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, statistics: Tensor
) -> tuple[Tensor, Tensor]:
    return key.new_empty(key.shape), value.new_empty(value.shape)


def _keep(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor
) -> None:
    ctx.save_for_backward(*inputs, output)


def _backward(
    ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
) -> tuple[Tensor | None, ...]:
    """Return the gradients; a text's keys and values want none, and cost nothing then."""
    query, key, value, attended = ctx.saved_tensors  # type: ignore[attr-defined]
    of_query, statistics = _query_gradient(gradient, attended, query, key, value)
    if not any(ctx.needs_input_grad[1:]):  # type: ignore[attr-defined]
        return of_query, None, None
    return of_query, *_key_gradient(gradient, query, key, value, statistics)


_forward.register_autograd(_backward, setup_context=_keep)
