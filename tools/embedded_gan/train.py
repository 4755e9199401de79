"""Train the generator: non-saturating logistic losses, lazy R1 and path-length terms, an average.

Karras et al. 2020, sections 3.1, 3.2 and appendix B. An update is one of four steps: each is a
function of tensors that stand still, so that on a GPU it can be recorded once as a CUDA graph and
replayed, which takes half of the time of a network this small.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, softplus

from dragnoise.engine.gan.generator import Generator

from .discriminator import Discriminator
from .recipe import Recipe

WARM = 3
"""Steps that run before one is recorded: they choose the convolutions and make Adam's state."""


@dataclass(frozen=True, eq=False)
class Draws:
    """Random inputs of a step; every step draws them anew in the same memory.

    Attributes:
        index: Which pictures, int64 [B].
        z: Random vectors, two for each picture, [2, B, z].
        cross: The first row that the second vector decides, int64 [B].
        noise: What a picture is multiplied by in the path-length term, [B / 2, 3, H, W].
    """

    index: Tensor
    z: Tensor
    cross: Tensor
    noise: Tensor

    def draw(self, pictures: int, rows: int, mixing: float) -> None:
        self.index.random_(pictures)
        self.z.normal_()
        share = torch.rand(self.cross.shape, device=self.cross.device)
        row = 1 + (share / max(mixing, 1e-9) * (rows - 1)).long()
        self.cross.copy_(torch.where(share < mixing, row, rows))
        self.noise.normal_()


