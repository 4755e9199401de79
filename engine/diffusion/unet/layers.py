"""Build the layers of a Stable Diffusion U-Net over the weights of diffusers' modules.

`Operators` choose what they are computed with. Two things differ from diffusers' own forward, and
neither changes a number but for rounding: what depends on the step alone (every residual block's
projection of the time embedding, with its convolution's bias) and what depends on the text alone
(every cross attention's keys and values) is computed once and handed in packed: times [S], text
[B, L, P]; each layer knows its slice.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .held import ConvWeight, HeldNetwork
from .mutual import MutualAttention
from .operators import Biased, Layer, Norm, Operators, TokenNorm, in_a_row
from .sums import Sum

__all__ = ["Adapt", "Build", "EndBiases", "Layers", "Level", "Resnet", "Transformer", "joined"]


Adapt = Callable[[nn.Linear, Layer], Layer]
"""(a projection of an attention, the layer that computes it) -> what is computed in its place."""


@dataclass
class Build:
    """A builder of layers that remembers which slice of times and text each of them reads.

    Attributes:
        operators: What layers are computed with.
        holder: The network that they are of.
        adapt: What is computed in place of an attention's projection, if anything.
        mutual: What self-attentions show to and read from other passes.
        times: Projections of the time embedding, with the convolution whose bias they take along,
            in the order of the packed times.
        texts: Projections of the text to keys and values, in the order of the packed text.
    """

    operators: Operators
    holder: HeldNetwork
    adapt: Adapt | None = None
    mutual: MutualAttention = field(default_factory=MutualAttention)
    times: list[tuple[nn.Linear, nn.Conv2d]] = field(default_factory=list)
    texts: list[tuple[nn.Linear, nn.Linear]] = field(default_factory=list)

    def time_slice(self, projection: nn.Linear, conv: nn.Conv2d) -> slice:
        start = sum(linear.out_features for linear, _ in self.times)
        self.times.append((projection, conv))
        return slice(start, start + projection.out_features)

    def text_slices(self, keys: nn.Linear, values: nn.Linear) -> tuple[slice, slice]:
        start = sum(key.out_features + value.out_features for key, value in self.texts)
        self.texts.append((keys, values))
        middle = start + keys.out_features
        return slice(start, middle), slice(middle, middle + values.out_features)

    def conv(self, module: nn.Conv2d) -> Biased:
        return self.conv_with(module, module.bias)

    def conv_with(self, module: nn.Conv2d, bias: Tensor | None) -> Biased:
        """Return a convolution with another bias than its own."""
        weight = ConvWeight(module, self.holder)
        return self.operators.conv(weight, bias, module.stride[0], int(module.padding[0]))

    def end_biases(self, module: Any) -> "EndBiases":
        """Return what is added at a residual block's end beside its map and its change."""
        inner, shortcut = module.conv2.bias, module.conv_shortcut
        outer = None if shortcut is None else shortcut.bias
        if not self.operators.joint:
            return EndBiases(inner, outer, None)
        known = [bias for bias in (inner, outer) if bias is not None]
        return EndBiases(None, None, sum(known[1:], known[0]) if known else None)

    def linear(self, module: nn.Linear) -> Layer:
        return self.operators.linear(module.weight, module.bias)

    def projection(self, module: nn.Linear) -> Layer:
        """Return a projection of an attention: what an adapter changes."""
        plain = self.linear(module)
        return plain if self.adapt is None else self.adapt(module, plain)

    def joint(self, modules: Sequence[nn.Linear]) -> Layer | None:
        """Return projections as one product, where nothing changes one and weights allow it."""
        plain = self.adapt is None and all(module.bias is None for module in modules)
        if not plain or not self.operators.joint:
            return None
        row = in_a_row([module.weight for module in modules])
        return None if row is None else self.operators.linear(row, None)


class EndBiases(NamedTuple):
    """Biases [O] at a residual block's end.

    Attributes:
        inner: Of the second convolution.
        outer: Of the shortcut.
        joint: Of both, where they are one that is added to the sum.
    """

    inner: Tensor | None
    outer: Tensor | None
    joint: Tensor | None


def _norm_of(operators: Operators, module: nn.GroupNorm, silu: bool) -> Norm:
    return operators.norm(module.weight, module.bias, module.num_groups, module.eps, silu)


