"""Learn a picture: train an adapter (LoRA) on it alone, as DragNoise and DragDiffusion do first.

Each step shows the network `batch` noisy versions of the picture, at random times, and asks for the
noise (for v where the model predicts v). Mean squared error, AdamW (weight decay 0.01), matrices A
from a normal distribution of deviation 1 / rank, B zero: as the published code. Unlike there the
latent is the posterior's mean, encoded once, and the frozen part of all that the text gives is
computed once.

All matrices are one flat float32 tensor, so that the optimiser is one update; the network computes
with them in its own precision. No other weight has a gradient. A step's work reads nothing on the
host, so that it can be a graph on CUDA; its loss is read after it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cache.structure import storable
from ..config import PersonaliseConfig
from ..diffusion.lora.adapter import Adapter, projections
from ..diffusion.model import Model
from ..diffusion.unet import UNet
from ..diffusion.unet.operators import Layer
from ..run import kept
from ..system.cuda_graphs import Graph, graph_on

__all__ = ["LoraTraining", "TrainingState", "personalise"]

_DECAY = 1e-2
_SMOOTH = 0.95
_GAIN = 0.99


@storable
@dataclass(frozen=True, eq=False)
class TrainingState:
    """A training that was begun, with all that it takes to go on as if never interrupted.

    Attributes:
        step: Steps done.
        matrices: The flat variable, float32.
        first: Adam's first moment, likewise.
        second: Adam's second moment, likewise.
        smoothed: The smoothed loss.
        best: The best smoothed loss so far.
        waited: Steps since then.
    """

    step: int
    matrices: Tensor
    first: Tensor
    second: Tensor
    smoothed: float
    best: float
    waited: int


@kept(on_disk=True)
def personalise(
    model: Model,
    latent: Tensor,
    text: Tensor,
    config: PersonaliseConfig,
    *,
    resume: TrainingState | None = None,
    on_step: Callable[[int, float, Callable[[], TrainingState]], None] | None = None,
) -> Adapter:
    """Return the adapter of a picture. Only `config.seed` draws: the same input, the same bits.

    Args:
        model: With no adapter merged.
        latent: The picture, float32 [1, 4, h, w].
        text: Its prompt's embedding, [1, L, D].
        resume: A training of the same inputs that was begun; the result is the same as without the
            interruption.
        on_step: Called with the steps done, the loss, and what returns the state that `resume`
            takes. What it raises ends the training.
    """
    training = LoraTraining(model, latent, text, config, resume)
    while not training.done:
        loss = training.advance()
        if on_step is not None:
            on_step(training.step, loss, training.state)
    return training.adapter()


class LoraTraining:
    """A training, made step by step."""

    def __init__(
        self,
        model: Model,
        latent: Tensor,
        text: Tensor,
        config: PersonaliseConfig,
        resume: TrainingState | None = None,
    ) -> None:
        self._model, self._config = model, config
        device = latent.device
        layers = projections(model.unet.network)
        self._names = tuple(sorted(layers))
        shapes = [(config.rank, layers[name].in_features) for name in self._names]
        shapes += [(layers[name].out_features, config.rank) for name in self._names]
        self._shapes = shapes
        self._flat = self._first_matrices(shapes).to(device).requires_grad_()
        self._views: dict[str, tuple[Tensor, Tensor]] = {}
        names = {id(module): name for name, module in layers.items()}

        def adapt(module: nn.Linear, plain: Layer) -> Layer:
            name = names[id(module)]
            return lambda tokens: plain(tokens) + self._change(name, tokens)

        self._unet = UNet(model.unet.network, model.unet.operators, adapt=adapt)
        self._told = [(names[id(keys)], names[id(values)]) for keys, values in self._unet.texts]
        self._schedule = model.schedule(1)
        self._timesteps = self._draw(
            0,
            lambda chance: torch.randint(
                0, len(self._schedule.alphas), (config.steps, config.batch), generator=chance
            ),
        )
        known = sorted({int(t) for t in self._timesteps.flatten()})
        self._row = {timestep: number for number, timestep in enumerate(known)}
        conditioning = self._unet.condition(known, text)
        self._times, self._text, self._plain_text = (
            conditioning.times,
            conditioning.embedding,
            conditioning.text,
        )
        self._latent = latent
        many = (config.batch, *latent.shape[1:])
        self._noisy, self._target = (
            torch.zeros(many, device=device),
            torch.zeros(many, device=device),
        )
        self._now = torch.zeros(
            config.batch, self._times.shape[1], device=device, dtype=self._times.dtype
        )
        self._loss = torch.zeros((), device=device)
        self._flat.grad = torch.zeros_like(self._flat)
        self._adam = torch.optim.AdamW(
            [self._flat],
            lr=config.lr,
            weight_decay=_DECAY,
            fused=True,
            capturable=device.type == "cuda",
        )
        self._capture = graph_on(device)
        self._graph: Graph | None = None
        self.step, self._smoothed, self._best, self._waited = 0, 0.0, math.inf, 0
        self._warm = False
        if resume is not None:
            self._resume(resume)

    @property
    def done(self) -> bool:
        config = self._config
        return self.step >= config.steps or bool(config.plateau and self._waited >= config.plateau)

    def advance(self) -> float:
        """Make a step and return its loss."""
        timesteps = self._timesteps[self.step]
        noise = self._draw(
            1 + self.step, lambda chance: torch.randn(self._noisy.shape, generator=chance)
        )
        self._show(timesteps, noise.to(self._latent.device))
        if not self._warm:
            self._work()  # as it is: a graph is captured of what has run before
            self._warm = True
        else:
            self._graph = self._graph or self._capture(self._work)
            self._graph()
        self.step += 1
        loss = float(self._loss)
        self._smoothed = _SMOOTH * self._smoothed + (1 - _SMOOTH) * loss
        smoothed = self._smoothed / (1 - _SMOOTH**self.step)
        improved = smoothed < _GAIN * self._best
        self._best, self._waited = (smoothed, 0) if improved else (self._best, self._waited + 1)
        return loss

    def state(self) -> TrainingState:
        kept = self._adam.state[self._flat]
        flat, first, second = (
            tensor.detach().clone() for tensor in (self._flat, kept["exp_avg"], kept["exp_avg_sq"])
        )
        # Adam's own count: an interruption right after an update must not lose that step.
        return TrainingState(
            int(kept["step"]), flat, first, second, self._smoothed, self._best, self._waited
        )

    def adapter(self) -> Adapter:
        """Return the adapter as it is now."""
        with torch.no_grad():
            views = self._split(self._flat.detach().cpu())
        return Adapter(
            tuple((name, views[name][0].clone(), views[name][1].clone()) for name in self._names)
        )

    def _show(self, timesteps: Tensor, noise: Tensor) -> None:
        """Write the picture with that noise [B, 4, h, w] at those times [B], and the target."""
        alphas = self._schedule.alphas[timesteps].to(noise.device)[:, None, None, None]
        self._noisy.copy_(alphas.sqrt() * self._latent + (1 - alphas).sqrt() * noise)
        velocity = alphas.sqrt() * noise - (1 - alphas).sqrt() * self._latent
        self._target.copy_(noise if self._schedule.prediction == "epsilon" else velocity)
        self._now.copy_(self._times[[self._row[int(t)] for t in timesteps]])

    def _work(self) -> None:
        """Go forward, backward and update, on buffers that stay where they are."""
        with torch.enable_grad():
            self._views = self._split(self._flat.to(self._model.dtype))
            changes = [self._change(name, self._text) for both in self._told for name in both]
            text = (self._plain_text + torch.cat(changes, dim=2)).expand(len(self._noisy), -1, -1)
            output = self._unet.part_whole(self._noisy, self._now, text)
            loss = F.mse_loss(output.float(), self._target)
            (gradient,) = torch.autograd.grad(loss, self._flat)
        self._views = {}
        assert self._flat.grad is not None
        self._flat.grad.copy_(gradient)
        self._adam.step()
        self._loss.copy_(loss.detach())

    def _change(self, name: str, tokens: Tensor) -> Tensor:
        down, up = self._views[name]
        return F.linear(F.linear(tokens, down), up)

    def _split(self, flat: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        parts = flat.split([rows * columns for rows, columns in self._shapes])
        shaped = [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]
        count = len(self._names)
        return dict(zip(self._names, zip(shaped[:count], shaped[count:], strict=True), strict=True))

    def _first_matrices(self, shapes: Sequence[tuple[int, int]]) -> Tensor:
        down, up = (
            sum(rows * columns for rows, columns in part)
            for part in (shapes[: len(shapes) // 2], shapes[len(shapes) // 2 :])
        )
        chance = torch.Generator().manual_seed(self._config.seed)
        return torch.cat([torch.randn(down, generator=chance) / self._config.rank, torch.zeros(up)])

    def _draw(self, number: int, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        """Draw by the seed and a number, so that a resumed training draws the same.

        On the CPU, so that every device draws the same.
        """
        return draw(torch.Generator().manual_seed(self._config.seed * 1_000_003 + number + 1))

    def _resume(self, begun: TrainingState) -> None:
        if begun.matrices.shape != self._flat.shape or begun.step > self._config.steps:
            raise ValueError(
                "the training to go on with is of another model, rank or number of steps"
            )
        self.step, self._smoothed, self._best, self._waited = (
            begun.step,
            begun.smoothed,
            begun.best,
            begun.waited,
        )
        with torch.no_grad():
            self._flat.copy_(begun.matrices)
        if begun.step:
            step = torch.tensor(float(begun.step), device=self._flat.device)
            moments = {
                "exp_avg": begun.first.to(self._flat.device).clone(),
                "exp_avg_sq": begun.second.to(self._flat.device).clone(),
            }
            self._adam.state[self._flat] = {"step": step, **moments}
