"""A Stable Diffusion U-Net cut at the bottleneck: down | middle | up, run with layers of our own over the weights of diffusers' network.

`down` and `middle` depend on (latent, step, text) alone, so within a drag, where none of these changes, they run once; `up` runs with any bottleneck.
Run in a row the three are the network. Every part is a function of tensors alone, so that a backend can compile, capture or export it:

    whole     latent [B, 4, H, W], times [S] or [B, S], text [B, L, P]         -> output [B, 4, H, W]
    replaced  latent, times, text, bottleneck                                  -> output, with that bottleneck and no middle block
    down      latent, times, text                                              -> the skips from high to low resolution, and the middle block's input
    middle    the middle block's input, times, text                            -> bottleneck [B, C, h, w]
    up        bottleneck, skips, times, text, feature_block, output            -> features, output
    folded    bottleneck, constants (folded.py), text, sizes, feature_block, output  -> features, output
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ...cache.structure import storable
from ...errors import ModelError
from .check import changes_to, objections
from .conditioning import Conditioning, Step
from .folded import Constants, FoldedResnet
from .guidance import UNGUIDED, Guidance
from .layers import Adapt, Build, Level, conv_of, norm_of
from .operators import Operators

__all__ = ["PARTS", "Down", "Folded", "Place", "Prepare", "T", "UNet", "Up"]


PARTS = ("whole", "replaced", "down", "middle", "up", "folded")


T = TypeVar("T")


Prepare = Callable[[str, Callable[..., Any]], Callable[..., Any]]
"""(name of a part, the part) -> what is run in its place."""


Place = Callable[["UNet", str, Callable[..., Any]], Callable[..., Any]]


@storable
@dataclass(frozen=True, eq=False)
class Down:
    """What the encoder half hands on: the step, the skips from high to low resolution, and the middle block's input."""

    step: Step
    skips: tuple[Tensor, ...]
    bottom: Tensor


@dataclass(frozen=True, eq=False)
class Up:
    """What the decoder half gives: the feature map of the block asked for [B, C, h, w], and the network's output [B, 4, H, W] unless not wanted; with
    guidance [1, 2 C, h, w] and [1, 4, H, W]."""

    features: Tensor | None
    output: Tensor | None


@storable
@dataclass(frozen=True, eq=False)
class Folded:
    """The decoder half on given skips, as far as it is known before the bottleneck is: what they contribute to every residual block, by level; the
    text's keys and values; what every level upsamples to; how far the text guides."""

    constants: tuple[tuple[Constants, ...], ...]
    text: Tensor
    sizes: tuple[tuple[int, ...] | None, ...]
    guidance: Guidance = UNGUIDED


