"""Train the embedded model within a time budget, from the last checkpoint of its work folder on.

It draws batches (recipe.py) from shards (shards.py) and updates the U-Net and the text encoder; the VAE is not touched. It does not judge the
result: accept.py does. It never compiles the networks: on a CPU torch 2.13 then gives most weights a gradient of exactly zero.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from . import networks, words
from .recipe import Batch, draw_batch, learning_rate
from .shards import Pairs

CHECKPOINT = "checkpoint.pt"
EMA = 0.998


@dataclass(frozen=True)
class Budget:
    """seconds of training; rate of AdamW; pairs, the share of pair samples; final: decay the rate to 5 % by the end; steps: stop after so many."""

    seconds: float
    rate: float = 7e-4
    pairs: float = 0.45
    final: bool = False
    steps: int | None = None


class Trainer:
    """The networks, their optimiser and their running average. `folder` holds the checkpoint."""

    def __init__(self, folder: Path, start: Path | None = None, device: str = "cpu") -> None:
        torch.manual_seed(0)
        self.folder, self.device, self.step = folder, torch.device(device), 0
        self.networks = networks.new_networks(len(words.tokenizer()))
        if start is not None:
            networks.warm_start(self.networks, start)
        for part in self._parts().values():
            part.to(self.device)
        self.networks.unet.to(memory_format=torch.channels_last)
        self.networks.unet.set_attn_processor(
            AttnProcessor()
        )  # a sixth less time a step than the fused attention, whose backward is slow on a CPU
        self.optimiser = torch.optim.AdamW(
            self.networks.weights(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-3, fused=True
        )
        self.average = self._state()
        if (folder / CHECKPOINT).exists():
            self._resume()

    def _parts(self) -> dict[str, nn.Module]:
        return {"unet": self.networks.unet, "text": self.networks.text, "head": self.networks.head}

    def _state(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": value.clone()
            for name, part in self._parts().items()
            for key, value in part.state_dict().items()
        }

    def _resume(self) -> None:
        kept = torch.load(self.folder / CHECKPOINT, weights_only=True, map_location=self.device)
        for name, part in self._parts().items():
            part.load_state_dict(
                {
                    key.removeprefix(name + "."): value
                    for key, value in kept["weights"].items()
                    if key.startswith(name + ".")
                }
            )
        self.optimiser.load_state_dict(kept["optimiser"])
        self.average, self.step = kept["average"], kept["step"]

    def save(self) -> None:
        """Replace the checkpoint; it is never there in part."""
        part = self.folder / (CHECKPOINT + ".part")
        torch.save(
            {
                "weights": self._state(),
                "average": self.average,
                "optimiser": self.optimiser.state_dict(),
                "step": self.step,
            },
            part,
        )
        os.replace(part, self.folder / CHECKPOINT)

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Squared error of the noise by sample [B], and of the clean latent as read from the supervision features."""
        net, size, moved = self.networks, len(batch.time), batch.moved
        own = size - moved
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            text = net.text(batch.tokens).last_hidden_state
            stacked = torch.cat([batch.noisy, batch.source]).contiguous(
                memory_format=torch.channels_last
            )
            embedding, skips, bottleneck = networks.down(
                net.unet,
                stacked,
                torch.cat([batch.time, batch.high]),
                torch.cat([text, text[own:]]),
            )
            theirs = bottleneck[size:]
            blurred = theirs + batch.blur * theirs.detach().std(
                (1, 2, 3), keepdim=True
            ) * torch.randn_like(theirs)
            output, features = networks.up(
                net.unet,
                embedding[:size],
                [skip[:size] for skip in skips],
                torch.cat([bottleneck[:own], blurred]),
                text,
            )
            guess = net.head(features)
        errors = (output.float() - batch.noise).square().mean((1, 2, 3))
        return errors, (guess.float() - batch.clean).square().mean()

    def update(self, batch: Batch, rate: float) -> tuple[Tensor, Tensor]:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        errors, auxiliary = self.losses(batch)
        self.optimiser.zero_grad()
        (errors.mean() + 0.5 * auxiliary).backward()
        nn.utils.clip_grad_norm_(self.networks.weights(), 1.0)
        self.optimiser.step()
        networks.mask_deep_skips(self.networks.unet)
        self.step += 1
        self._follow(min(EMA, (1 + self.step) / (12 + self.step)))
        return errors.detach(), auxiliary.detach()

    @torch.no_grad()
    def _follow(self, keep: float) -> None:
        for name, part in self._parts().items():
            for key, value in part.state_dict().items():
                kept = self.average[f"{name}.{key}"]
                if value.is_floating_point():
                    kept.lerp_(value, 1 - keep)

    def run(self, pairs: Pairs, budget: Budget, report: Callable[[str], None] = print) -> None:
        """Update until the budget is used up, saving every 200 steps and at the end."""
        alphas, generator = (
            networks.alphas_cumprod(),
            torch.Generator().manual_seed(1000 + self.step),
        )
        torch.manual_seed(2000 + self.step)
        begun, first, log = time.monotonic(), self.step, []
        while (spent := time.monotonic() - begun) < budget.seconds and (
            budget.steps is None or self.step - first < budget.steps
        ):
            batch = draw_batch(pairs, alphas, budget.pairs, generator)
            rate = learning_rate(
                budget.rate, self.step - first, spent / budget.seconds if budget.final else None
            )
            errors, auxiliary = self.update(self._on_device(batch), rate)
            own = len(batch.time) - batch.moved
            log.append(
                [
                    errors[:own].mean().item(),
                    errors[own:].mean().item() if batch.moved else 0.0,
                    auxiliary.item(),
                ]
            )
            if self.step % 50 == 0:
                means = zip(
                    ("plain", "moved", "auxiliary"),
                    torch.tensor(log[-50:]).mean(0).tolist(),
                    strict=True,
                )
                report(
                    json.dumps(
                        {"step": self.step, "seconds": round(spent)}
                        | {name: round(value, 4) for name, value in means}
                    )
                )
            if self.step % 200 == 0:
                self.save()
        self.save()

    def _on_device(self, batch: Batch) -> Batch:
        return Batch(**{name: value.to(self.device) for name, value in vars(batch).items()})