@dataclass(frozen=True, eq=False)
class Resnet:
    """A residual block on maps [B, C, H, W]; its first convolution's bias comes with the times.

    Attributes:
        norm1: Before the first convolution.
        conv1: The first convolution; joint without a bias, else with whatever it is given.
        norm2: Before the second convolution.
        conv2: The second convolution.
        shortcut: Of the input; None for the input itself.
        end: A bias that is added to the sum, [1, O, 1, 1], if any.
        scale: What the sum is divided by.
        times: The block's slice of the packed times.
        joint: Whether the second normalisation adds what the step adds.
    """

    norm1: Norm
    conv1: Biased
    norm2: Norm
    conv2: Biased
    shortcut: Biased | None
    end: Tensor | None
    scale: float
    times: slice
    joint: bool

    @classmethod
    def of(cls, build: Build, module: Any) -> "Resnet":
        shortcut = module.conv_shortcut
        inner, outer, end = build.end_biases(module)
        joint = build.operators.joint
        return cls(
            _norm_of(build.operators, module.norm1, silu=True),
            build.conv_with(module.conv1, None if joint else module.conv1.bias),
            _norm_of(build.operators, module.norm2, silu=True),
            build.conv_with(module.conv2, inner),
            None if shortcut is None else build.conv_with(shortcut, outer),
            None if end is None else end[None, :, None, None],
            module.output_scale_factor,
            build.time_slice(module.time_emb_proj, module.conv1),
            joint,
        )

    def __call__(self, hidden: Sum, times: Tensor) -> Sum:
        first = self._first(hidden.normed(self.norm1), times[..., self.times])
        inner = self.conv2(first.normed(self.norm2))
        outer = hidden.value() if self.shortcut is None else self.shortcut(hidden.value())
        return joined(outer, inner, self.end, self.scale)

    def _first(self, normed: Tensor, own: Tensor) -> Sum:
        """Run the first convolution and add what the step adds.

        Args:
            normed: [B, C, H, W].
            own: [O], or [B, O] where every entry of the batch has a step of its own.
        """
        if own.ndim == 1 and not self.joint:
            return Sum(self.conv1(normed, own))
        plus = torch.atleast_2d(own)[:, :, None, None]
        no_bias = None if self.joint else own.new_zeros(own.shape[-1])
        return Sum(self.conv1(normed, no_bias), plus=plus)


def joined(outer: Tensor, inner: Tensor, plus: Tensor | None, scale: float) -> Sum:
    """Return a residual block's end."""
    ends = Sum(outer, inner, plus)
    return ends if scale == 1 else Sum(ends.value() / scale)


