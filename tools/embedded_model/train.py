"""Train the embedded model within a time budget, from the last checkpoint of its work folder on.

It draws batches (recipe.py) from shards (shards.py) and updates the U-Net and the text encoder; the
VAE is not touched. It does not judge the result: accept.py does. It never compiles the networks: on
a CPU torch 2.13 then gives most weights a gradient of exactly zero.
"""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dragnoise.engine.system.cuda_graphs import Captured, graph_on

from . import networks, words
from .recipe import BATCH, Batch, draw_batch, learning_rate
from .shards import Pairs

CHECKPOINT = "checkpoint.pt"
EMA = 0.998
SAVE_S = 120
"""Seconds between two checkpoints."""

LINE = 50
"""Updates that a line of the report is about."""


@dataclass(frozen=True)
class Budget:
    """A training run.

    Attributes:
        seconds: The time to train for.
        rate: AdamW's learning rate.
        pairs: The share of pair samples, 0..1.
        final: Decay the rate to 5 % by the end.
        batch: Samples an update.
        steps: Stop after so many updates; None for the whole time.
    """

    seconds: float
    rate: float = 7e-4
    pairs: float = 0.45
    final: bool = False
    batch: int = BATCH
    steps: int | None = None


class Trainer:
    """A trainer that holds the networks, their optimiser and their running average.

    Args:
        folder: The work folder. Training goes on from its checkpoint, if it has one.
        start: A model folder to start from where there is no checkpoint; None for new weights.
        device: Where to train.
    """

    def __init__(self, folder: Path, start: Path | None = None, device: str = "cpu") -> None:
        torch.manual_seed(0)
        self.folder = folder
        self.device = torch.device(device)
        self.step = 0
        self.networks = networks.new_networks(len(words.tokenizer()))
        if start is not None:
            networks.warm_start(self.networks, start)
        for part in self._parts().values():
            part.to(self.device)
        self.networks.unet.to(memory_format=torch.channels_last)
        if self.device.type == "cpu":
            # A sixth less time a step than with fused attention, whose backward is slow there.
            self.networks.unet.set_attn_processor(AttnProcessor())
        self._rate = torch.zeros((), dtype=torch.float32, device=self.device)
        # A checkpoint of another device has others.
        self._own: dict[str, Any] = {"lr": self._rate, "capturable": self.device.type == "cuda"}
        self.optimiser = torch.optim.AdamW(
            self.networks.weights(), betas=(0.9, 0.99), weight_decay=1e-3, fused=True, **self._own
        )
        self.average = self._state()
        if (folder / CHECKPOINT).exists():
            self._resume()
        self._update = Captured(self._updated, graph_on(self.device))

    def _parts(self) -> dict[str, nn.Module]:
        return {"unet": self.networks.unet, "text": self.networks.text, "head": self.networks.head}

    def _state(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": value.clone()
            for name, part in self._parts().items()
            for key, value in part.state_dict().items()
        }

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        checkpoint = torch.load(path, weights_only=True, map_location=self.device)
        for name, part in self._parts().items():
            part.load_state_dict(networks.state_of(name, checkpoint["weights"]))
        self.optimiser.load_state_dict(checkpoint["optimiser"])
        for group in self.optimiser.param_groups:
            group.update(self._own)
        self.average = checkpoint["average"]
        self.step = checkpoint["step"]

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        part = self.folder / (CHECKPOINT + ".part")
        checkpoint = {
            "weights": self._state(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        torch.save(checkpoint, part)
        os.replace(part, self.folder / CHECKPOINT)

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute the losses of a batch.

        Returns:
            The squared error of the noise by sample, [B]; and that of the clean latent as the head
            reads it from the supervision features, a scalar.
        """
        net = self.networks
        size = len(batch.time)
        own = size - batch.moved
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            text = net.text(batch.tokens).last_hidden_state
            stacked = torch.cat([batch.noisy, batch.source])
            embedding, skips, bottleneck = networks.down(
                net.unet,
                stacked.contiguous(memory_format=torch.channels_last),
                torch.cat([batch.time, batch.high]),
                torch.cat([text, text[own:]]),
            )
            bottleneck = torch.cat([bottleneck[:own], _blurred(bottleneck[size:], batch.blur)])
            skips = tuple(skip[:size] for skip in skips)
            output, features = networks.up(
                net.unet, embedding[:size], skips, bottleneck, text, batch.openness
            )
            clean = net.head(features)
        errors = (output.float() - batch.noise).square().mean((1, 2, 3))
        return errors, (clean.float() - batch.clean).square().mean()

    def update(self, batch: Batch, rate: float) -> tuple[Tensor, Tensor]:
        """Update the weights on a batch; return its losses, detached."""
        self._rate.fill_(rate)
        errors, auxiliary = self._update(*vars(batch).values())
        self.step += 1
        self._follow(min(EMA, (1 + self.step) / (12 + self.step)))
        return errors, auxiliary

    def _updated(self, *parts: Tensor) -> tuple[Tensor, Tensor]:
        """Update on a batch with these fields; on CUDA it is replayed, as a graph."""
        self.optimiser.zero_grad()
        errors, auxiliary = self.losses(Batch(*parts))
        (errors.mean() + 0.5 * auxiliary).backward()
        nn.utils.clip_grad_norm_(self.networks.weights(), 1.0)
        self.optimiser.step()
        return errors.detach(), auxiliary.detach()

    @torch.no_grad()
    def _follow(self, keep: float) -> None:
        """Move the running average towards the weights."""
        weights = {
            f"{name}.{key}": value
            for name, part in self._parts().items()
            for key, value in part.state_dict().items()
            if value.is_floating_point()
        }
        averages = [self.average[name] for name in weights]
        get_ema_multi_avg_fn(keep)(averages, list(weights.values()), None)

    def run(self, pairs: Pairs, budget: Budget, report: Callable[[str], None] = print) -> None:
        """Update until the budget is used up; save every two minutes and at the end."""
        alphas = networks.alphas_cumprod().to(self.device)
        pairs = Pairs(pairs.latents.to(self.device), pairs.tokens.to(self.device))
        generator = torch.Generator(self.device).manual_seed(1000 + self.step)
        torch.manual_seed(2000 + self.step)
        begun = saved = time.monotonic()
        first = self.step
        log = deque[Tensor](maxlen=LINE)
        while (spent := time.monotonic() - begun) < budget.seconds and (
            budget.steps is None or self.step - first < budget.steps
        ):
            batch = draw_batch(pairs, alphas, budget.pairs, generator, budget.batch)
            over = spent / budget.seconds if budget.final else None
            rate = learning_rate(budget.rate, self.step - first, over)
            errors, auxiliary = self.update(batch, rate)
            log.append(_means(errors, batch.moved, auxiliary))
            if self.step % LINE == 0:
                report(_line(self.step, spent, log))
            if time.monotonic() - saved > SAVE_S:
                self.save()
                saved = time.monotonic()
        self.save()


def _blurred(bottleneck: Tensor, blur: Tensor) -> Tensor:
    deviation = bottleneck.detach().std((1, 2, 3), keepdim=True)
    return bottleneck + blur * deviation * torch.randn_like(bottleneck)


def _means(errors: Tensor, moved: int, auxiliary: Tensor) -> Tensor:
    """Return the mean errors of plain and of moved samples, and the auxiliary one: float32 [3]."""
    own = len(errors) - moved
    moved_error = errors[own:].mean() if moved else torch.zeros_like(auxiliary)
    return torch.stack([errors[:own].mean(), moved_error, auxiliary])


def _line(step: int, seconds: float, log: Iterable[Tensor]) -> str:
    """Report the means over the last steps as JSON."""
    means = torch.stack(list(log)).mean(0).tolist()
    named = zip(("plain", "moved", "auxiliary"), means, strict=True)
    errors = {name: round(value, 4) for name, value in named}
    return json.dumps({"step": step, "seconds": round(seconds)} | errors)