class UNet:
    """The parts of a frozen `UNet2DConditionModel` in evaluation mode. Latents may have any float type; they are cast to the network's.

    Guidance is settled here, so that nobody else knows of it: a latent goes in once, what is between the parts (skips, bottlenecks) is a batch of as
    many as there are texts, and features and outputs come out as one.

    operators: what layers are computed with. prepare: what is run in a part's place (compiled, captured, a plan); the part itself where it is None.
    adapt: what is computed in place of an attention's projections; not of the text's keys and values, which come packed (`texts`: their layers).
    Raises ModelError for a network that cannot be cut, with every reason.
    """

    def __init__(
        self,
        network: UNet2DConditionModel,
        operators: Operators | None = None,
        prepare: Prepare | None = None,
        adapt: Adapt | None = None,
    ) -> None:
        reasons = objections(network.config) or changes_to(network)
        if reasons:
            raise ModelError(
                f"this U-Net cannot be dragged: {'; '.join(reasons)}. Use a Stable Diffusion 1.x or 2.x text-to-image model"
            )
        self.network = network
        self.operators = operators or Operators()
        self._build = build = Build(self.operators, adapt)
        self._conv_in = conv_of(self.operators, network.conv_in)
        self._downs = tuple(Level.of(build, block) for block in network.down_blocks)
        self._middle = Level.of(build, network.mid_block)
        self._ups = tuple(Level.of(build, block) for block in network.up_blocks)
        self._norm_out = norm_of(self.operators, network.conv_norm_out, silu=True)
        self._conv_out = conv_of(self.operators, network.conv_out)
        self._prepare = prepare
        self._prepared: dict[str, Callable[..., Any]] = {}

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = next(self.network.parameters()).dtype
        return dtype

    @property
    def texts(self) -> tuple[tuple[nn.Linear, nn.Linear], ...]:
        return tuple(self._build.texts)

    @torch.no_grad()
    def condition(
        self, timesteps: Sequence[int], text: Tensor, guidance: float = 1.0
    ) -> Conditioning:
        """timesteps: each 0 to 999. text: [B, L, D]; with a guidance above 1 two of them, [negative, positive], else ValueError."""
        guide = Guidance(guidance)
        if guidance != 1 and len(text) != guide.texts:
            raise ValueError(
                f"guidance {guidance:g} takes a negative and a positive text, got {len(text)}"
            )
        net, build = self.network, self._build
        text = text.to(self.dtype)
        embedding = net.time_embedding(
            net.time_proj(torch.tensor(timesteps, device=text.device)).to(self.dtype)
        )
        active = F.silu(embedding)
        times = [projection(active) + conv.bias for projection, conv in build.times]
        packed = [projected for both in build.texts for projected in (both[0](text), both[1](text))]
        return Conditioning(
            tuple(timesteps), text, torch.cat(packed, dim=2), torch.cat(times, dim=1), guide
        )

    def step(self, timestep: int, text: Tensor) -> Step:
        """A single step: `condition` for one timestep."""
        return self.condition((timestep,), text).at(timestep)

    def down(self, latent: Tensor, step: Step) -> Down:
        """latent [B, 4, H, W]."""
        *skips, bottom = self.run("down")(step.guidance.latents(latent), step.times, step.text)
        return Down(step, tuple(skips), bottom)

    def middle(self, down: Down) -> Tensor:
        """The bottleneck [B, C, h, w] that the network itself computes."""
        bottleneck: Tensor = self.run("middle")(down.bottom, down.step.times, down.step.text)
        return bottleneck

    def up(
        self, down: Down, bottleneck: Tensor, feature_block: int | None = None, output: bool = True
    ) -> Up:
        """The decoder half with `bottleneck` in place of the middle block's output; see `decode`."""
        step = down.step
        found = self.run("up")(bottleneck, down.skips, step.times, step.text, feature_block, output)
        return _seen(step.guidance, *found)

    @torch.no_grad()
    def folded(self, down: Down) -> Folded:
        """For a decoder half that is to be run with several bottlenecks: what the skips contribute, computed once (see folded.py)."""
        by_level = self._by_level(down.skips)
        constants = tuple(
            tuple(
                resnet.constants(skip, down.step.times)
                for resnet, skip in zip(level, skips, strict=True)
            )
            for level, skips in zip(self._folded_resnets, by_level, strict=True)
        )
        return Folded(constants, down.step.text, self._sizes(down.skips), down.step.guidance)

    def decode(
        self,
        folded: Folded,
        bottleneck: Tensor,
        feature_block: int | None = None,
        output: bool = True,
    ) -> Up:
        """As `up`: the feature map of that up block, and the network's output; without the output it stops after that block."""
        run = self.run("folded")
        found = run(bottleneck, folded.constants, folded.text, folded.sizes, feature_block, output)
        return _seen(folded.guidance, *found)

    def replaced(self, latent: Tensor, step: Step, bottleneck: Tensor) -> Tensor:
        """The whole network's output with `bottleneck` in place of the middle block's, which does not run."""
        output: Tensor = self.run("replaced")(
            step.guidance.latents(latent), step.times, step.text, bottleneck
        )
        return step.guidance.output(output)

    def __call__(self, latent: Tensor, step: Step) -> Tensor:
        """The whole network's output [B, 4, H, W], in its own precision; guided [1, 4, H, W], in float32."""
        output: Tensor = self.run("whole")(step.guidance.latents(latent), step.times, step.text)
        return step.guidance.output(output)

    def placed(self, place: "Place") -> "UNet":
        """The same network and layers, with `place(unet, part, run)` in the place of every part. unet: what is made here; run: what runs it now."""
        own = self._prepare

        def prepare(part: str, run: Callable[..., Any]) -> Callable[..., Any]:
            return place(found, part, run if own is None else own(part, run))

        found = UNet(self.network, self.operators, prepare)
        return found

    def run(self, part: str) -> Callable[..., Any]:
        """The part as the backend prepared it, prepared when first wanted."""
        function: Callable[..., Any] = getattr(self, f"part_{part}")
        if self._prepare is None:
            return function
        if part not in self._prepared:
            self._prepared[part] = self._prepare(part, function)
        return self._prepared[part]

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
        hidden = self._conv_in(latent.to(self.dtype, memory_format=self.operators.memory_format))
        skips = [hidden]
        for level in self._downs:
            for resnet, transformer in zip(level.resnets, level.transformers, strict=True):
                hidden = resnet(hidden, times)
                hidden = hidden if transformer is None else transformer(hidden, text)
                skips.append(hidden)
            if level.sampler is not None:
                hidden = level.sampler(hidden)
                skips.append(hidden)
        return (*skips, hidden)

    def part_middle(self, bottom: Tensor, times: Tensor, text: Tensor) -> Tensor:
        first, *others = self._middle.resnets
        hidden = first(bottom, times)
        for transformer, resnet in zip(self._middle.transformers, others, strict=False):
            assert transformer is not None
            hidden = resnet(transformer(hidden, text), times)
        return hidden

    def part_up(
        self,
        bottleneck: Tensor,
        skips: tuple[Tensor, ...],
        times: Tensor,
        text: Tensor,
        feature_block: int | None = None,
        output: bool = True,
    ) -> tuple[Tensor | None, Tensor | None]:
        by_level, sizes = self._by_level(skips), self._sizes(skips)

        def resnet(index: int, number: int, hidden: Tensor) -> Tensor:
            return self._ups[index].resnets[number](
                torch.cat([hidden, by_level[index][number]], dim=1), times
            )

        return self._decode(resnet, bottleneck, text, sizes, feature_block, output)

    def part_folded(
        self,
        bottleneck: Tensor,
        constants: tuple[tuple[Constants, ...], ...],
        text: Tensor,
        sizes: tuple[tuple[int, ...] | None, ...],
        feature_block: int | None,
        output: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        def resnet(index: int, number: int, hidden: Tensor) -> Tensor:
            return self._folded_resnets[index][number](hidden, constants[index][number])

        return self._decode(resnet, bottleneck, text, sizes, feature_block, output)

    def _decode(
        self,
        resnet: Callable[[int, int, Tensor], Tensor],
        bottleneck: Tensor,
        text: Tensor,
        sizes: tuple[tuple[int, ...] | None, ...],
        feature_block: int | None,
        output: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """The decoder half, whatever its residual blocks are: `resnet(level, number, hidden)`."""
        hidden, features = (
            bottleneck.to(self.dtype, memory_format=self.operators.memory_format),
            None,
        )
        for index, (level, size) in enumerate(zip(self._ups, sizes, strict=True)):
            for number, transformer in enumerate(level.transformers):
                hidden = resnet(index, number, hidden)
                hidden = hidden if transformer is None else transformer(hidden, text)
            hidden = level.upsampled(hidden, size)
            if index == feature_block:
                features = hidden
                if not output:
                    return features, None
        return features, self._conv_out(self._norm_out(hidden))

    @cached_property
    def _folded_resnets(self) -> tuple[tuple[FoldedResnet, ...], ...]:
        """Every up block's residual blocks, split where their skips begin. Made when a drag first wants them."""
        by_level = self._by_level(self._skip_channels)
        return tuple(
            tuple(
                FoldedResnet.of(self.operators, resnet, module, skip)
                for resnet, module, skip in zip(level.resnets, block.resnets, skips, strict=True)
            )
            for level, block, skips in zip(self._ups, self.network.up_blocks, by_level, strict=True)
        )

    @property
    def packed_sizes(self) -> tuple[int, int]:
        """(S, P): how many channels the packed times and the packed text have."""
        times, texts = self._build.times, self._build.texts
        widths = (key.out_features + value.out_features for key, value in texts)
        return sum(projection.out_features for projection, _ in times), sum(widths)

    def skip_shapes(self, height: int, width: int) -> tuple[tuple[int, int, int], ...]:
        """[C, h, w] of every skip on latents of that size, from high to low resolution; the bottleneck has the last one's."""
        shapes = [(self.network.conv_in.out_channels, height, width)]
        for block in self.network.down_blocks:
            shapes += [(resnet.conv2.out_channels, height, width) for resnet in block.resnets]
            for sampler in block.downsamplers or ():
                height, width = -(-height // 2), -(-width // 2)
                shapes.append((sampler.conv.out_channels, height, width))
        return tuple(shapes)

    @property
    def _skip_channels(self) -> tuple[int, ...]:
        return tuple(channels for channels, _, _ in self.skip_shapes(1, 1))

    def _by_level(self, skips: Sequence[T]) -> list[tuple[T, ...]]:
        """The skips of every up block, in the order in which its residual blocks read them."""
        rest = list(skips)
        return [tuple(rest.pop() for _ in level.resnets) for level in self._ups]

    def _sizes(self, skips: Sequence[Tensor]) -> tuple[tuple[int, ...] | None, ...]:
        """What every up block upsamples to: None for the double, which it is unless a side is odd somewhere."""
        if not any(side % 2 ** (len(self._ups) - 1) for side in skips[0].shape[2:]):
            return (None,) * len(self._ups)
        return (*(tuple(level[0].shape[2:]) for level in self._by_level(skips)[1:]), None)


def _seen(guidance: Guidance, features: Tensor | None, output: Tensor | None) -> Up:
    """What the decoder half gave for every text, as one."""
    return Up(
        None if features is None else guidance.features(features),
        None if output is None else guidance.output(output),
    )
