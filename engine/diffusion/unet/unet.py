"""Run a Stable Diffusion U-Net in parts, cut at the bottleneck: down | middle | up.

The layers are our own, over the weights of diffusers' network. `down` and `middle` depend on
(latent, step, text) alone, so within a drag, where none of these changes, they run once; `up` runs
with any bottleneck. Run in a row the three are the network. Every part (`diffusion/parts.py`) is a
function of tensors alone, so that a backend can compile, capture or export it:

    part           takes                                       returns
    unet           latent, times, text                         output
    unet-replaced  latent, times, text, bottleneck             output, without the middle block
    down           latent, times, text                         the skips, and the middle's input
    middle         the middle block's input, times, text       bottleneck
    up             bottleneck, skips, times, text,             features or None, output or None
                   feature_block, output
    folded         bottleneck, constants, text, sizes,         features or None, output or None
                   feature_block, output, anchors
    unet-features  latent, times, text, feature_block, output  features, output or None
    unet-showing   latent, times, text, first_layer            output, *shown
    unet-reading   latent, times, text, *shown                 output

    latent, output  [B, 4, H, W]        times  [S], or [B, S] with a step for every entry
    bottleneck      [B, C, h, w]        text   [B, L, P]
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ...cache.structure import storable
from ...errors import ModelError
from ..parts import (
    DOWN,
    FOLDED,
    MIDDLE,
    UNET,
    UNET_FEATURES,
    UNET_READING,
    UNET_REPLACED,
    UNET_SHOWING,
    UP,
    Part,
    PartFunction,
    PartWrapper,
)
from .anchored import Anchor, Anchors
from .check import changes_to, objections_to
from .conditioning import Conditioning, Step
from .folded import Constants, FoldedResnet
from .guidance import UNGUIDED, Guidance
from .held import HeldNetwork
from .layers import Adapt, Build, Layers
from .mutual import Shown
from .operators import Operators
from .sums import Sum

__all__ = ["FEATURE_BLOCK", "Down", "Folded", "UNet", "Up"]

FEATURE_BLOCK = 2
"""The up block whose map is supervised: [640, 64, 64] in Stable Diffusion 1.5 at 512 pixels."""

T = TypeVar("T")


@storable
@dataclass(frozen=True, eq=False)
class Down:
    """A result of the encoder half.

    Attributes:
        step: The step that it ran at.
        skips: [B, C_i, h_i, w_i] each, from high to low resolution.
        bottom: The middle block's input [B, C, h, w].
    """

    step: Step
    skips: tuple[Tensor, ...]
    bottom: Tensor


@dataclass(frozen=True, eq=False)
class Up:
    """A result of the decoder half.

    Attributes:
        features: The feature map of the wanted block [B, C, h, w]; guided [1, 2 C, h, w]. None if
            no block was named.
        output: The network's output [B, 4, H, W]; guided [1, 4, H, W]. None if not wanted.
    """

    features: Tensor | None
    output: Tensor | None


@storable
@dataclass(frozen=True, eq=False)
class Folded:
    """A decoder half on fixed skips, as far as it is known before the bottleneck is.

    Attributes:
        constants: What the skips contribute to every residual block, by level.
        text: The text's keys and values [B, L, P].
        sizes: (height, width) that every level upsamples to; None for the double.
        guidance: How far the text guides.
        anchors: What every layer read and returned at the drag's start, in the order in which they
            run, where the precision is coarse (anchored.py).
    """

    constants: tuple[tuple[Constants, ...], ...]
    text: Tensor
    sizes: tuple[tuple[int, ...] | None, ...]
    guidance: Guidance = UNGUIDED
    anchors: tuple[Anchor, ...] = ()


class UNet:
    """A frozen `UNet2DConditionModel` in evaluation mode, run in parts.

    Latents may have any float type; they are cast to the network's. Guidance is settled here, so
    that no other module knows of it: a latent goes in once, what is between the parts (skips,
    bottlenecks) is a batch of as many as there are texts, and features and outputs come out as one.

    Args:
        network: Diffusers' network, or one that is held; its weights are used where they lie.
        operators: What layers are computed with.
        wrap: Returns what is run in a part's place; None to run the parts themselves.
        adapt: Returns what is computed in place of an attention's projection. Not of the text's
            keys and values, which come packed (`texts`: their layers).

    Raises:
        ModelError: For a network that cannot be cut, with every reason.
    """

    def __init__(
        self,
        network: UNet2DConditionModel | HeldNetwork,
        operators: Operators | None = None,
        wrap: PartWrapper | None = None,
        adapt: Adapt | None = None,
    ) -> None:
        self.held = network if isinstance(network, HeldNetwork) else HeldNetwork(network)
        if reasons := objections_to(self.config):
            raise ModelError(
                f"this U-Net cannot be dragged: {'; '.join(reasons)}. "
                "Use a Stable Diffusion 1.x or 2.x text-to-image model"
            )
        if reasons := changes_to(self.held.network):
            raise ModelError(f"this U-Net cannot be dragged as it is: {'; '.join(reasons)}")
        self.operators = operators or Operators()
        self._anchors = Anchors(self.dtype)
        self._adapt = adapt
        self._wrap = wrap
        self._wrapped: dict[Part, PartFunction] = {}

    @property
    def network(self) -> UNet2DConditionModel:
        """Diffusers' network, whose weights are plain from now on (held.py)."""
        return self.held.lend()

    @property
    def config(self) -> Mapping[str, Any]:
        """Configuration of diffusers' network."""
        config: Mapping[str, Any] = self.held.network.config
        return config

    @cached_property
    def _layers(self) -> Layers:
        """Build the layers when they first run: those of a packed network hold plain weights."""
        operators = self._anchors.operators(self.operators)
        return Layers.of(Build(operators, self.held, self._adapt))

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = next(self.held.network.parameters()).dtype
        return dtype

    @property
    def compares_in(self) -> torch.dtype:
        """The dtype of bottlenecks and features in passes that are compared (anchored.py)."""
        return torch.float32 if self._anchors.wanted else self.dtype

    @property
    def functions(self) -> Mapping[Part, PartFunction]:
        """The parts themselves, whatever is run in their place."""
        return {
            DOWN: self.part_down,
            MIDDLE: self.part_middle,
            UP: self.part_up,
            UNET: self.part_whole,
            UNET_REPLACED: self.part_replaced,
            FOLDED: self.part_folded,
            UNET_FEATURES: self.part_features,
            UNET_SHOWING: self.part_showing,
            UNET_READING: self.part_reading,
        }

    @property
    def texts(self) -> tuple[tuple[nn.Linear, nn.Linear], ...]:
        """Projections of the text to keys and to values, in the order of the packed text."""
        return tuple(self._layers.build.texts)

    @property
    def self_attentions(self) -> int:
        """How many self-attentions there are, numbered in the order in which they run."""
        return self._layers.build.mutual.layers

    @torch.no_grad()
    def condition(
        self, timesteps: Sequence[int], text: Tensor, guidance: float = 1.0
    ) -> Conditioning:
        """Compute all that the network reads beside the latent.

        Args:
            timesteps: Each 0 to 999.
            text: Embeddings [B, L, D]; with a guidance above 1 two of them, [negative, positive].
            guidance: Scale; 1 for none.

        Raises:
            ValueError: For a guidance with another number of texts.
        """
        guide = Guidance(guidance)
        if guidance != 1 and len(text) != guide.texts:
            raise ValueError(
                f"guidance {guidance:g} takes a negative and a positive text, got {len(text)}"
            )
        net = self.held.network
        build = self._layers.build
        text = text.to(self.dtype)
        projected_times = net.time_proj(torch.tensor(timesteps, device=text.device))
        active = F.silu(net.time_embedding(projected_times.to(self.dtype)))
        times = [projection(active) + conv.bias for projection, conv in build.times]
        packed = [projected for both in build.texts for projected in (both[0](text), both[1](text))]
        return Conditioning(
            tuple(timesteps), text, torch.cat(packed, dim=2), torch.cat(times, dim=1), guide
        )

    def step(self, timestep: int, text: Tensor) -> Step:
        """Compute a single step: `condition` for one timestep."""
        return self.condition((timestep,), text).at(timestep)

    def down(self, latent: Tensor, step: Step) -> Down:
        """Run the encoder half on a latent [B, 4, H, W]."""
        *skips, bottom = self.run(DOWN)(step.guidance.latents(latent), step.times, step.text)
        return Down(step, tuple(skips), bottom)

    def middle(self, down: Down) -> Tensor:
        """Return the bottleneck [B, C, h, w] that the network itself computes."""
        bottleneck: Tensor = self.run(MIDDLE)(down.bottom, down.step.times, down.step.text)
        return bottleneck

    def up(
        self, down: Down, bottleneck: Tensor, feature_block: int | None = None, output: bool = True
    ) -> Up:
        """Run the decoder half with `bottleneck` [B, C, h, w] in place of the middle block's.

        Args:
            down: The encoder half's results.
            bottleneck: [B, C, h, w].
            feature_block: Number of the up block whose feature map is returned, 0 to 3.
            output: Whether the network's output is wanted; without it the pass stops after
                `feature_block`.
        """
        step = down.step
        run = self.run(UP)
        results = run(bottleneck, down.skips, step.times, step.text, feature_block, output)
        return _guided(step.guidance, *results)

    @torch.no_grad()
    def folded(self, down: Down, bottleneck: Tensor | None = None) -> Folded:
        """Compute once what the skips contribute to a decoder half that runs several times.

        See folded.py.

        Args:
            down: The encoder half's results.
            bottleneck: Where the passes to come begin: in coarse precision they are computed by
                their change from there (anchored.py), and give float32. None for passes that are
                not compared.
        """
        by_level = self._by_level(down.skips)
        constants = tuple(
            tuple(
                resnet.constants(skip, down.step.times)
                for resnet, skip in zip(level, skips, strict=True)
            )
            for level, skips in zip(self._folded_resnets, by_level, strict=True)
        )
        sizes = self._sizes(down.skips)
        anchors: list[Anchor] = []
        if bottleneck is not None and self._anchors.wanted:
            with self._anchors.recording() as anchors:
                self.part_folded(bottleneck, constants, down.step.text, sizes)
        return Folded(constants, down.step.text, sizes, down.step.guidance, tuple(anchors))

    def decode(
        self,
        folded: Folded,
        bottleneck: Tensor,
        feature_block: int | None = None,
        output: bool = True,
    ) -> Up:
        """Run the decoder half on folded skips; otherwise as `up`."""
        run = self.run(FOLDED)
        results = run(
            bottleneck,
            folded.constants,
            folded.text,
            folded.sizes,
            feature_block,
            output,
            folded.anchors,
        )
        return _guided(folded.guidance, *results)

    def replaced(self, latent: Tensor, step: Step, bottleneck: Tensor) -> Tensor:
        """Run the whole network with `bottleneck` in place of the middle block, which is skipped.

        Returns the output [B, 4, H, W].
        """
        run = self.run(UNET_REPLACED)
        output: Tensor = run(step.guidance.latents(latent), step.times, step.text, bottleneck)
        return step.guidance.output(output)

    def features(self, latent: Tensor, step: Step, feature_block: int, output: bool = True) -> Up:
        """Run the whole network, differentiably in the latent [1, 4, H, W]; otherwise as `up`."""
        run = self.run(UNET_FEATURES)
        latents = step.guidance.latents(latent)
        return _guided(step.guidance, *run(latents, step.times, step.text, feature_block, output))

    def showing(self, latent: Tensor, step: Step, first_layer: int) -> tuple[Tensor, Shown]:
        """Run the whole network and return its output [B, 4, H, W] and what it shows.

        Args:
            latent: [1, 4, H, W].
            step: The step.
            first_layer: The first self-attention whose keys and values are shown.
        """
        run = self.run(UNET_SHOWING)
        latents = step.guidance.latents(latent)
        output, *shown = run(latents, step.times, step.text, first_layer)
        return step.guidance.output(output), tuple(shown)

    def reading(self, latent: Tensor, step: Step, shown: Shown) -> Tensor:
        """Run the whole network, its last self-attentions on what another pass has shown.

        Returns the output [B, 4, H, W].
        """
        run = self.run(UNET_READING)
        output: Tensor = run(step.guidance.latents(latent), step.times, step.text, *shown)
        return step.guidance.output(output)

    def __call__(self, latent: Tensor, step: Step) -> Tensor:
        """Run the whole network.

        Returns the output [B, 4, H, W] in the network's precision; guided [1, 4, H, W] in float32.
        """
        output: Tensor = self.run(UNET)(step.guidance.latents(latent), step.times, step.text)
        return step.guidance.output(output)

    def wrapped(self, wrap: Callable[["UNet", Part, PartFunction], PartFunction]) -> "UNet":
        """Return a `UNet` on the same weights and layers, with every part wrapped once more.

        Args:
            wrap: (the new `UNet`, the part, what runs it now) -> what is run in its place.
        """
        inner = self._wrap

        def rewrap(part: Part, run: PartFunction) -> PartFunction:
            return wrap(outer, part, run if inner is None else inner(part, run))

        outer = UNet(self.held, self.operators, rewrap, self._adapt)
        return outer

    def run(self, part: Part) -> PartFunction:
        """Return what runs a part: the backend's, wrapped when it is first wanted."""
        if self._wrap is None:
            return self.functions[part]
        if part not in self._wrapped:
            self._wrapped[part] = self._wrap(part, self.functions[part])
        return self._wrapped[part]

    # The parts: functions of tensors, as in the table above.

    def part_whole(self, latent: Tensor, times: Tensor, text: Tensor) -> Tensor:
        *skips, bottom = self.part_down(latent, times, text)
        output = self.part_up(self.part_middle(bottom, times, text), tuple(skips), times, text)[1]
        assert output is not None
        return output

    def part_replaced(
        self, latent: Tensor, times: Tensor, text: Tensor, bottleneck: Tensor
    ) -> Tensor:
        *skips, _ = self.part_down(latent, times, text)
        output = self.part_up(bottleneck, tuple(skips), times, text)[1]
        assert output is not None
        return output

    def part_down(self, latent: Tensor, times: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        layers = self._layers
        order = self.operators.memory_format
        hidden = Sum(layers.conv_in(latent.to(self.dtype, memory_format=order)))
        skips = [hidden]
        for level in layers.downs:
            for resnet, transformer in zip(level.resnets, level.transformers, strict=True):
                hidden = resnet(hidden, times)
                hidden = hidden if transformer is None else transformer(hidden, text)
                skips.append(hidden)
            if level.sampler is not None:
                hidden = Sum(level.sampler(hidden.value()))
                skips.append(hidden)
        return (*(skip.value() for skip in skips), hidden.value())

    def part_middle(self, bottom: Tensor, times: Tensor, text: Tensor) -> Tensor:
        middle = self._layers.middle
        first, *others = middle.resnets
        hidden = first(Sum(bottom), times)
        for transformer, resnet in zip(middle.transformers, others, strict=False):
            assert transformer is not None
            hidden = resnet(transformer(hidden, text), times)
        return hidden.value()

    def part_up(
        self,
        bottleneck: Tensor,
        skips: tuple[Tensor, ...],
        times: Tensor,
        text: Tensor,
        feature_block: int | None = None,
        output: bool = True,
    ) -> tuple[Tensor | None, Tensor | None]:
        by_level = self._by_level(skips)

        def resnet(index: int, number: int, hidden: Sum) -> Sum:
            skip = by_level[index][number]
            return self._layers.ups[index].resnets[number](hidden.beside(skip), times)

        return self._decode(resnet, bottleneck, text, self._sizes(skips), feature_block, output)

    def part_folded(
        self,
        bottleneck: Tensor,
        constants: tuple[tuple[Constants, ...], ...],
        text: Tensor,
        sizes: tuple[tuple[int, ...] | None, ...],
        feature_block: int | None = None,
        output: bool = True,
        anchors: tuple[Anchor, ...] = (),
    ) -> tuple[Tensor | None, Tensor | None]:
        def resnet(index: int, number: int, hidden: Sum) -> Sum:
            return self._folded_resnets[index][number](hidden, constants[index][number])

        with self._anchors.replaying(anchors):
            return self._decode(resnet, bottleneck, text, sizes, feature_block, output)

    def part_features(
        self, latent: Tensor, times: Tensor, text: Tensor, feature_block: int, output: bool = True
    ) -> tuple[Tensor | None, Tensor | None]:
        *skips, bottom = self.part_down(latent, times, text)
        bottleneck = self.part_middle(bottom, times, text)
        return self.part_up(bottleneck, tuple(skips), times, text, feature_block, output)

    def part_showing(
        self, latent: Tensor, times: Tensor, text: Tensor, first_layer: int
    ) -> tuple[Tensor, ...]:
        with self._layers.build.mutual.showing(first_layer) as shown:
            output = self.part_whole(latent, times, text)
        return output, *shown

    def part_reading(self, latent: Tensor, times: Tensor, text: Tensor, *shown: Tensor) -> Tensor:
        with self._layers.build.mutual.reading(shown):
            return self.part_whole(latent, times, text)

    def _decode(
        self,
        resnet: Callable[[int, int, Sum], Sum],
        bottleneck: Tensor,
        text: Tensor,
        sizes: tuple[tuple[int, ...] | None, ...],
        feature_block: int | None,
        output: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Run the decoder half, whatever its residual blocks are.

        Args:
            resnet: (level, number of the block in it, its dynamic input) -> its output.
            bottleneck: [B, C, h, w].
            text: [B, L, P].
            sizes: (height, width) that every level upsamples to; None for the double.
            feature_block: Number of the level whose map is returned, if any.
            output: Whether to go on to the network's output.
        """
        between = self._anchors.between
        hidden = Sum(bottleneck.to(between, memory_format=self.operators.memory_format))
        features = None
        for index, (level, size) in enumerate(zip(self._layers.ups, sizes, strict=True)):
            for number, transformer in enumerate(level.transformers):
                hidden = resnet(index, number, hidden)
                hidden = hidden if transformer is None else transformer(hidden, text)
            hidden = level.upsampled(hidden, size)
            if index == feature_block:
                features = hidden.value()
                if not output:
                    return features, None
        return features, self._layers.conv_out(hidden.normed(self._layers.norm_out))

    @cached_property
    def _folded_resnets(self) -> tuple[tuple[FoldedResnet, ...], ...]:
        """Split every up block's residual blocks where their skips begin, when first wanted."""
        build = self._layers.build
        blocks = self.held.network.up_blocks
        by_level = self._by_level(self._skip_channels)
        return tuple(
            tuple(
                FoldedResnet.of(build, resnet, module, skip)
                for resnet, module, skip in zip(level.resnets, block.resnets, skips, strict=True)
            )
            for level, block, skips in zip(self._layers.ups, blocks, by_level, strict=True)
        )

    @property
    def packed_sizes(self) -> tuple[int, int]:
        """Channels of the packed times and of the packed text: (S, P)."""
        build = self._layers.build
        times = sum(projection.out_features for projection, _ in build.times)
        texts = sum(key.out_features + value.out_features for key, value in build.texts)
        return times, texts

    def skip_shapes(self, height: int, width: int) -> tuple[tuple[int, int, int], ...]:
        """Return [C, h, w] of every skip, from high to low resolution; the last is the bottom's.

        Args:
            height: Of the latent.
            width: Of the latent.
        """
        shapes = [(self.held.network.conv_in.out_channels, height, width)]
        for block in self.held.network.down_blocks:
            shapes += [(resnet.conv2.out_channels, height, width) for resnet in block.resnets]
            for sampler in block.downsamplers or ():
                height = -(-height // 2)
                width = -(-width // 2)
                shapes.append((sampler.conv.out_channels, height, width))
        return tuple(shapes)

    @property
    def _skip_channels(self) -> tuple[int, ...]:
        return tuple(channels for channels, _, _ in self.skip_shapes(1, 1))

    def _by_level(self, skips: Sequence[T]) -> list[tuple[T, ...]]:
        """Sort skips by up block, in the order in which its residual blocks read them."""
        rest = list(skips)
        return [tuple(rest.pop() for _ in level.resnets) for level in self._layers.ups]

    def _sizes(self, skips: Sequence[Tensor]) -> tuple[tuple[int, ...] | None, ...]:
        """Return (height, width) that every up block upsamples to.

        None stands for the double, which it is unless a side is odd somewhere.
        """
        if not any(side % 2 ** (len(self._layers.ups) - 1) for side in skips[0].shape[2:]):
            return (None,) * len(self._layers.ups)
        return (*(tuple(level[0].shape[2:]) for level in self._by_level(skips)[1:]), None)


def _guided(guidance: Guidance, features: Tensor | None, output: Tensor | None) -> Up:
    """Join what the decoder half returned for every text."""
    return Up(
        None if features is None else guidance.features(features),
        None if output is None else guidance.output(output),
    )
