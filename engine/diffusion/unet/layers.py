"""Build the layers of a Stable Diffusion U-Net over the weights of diffusers' modules.

`Operators` choose what they are computed with. Two things differ from diffusers' own forward, and
neither changes a number but for rounding: what depends on the step alone (every residual block's
projection of the time embedding, with its convolution's bias) and what depends on the text alone
(every cross attention's keys and values) is computed once and handed in packed: times [S], text
[B, L, P]; each layer knows its slice.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .held import ConvWeight, HeldNetwork
from .mutual import MutualAttention
from .operators import Biased, Layer, Operators, TokenNorm, in_a_row

__all__ = ["Adapt", "Build", "Layers", "Level", "Resnet", "Transformer", "norm_of", "scaled"]


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

    def end_biases(self, module: Any) -> tuple[Tensor | None, Tensor | None]:
        """Return the biases of a residual block's second convolution and of its shortcut.

        Both are added to the same sum: joint, they are one, the shortcut's.
        """
        inner, shortcut = module.conv2.bias, module.conv_shortcut
        outer = None if shortcut is None else shortcut.bias
        if self.operators.joint and inner is not None and outer is not None:
            return None, inner + outer
        return inner, outer

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


def norm_of(operators: Operators, module: nn.GroupNorm, silu: bool) -> Layer:
    return operators.norm(module.weight, module.bias, module.num_groups, module.eps, silu)


@dataclass(frozen=True, eq=False)
class Resnet:
    """A residual block on maps [B, C, H, W]; its first convolution's bias comes with the times.

    Attributes:
        norm1: Before the first convolution.
        conv1: The first convolution.
        norm2: Before the second convolution.
        conv2: The second convolution.
        shortcut: Of the input; None for the input itself.
        scale: What the sum is divided by.
        times: The block's slice of the packed times.
    """

    norm1: Layer
    conv1: Biased
    norm2: Layer
    conv2: Biased
    shortcut: Biased | None
    scale: float
    times: slice

    @classmethod
    def of(cls, build: Build, module: Any) -> "Resnet":
        shortcut = module.conv_shortcut
        inner, outer = build.end_biases(module)
        return cls(
            norm_of(build.operators, module.norm1, silu=True),
            build.conv(module.conv1),
            norm_of(build.operators, module.norm2, silu=True),
            build.conv_with(module.conv2, inner),
            None if shortcut is None else build.conv_with(shortcut, outer),
            module.output_scale_factor,
            build.time_slice(module.time_emb_proj, module.conv1),
        )

    def __call__(self, hidden: Tensor, times: Tensor) -> Tensor:
        inner = self.conv2(self.norm2(self._first(hidden, times[..., self.times])))
        outer = hidden if self.shortcut is None else self.shortcut(hidden)
        return scaled(outer + inner, self.scale)

    def _first(self, hidden: Tensor, own: Tensor) -> Tensor:
        """Run the first convolution and add what the step adds.

        Args:
            hidden: [B, C, H, W].
            own: [O], or [B, O] where every entry of the batch has a step of its own.
        """
        if own.ndim == 1:
            return self.conv1(self.norm1(hidden), own)
        return self.conv1(self.norm1(hidden), own.new_zeros(own.shape[1])) + own[:, :, None, None]


def scaled(hidden: Tensor, scale: float) -> Tensor:
    return hidden if scale == 1 else hidden / scale


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

    norm: Layer
    into: Layer
    blocks: tuple[_Block, ...]
    out: Layer
    memory_format: torch.memory_format

    @classmethod
    def of(cls, build: Build, module: Any) -> "Transformer":
        def on_tokens(projection: nn.Conv2d | nn.Linear) -> Layer:
            return build.operators.linear(projection.weight.flatten(1), projection.bias)

        return cls(
            norm_of(build.operators, module.norm, silu=False),
            on_tokens(module.proj_in),
            tuple(_Block.of(build, block) for block in module.transformer_blocks),
            on_tokens(module.proj_out),
            build.operators.memory_format,
        )

    def __call__(self, hidden: Tensor, text: Tensor) -> Tensor:
        tokens = self.into(self.norm(hidden).flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens, text)
        change = self.out(tokens).transpose(1, 2).reshape(hidden.shape)
        return change.contiguous(memory_format=self.memory_format) + hidden


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

    def upsampled(self, hidden: Tensor, size: tuple[int, ...] | None) -> Tensor:
        """Enlarge a map to `size` (height, width), or the double, where the block does so.

        By nearest neighbours, then the convolution.
        """
        if self.sampler is None:
            return hidden
        larger = (2 * hidden.shape[2], 2 * hidden.shape[3]) if size is None else size
        return self.sampler(F.interpolate(hidden, size=larger, mode="nearest"))


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
    norm_out: Layer
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
            norm_of(build.operators, network.conv_norm_out, silu=True),
            build.conv(network.conv_out),
        )
