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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cache.arrays import Array
from ..cache.structure import storable
from ..config import PersonaliseConfig
from ..diffusion.lora.adapter import Adapter, projections
from ..diffusion.model import Model
from ..diffusion.unet import UNet
from ..diffusion.unet.operators import Layer
from ..errors import SessionError
from ..run import kept
from ..system.cuda_graphs import Graph, graph_on
from ..system.finite import check_loss
from ..system.schema import Fields, Real, Whole
from ..system.worker import check_current

__all__ = ["LoraTraining", "TrainingState", "personalise", "state_rule"]

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


def state_rule(model: Model, config: PersonaliseConfig) -> Fields:
    """Return what a training of a model must be for `config` to go on with it."""
    layers = projections(model.unet.held.network).values()
    numbers = (config.rank * sum(layer.in_features + layer.out_features for layer in layers),)
    return Fields(
        {
            "step": Whole(1, config.steps),
            "matrices": Array(shape=numbers),
            "first": Array(shape=numbers),
            "second": Array(shape=numbers, low=0),
            "smoothed": Real(low=0),
            "best": Real(low=0, high=math.inf),
            "waited": Whole(0, config.steps),
        },
        TrainingState,
    )


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

    Raises:
        NumbersError: The loss is not finite.
    """
    training = LoraTraining(model, latent, text, config, resume)
    check_current()  # making it takes as long as a step
    while not training.done:
        loss = check_loss("personalise", training.step, training.advance())
        if on_step is not None:
            on_step(training.step, loss, training.state)
    return training.adapter()


class _Matrices:
    """The low-rank matrices of all projections, as one flat variable.

    Attributes:
        flat: float32, every A [rank, in], then every B [out, rank], in the order of `names`.
        names: The projections, sorted.
    """

    def __init__(self, model: Model, config: PersonaliseConfig, device: torch.device) -> None:
        self.layers = projections(model.unet.held.network)
        self.names = tuple(sorted(self.layers))
        rank = config.rank
        downs = [(rank, self.layers[name].in_features) for name in self.names]
        ups = [(self.layers[name].out_features, rank) for name in self.names]
        self._shapes = [*downs, *ups]
        chance = torch.Generator().manual_seed(config.seed)
        down = torch.randn(
            sum(rows * columns for rows, columns in downs), generator=chance, dtype=torch.float32
        )
        up = torch.zeros(sum(rows * columns for rows, columns in ups), dtype=torch.float32)
        self.flat = torch.cat([down / rank, up]).to(device).requires_grad_()
        self._views: dict[str, tuple[Tensor, Tensor]] = {}

    def name_of(self, layer: nn.Linear) -> str:
        """Return the name of a projection of the network."""
        return next(name for name, module in self.layers.items() if module is layer)

    def adapt(self, layer: nn.Linear, plain: Layer) -> Layer:
        """Return a projection with its change."""
        name = self.name_of(layer)
        return lambda tokens: plain(tokens) + self.change(name, tokens)

    def change(self, name: str, tokens: Tensor) -> Tensor:
        """Return what the matrices of a projection add to its output."""
        down, up = self._views[name]
        return F.linear(F.linear(tokens, down), up)

    @contextmanager
    def in_use(self, dtype: torch.dtype) -> Iterator[None]:
        """Compute with the matrices as they are now, in that precision, differentiably."""
        self._views = self._split(self.flat.to(dtype))
        try:
            yield
        finally:
            self._views = {}

    def adapter(self) -> Adapter:
        """Return the adapter as it is now."""
        with torch.no_grad():
            views = self._split(self.flat.detach().cpu())
        return Adapter(
            tuple((name, views[name][0].clone(), views[name][1].clone()) for name in self.names)
        )

    def _split(self, flat: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        parts = flat.split([rows * columns for rows, columns in self._shapes])
        shaped = [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]
        count = len(self.names)
        return dict(zip(self.names, zip(shaped[:count], shaped[count:], strict=True), strict=True))


@dataclass
class _Plateau:
    """A watch on the loss: how long it has not fallen."""

    smoothed: float = 0.0
    best: float = math.inf
    waited: int = 0

    def see(self, loss: float, step: int) -> None:
        """Take the loss of that step, from 1."""
        self.smoothed = _SMOOTH * self.smoothed + (1 - _SMOOTH) * loss
        unbiased = self.smoothed / (1 - _SMOOTH**step)
        if unbiased < _GAIN * self.best:
            self.best = unbiased
            self.waited = 0
        else:
            self.waited += 1


class LoraTraining:
    """A training, made step by step.

    Args:
        model: With no adapter merged.
        latent: The picture, float32 [1, 4, h, w].
        text: Its prompt's embedding, [1, L, D].
        config: How to learn.
        resume: A training of the same inputs that was begun.

    Attributes:
        step: Steps done.
    """

    def __init__(
        self,
        model: Model,
        latent: Tensor,
        text: Tensor,
        config: PersonaliseConfig,
        resume: TrainingState | None = None,
    ) -> None:
        self._model = model
        self._config = config
        self._latent = latent
        self._matrices = _Matrices(model, config, latent.device)
        self._unet = UNet(model.unet.held, model.unet.operators, adapt=self._matrices.adapt)
        self._schedule = model.schedule(1)
        self._timesteps = self._draw(0, self._draw_timesteps)
        self._condition(text)
        self._allocate()
        self._adam = torch.optim.AdamW(
            [self._matrices.flat],
            lr=config.lr,
            weight_decay=_DECAY,
            fused=True,
            capturable=latent.device.type == "cuda",
        )
        self._capture = graph_on(latent.device)
        self._graph: Graph | None = None
        self._warm = False
        self._plateau = _Plateau()
        self.step = 0
        if resume is not None:
            self._resume(resume)

    def _draw_timesteps(self, chance: torch.Generator) -> Tensor:
        config = self._config
        last = len(self._schedule.alphas)
        return torch.randint(0, last, (config.steps, config.batch), generator=chance)

    def _condition(self, text: Tensor) -> None:
        """Compute the frozen part of all that times and text give."""
        drawn = sorted({int(t) for t in self._timesteps.flatten()})
        self._row = {timestep: number for number, timestep in enumerate(drawn)}
        conditioning = self._unet.condition(drawn, text)
        self._times = conditioning.times
        self._text = conditioning.embedding
        self._plain_text = conditioning.text
        name_of = self._matrices.name_of
        self._text_layers = [(name_of(keys), name_of(values)) for keys, values in self._unet.texts]

    def _allocate(self) -> None:
        """Make the buffers that a step reads and writes; they stay where they are."""
        device = self._latent.device
        batch = self._config.batch
        self._noisy = torch.zeros(
            batch, *self._latent.shape[1:], dtype=torch.float32, device=device
        )
        self._target = torch.zeros_like(self._noisy)
        self._now = self._times.new_zeros(batch, self._times.shape[1])
        self._loss = torch.zeros((), dtype=torch.float32, device=device)
        self._matrices.flat.grad = torch.zeros_like(self._matrices.flat)

    @property
    def done(self) -> bool:
        """Whether all steps are done, or the loss has not fallen for long enough."""
        config = self._config
        waited = bool(config.plateau) and self._plateau.waited >= config.plateau
        return self.step >= config.steps or waited

    def advance(self) -> float:
        """Make a step and return its loss."""
        timesteps = self._timesteps[self.step]
        noise = self._draw(
            1 + self.step,
            lambda chance: torch.randn(self._noisy.shape, generator=chance, dtype=torch.float32),
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
        self._plateau.see(loss, self.step)
        return loss

    def state(self) -> TrainingState:
        """Return a copy of all that it takes to go on."""
        flat = self._matrices.flat
        kept = self._adam.state[flat]
        # Adam's own count: an interruption right after an update must not lose that step.
        return TrainingState(
            step=int(kept["step"]),
            matrices=flat.detach().clone(),
            first=kept["exp_avg"].detach().clone(),
            second=kept["exp_avg_sq"].detach().clone(),
            smoothed=self._plateau.smoothed,
            best=self._plateau.best,
            waited=self._plateau.waited,
        )

    def adapter(self) -> Adapter:
        """Return the adapter as it is now."""
        return self._matrices.adapter()

    def _show(self, timesteps: Tensor, noise: Tensor) -> None:
        """Write the picture with that noise [B, 4, h, w] at those times [B], and the target."""
        alphas = self._schedule.alphas[timesteps].to(noise.device)[:, None, None, None]
        self._noisy.copy_(alphas.sqrt() * self._latent + (1 - alphas).sqrt() * noise)
        velocity = alphas.sqrt() * noise - (1 - alphas).sqrt() * self._latent
        self._target.copy_(noise if self._schedule.prediction == "epsilon" else velocity)
        self._now.copy_(self._times[[self._row[int(t)] for t in timesteps]])

    def _work(self) -> None:
        """Go forward, backward and update, on buffers that stay where they are."""
        matrices = self._matrices
        with torch.enable_grad(), matrices.in_use(self._model.dtype):
            changes = [
                matrices.change(name, self._text) for both in self._text_layers for name in both
            ]
            text = (self._plain_text + torch.cat(changes, dim=2)).expand(len(self._noisy), -1, -1)
            output = self._unet.part_whole(self._noisy, self._now, text)
            loss = F.mse_loss(output.float(), self._target)
            (gradient,) = torch.autograd.grad(loss, matrices.flat)
        assert matrices.flat.grad is not None
        matrices.flat.grad.copy_(gradient)
        self._adam.step()
        self._loss.copy_(loss.detach())

    def _draw(self, number: int, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        """Draw by the seed and a number, so that a resumed training draws the same.

        On the CPU, so that every device draws the same.
        """
        return draw(torch.Generator().manual_seed(self._config.seed * 1_000_003 + number + 1))

    def _resume(self, begun: TrainingState) -> None:
        flat = self._matrices.flat
        if begun.matrices.shape != flat.shape or begun.step > self._config.steps:
            raise SessionError(
                "the training to go on with is of another model, rank or number of steps; "
                "begin anew"
            )
        self.step = begun.step
        self._plateau = _Plateau(begun.smoothed, begun.best, begun.waited)
        with torch.no_grad():
            flat.copy_(begun.matrices)
        if begun.step:
            self._adam.state[flat] = {
                "step": torch.tensor(begun.step, dtype=torch.float32, device=flat.device),
                "exp_avg": begun.first.to(flat.device).clone(),
                "exp_avg_sq": begun.second.to(flat.device).clone(),
            }