@dataclass(frozen=True, eq=False)
class _OwnTokens:
    """What a self-attention reads: its tokens, or another pass's keys and values.

    Attributes:
        key: Projection of the tokens [B, L, C].
        value: Projection of the tokens [B, L, C].
        query: Projection of the tokens [B, L, C].
        joint: All three in this order as one [B, L, 3 C]; None where they are not.
        number: Of the self-attention in its network.
        mutual: What is shown to and read from other passes.
    """

    key: Layer
    value: Layer
    query: Layer
    joint: Layer | None
    number: int
    mutual: MutualAttention

    @classmethod
    def of(cls, build: Build, module: Any) -> "_OwnTokens":
        modules = (module.to_k, module.to_v, module.to_q)
        key, value, query = (build.projection(each) for each in modules)
        return cls(key, value, query, build.joint(modules), build.mutual.add(), build.mutual)

    def __call__(self, hidden: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        read = self.mutual.read(self.number)
        if read is not None:
            return self.query(hidden), *read
        if self.joint is None:
            key, value, query = self.key(hidden), self.value(hidden), self.query(hidden)
        else:
            key, value, query = self.joint(hidden).chunk(3, dim=-1)
        self.mutual.show(self.number, key, value)
        return query, key, value


@dataclass(frozen=True, eq=False)
class _Text:
    """What a cross-attention reads: its tokens, and slices of the packed text [B, L, P]."""

    query: Layer
    key: slice
    value: slice

    @classmethod
    def of(cls, build: Build, module: Any) -> "_Text":
        return cls(build.projection(module.to_q), *build.text_slices(module.to_k, module.to_v))

    def __call__(self, hidden: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.query(hidden), text[..., self.key], text[..., self.value]


@dataclass(frozen=True, eq=False)
class _Attention:
    """Self-attention, or cross-attention on packed keys and values.

    Attributes:
        read: (tokens, packed text) -> queries [B, L, C], keys and values [B, M, C].
        out: Projection of the result.
        heads: How many.
        attend: Query, key, value [B, L, heads, d] -> [B, L, heads, d].
    """

    read: _OwnTokens | _Text
    out: Layer
    heads: int
    attend: Callable[[Tensor, Tensor, Tensor], Tensor]

    @classmethod
    def of(cls, build: Build, module: Any, cross: bool) -> "_Attention":
        return cls(
            _Text.of(build, module) if cross else _OwnTokens.of(build, module),
            build.projection(module.to_out[0]),
            module.heads,
            build.operators.attention,
        )

    def __call__(self, hidden: Tensor, text: Tensor) -> Tensor:
        given = self.read(hidden, text)
        query, key, value = (
            tensor.to(given[0].dtype).unflatten(2, (self.heads, -1)) for tensor in given
        )
        return self.out(self.attend(query, key, value).flatten(2))


@dataclass(frozen=True, eq=False)
class _Block:
    """Self-attention, cross-attention and a gated feed-forward layer (GEGLU).

    Each runs on normed tokens [B, L, C] and is added to them.
    """

    norms: tuple[TokenNorm, ...]
    attentions: tuple[_Attention, ...]
    gate: Layer
    gated: Layer
    out: Layer

    @classmethod
    def of(cls, build: Build, module: Any) -> "_Block":
        return cls(
            tuple(
                build.operators.token_norm(norm.weight, norm.bias, norm.eps)
                for norm in (module.norm1, module.norm2, module.norm3)
            ),
            (
                _Attention.of(build, module.attn1, cross=False),
                _Attention.of(build, module.attn2, cross=True),
            ),
            build.linear(module.ff.net[0].proj),
            build.operators.gated,
            build.linear(module.ff.net[2]),
        )

    def __call__(self, tokens: Tensor, text: Tensor) -> Tensor:
        normed = self.norms[0](tokens)
        for attention, norm in zip(self.attentions, self.norms[1:], strict=True):
            tokens, normed = norm.added(attention(normed, text), tokens)
        return self.out(self.gated(self.gate(normed))) + tokens


@dataclass(frozen=True, eq=False)
class Transformer:
    """Attention over the places of a map [B, C, H, W].

    The projections in and out are 1 x 1 convolutions in 1.x and linear in 2.x: the same on tokens.
    """

    norm: Norm
    into: Layer
    blocks: tuple[_Block, ...]
    out: Layer
    memory_format: torch.memory_format

    @classmethod
    def of(cls, build: Build, module: Any) -> "Transformer":
        def on_tokens(projection: nn.Conv2d | nn.Linear) -> Layer:
            return build.operators.linear(projection.weight.flatten(1), projection.bias)

        return cls(
            _norm_of(build.operators, module.norm, silu=False),
            on_tokens(module.proj_in),
            tuple(_Block.of(build, block) for block in module.transformer_blocks),
            on_tokens(module.proj_out),
            build.operators.memory_format,
        )

    def __call__(self, hidden: Sum, text: Tensor) -> Sum:
        tokens = self.into(hidden.normed(self.norm).flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens, text)
        before = hidden.value()
        change = self.out(tokens).transpose(1, 2).reshape(before.shape)
        return Sum(change.contiguous(memory_format=self.memory_format), before)


@dataclass(frozen=True, eq=False)
class Level:
    """A block of the U-Net.

    Attributes:
        resnets: Residual blocks.
        transformers: The attention after each; None where there is none.
        sampler: The convolution that changes the size; None in the last block.
    """

    resnets: tuple[Resnet, ...]
    transformers: tuple[Transformer | None, ...]
    sampler: Biased | None

    @classmethod
    def of(cls, build: Build, module: Any) -> "Level":
        resnets = tuple(Resnet.of(build, resnet) for resnet in module.resnets)
        attentions: Iterable[Any] = getattr(module, "attentions", None) or ()
        transformers = tuple(Transformer.of(build, attention) for attention in attentions)
        samplers = getattr(module, "downsamplers", None) or getattr(module, "upsamplers", None)
        padded = transformers + (None,) * (len(resnets) - len(transformers))
        sampler = build.conv(samplers[0].conv) if samplers else None
        return cls(resnets, padded, sampler)

    def upsampled(self, hidden: Sum, size: tuple[int, ...] | None) -> Sum:
        """Enlarge a map to `size` (height, width), or the double, where the block does so.

        By nearest neighbours, then the convolution.
        """
        if self.sampler is None:
            return hidden
        smaller = hidden.value()
        larger = (2 * smaller.shape[2], 2 * smaller.shape[3]) if size is None else size
        return Sum(self.sampler(F.interpolate(smaller, size=larger, mode="nearest")))


@dataclass(frozen=True, eq=False)
class Layers:
    """All layers of a network, built over its weights.

    Attributes:
        build: What built them, and which slice of times and text each of them reads.
        conv_in: The first convolution.
        downs: The encoder half's blocks.
        middle: The middle block.
        ups: The decoder half's blocks.
        norm_out: Before the last convolution.
        conv_out: The last convolution.
    """

    build: Build
    conv_in: Biased
    downs: tuple[Level, ...]
    middle: Level
    ups: tuple[Level, ...]
    norm_out: Norm
    conv_out: Biased

    @classmethod
    def of(cls, build: Build) -> "Layers":
        network = build.holder.network
        return cls(
            build,
            build.conv(network.conv_in),
            tuple(Level.of(build, block) for block in network.down_blocks),
            Level.of(build, network.mid_block),
            tuple(Level.of(build, block) for block in network.up_blocks),
            _norm_of(build.operators, network.conv_norm_out, silu=True),
            build.conv(network.conv_out),
        )