class Trainer:
    """A trainer that holds the networks, their optimisers and the running average.

    Args:
        recipe: What is trained, and how.
        pictures: uint8 [N, 3, H, W], on the device.
        dtype: What the convolutions compute in; the lazy terms and all weights are float32.
        recorded: Whether the steps are recorded as CUDA graphs.

    Attributes:
        average: The running average of the generator: this is the result.
        seen: Drawn pictures that the discriminator was shown.
    """

    def __init__(
        self, recipe: Recipe, pictures: Tensor, dtype: torch.dtype, *, recorded: bool = False
    ) -> None:
        device = pictures.device
        self.recipe = recipe
        self.pictures = pictures
        self.dtype = dtype
        self.generator = Generator(recipe.architecture).to(device)
        self.discriminator = Discriminator(recipe.channels).to(device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.length = torch.zeros((), device=device)
        self.seen = 0
        self.updates = 0
        self._makers = _adam(self.generator, recipe.rate, recipe.smoothing_every)
        self._judges = _adam(self.discriminator, recipe.rate, recipe.penalty_every)
        size = recipe.architecture.size
        self.draws = Draws(
            torch.zeros(recipe.batch, dtype=torch.int64, device=device),
            torch.zeros(2, recipe.batch, recipe.z, device=device),
            torch.zeros(recipe.batch, dtype=torch.int64, device=device),
            torch.zeros(recipe.batch // 2, 3, size, size, device=device),
        )
        steps = (self._judge, self._penalise, self._make, self._smooth)
        self._steps = [Recorded(step) if recorded else step for step in steps]

    def update(self) -> Tensor:
        """Update both networks once.

        Returns:
            The discriminator's loss, the generator's, and the mean scores of drawn and of made
            pictures, float32 [4], on the device; overwritten by the next update.
        """
        judge, penalise, make, smooth = self._steps
        judged = self._run(judge)
        if self.updates % self.recipe.penalty_every == 0:
            self._run(penalise)
        made = self._run(make)
        if self.updates % self.recipe.smoothing_every == 0:
            self._run(smooth)
        self.updates += 1
        self.seen += self.recipe.batch
        self._follow()
        return torch.stack([judged[0], made[0], judged[1], judged[2]])

    def _run(self, step: Callable[[], Tensor]) -> Tensor:
        self.draws.draw(len(self.pictures), self.recipe.architecture.rows, self.recipe.mixing)
        return step()

    def _real(self) -> Tensor:
        return self.pictures[self.draws.index].float() / 127.5 - 1

    def _rows(self, count: int) -> Tensor:
        """Return w+ of the first `count` draws, some of them of two vectors."""
        first, second = self.generator.mapping(self.draws.z[:, :count].flatten(0, 1)).chunk(2)
        numbers = torch.arange(self.recipe.architecture.rows, device=first.device)
        is_first = numbers[None, :] < self.draws.cross[:count, None]
        return torch.where(is_first[..., None], first[:, None], second[:, None])

    def _judge(self) -> Tensor:
        """Teach the discriminator on drawn and on made pictures."""
        self._judges.zero_grad()
        with torch.no_grad():
            made = self.generator.synthesis(self._rows(self.recipe.batch), self.dtype)[0]
        scores = self.discriminator(torch.cat([self._real(), made]), self.dtype)
        real, false = scores.chunk(2)
        loss = (softplus(-real) + softplus(false)).mean()
        loss.backward()
        self._judges.step()
        return torch.stack([loss, real.mean(), false.mean()]).detach()

    def _penalise(self) -> Tensor:
        """Hold the discriminator's gradient on drawn pictures small: R1, Mescheder et al. 2018."""
        self._judges.zero_grad()
        real = self._real().requires_grad_()
        scores = self.discriminator(real)
        (slope,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
        penalty = slope.square().sum((1, 2, 3)).mean()
        (0.5 * self.recipe.gamma * self.recipe.penalty_every * penalty).backward()
        self._judges.step()
        return penalty.detach()[None]

    def _make(self) -> Tensor:
        """Teach the generator to score well."""
        self._makers.zero_grad()
        self.discriminator.requires_grad_(False)
        made = self.generator.synthesis(self._rows(self.recipe.batch), self.dtype)[0]
        loss = softplus(-self.discriminator(made, self.dtype)).mean()
        loss.backward()
        self._makers.step()
        self.discriminator.requires_grad_(True)
        return loss.detach()[None]

    def _smooth(self) -> Tensor:
        """Hold a step in w as long in the picture wherever it is taken (section 3.2)."""
        self._makers.zero_grad()
        rows = self._rows(len(self.draws.noise))
        made = self.generator.synthesis(rows)[0]
        noise = self.draws.noise / math.sqrt(made.shape[2] * made.shape[3])
        (slope,) = torch.autograd.grad((made * noise).sum(), rows, create_graph=True)
        lengths = (slope.square().sum(2).mean(1) + 1e-12).sqrt()
        self.length.lerp_(lengths.detach().mean(), 0.01)
        term = (lengths - self.length).square().mean()
        weight = self.recipe.smoothing * self.recipe.smoothing_every
        (weight * term).backward()
        self._makers.step()
        return term.detach()[None]

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the running average; at first it forgets faster."""
        halving = min(self.recipe.halving_pictures, 0.05 * self.seen)
        share = 1 - 0.5 ** (self.recipe.batch / max(halving, 1e-8))
        averages = list[Tensor](self.average.parameters())
        weights = list[Tensor](self.generator.parameters())
        torch._foreach_lerp_(averages, weights, share)

    @torch.no_grad()
    def settle(self, count: int = 8192) -> Generator:
        """Measure the average generator's mean style vector; return that generator."""
        draws = torch.Generator().manual_seed(7)
        z = torch.randn(count, self.recipe.z, generator=draws).to(self.pictures.device)
        self.average.mean.copy_(self.average.mapping(z).mean(0))
        return self.average


class Recorded:
    """A step that runs a few times, is then recorded as a CUDA graph, and replayed."""

    def __init__(self, step: Callable[[], Tensor]) -> None:
        self._step = step
        self._left = WARM
        self._stream = torch.cuda.Stream()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result = torch.empty(0)

    def __call__(self) -> Tensor:
        if self._graph is not None:
            self._graph.replay()
            return self._result
        if self._left:
            self._left -= 1
            return self._warm()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._result = self._step()
        self._graph = graph
        graph.replay()
        return self._result

    def _warm(self) -> Tensor:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = self._step()
        torch.cuda.current_stream().wait_stream(self._stream)
        return result


def reduced(pictures: Tensor, size: int) -> Tensor:
    """Reduce uint8 pictures [N, 3, H, W] to a side of `size`, by means."""
    factor = pictures.shape[-1] // size
    if factor == 1:
        return pictures
    return avg_pool2d(pictures.float(), factor).round().byte()


def _adam(network: nn.Module, rate: float, every: int) -> torch.optim.Adam:
    """Return Adam, slowed as much as the lazy term, which is one more step in `every`, hastens."""
    share = every / (every + 1)
    weights = list(network.parameters())
    on_gpu = weights[0].is_cuda
    return torch.optim.Adam(
        weights, rate * share, betas=(0.0, 0.99**share), fused=True, capturable=on_gpu
    )
