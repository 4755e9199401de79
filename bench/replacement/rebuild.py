"""Invert a picture and denoise it again, as it is or with a block's output held.

Everything runs on diffusers' own network, on which blocks can be hooked; inversion is the engine's.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from dragnoise.engine import Image, stages
from dragnoise.engine.config import DragConfig
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.place import Place
from dragnoise.engine.inputs.frame import Frame

from .blocks import Output, blocks_of, holding, recording
from .subjects import Subject

__all__ = ["Held", "Rebuilt", "denoise", "outputs_at", "rebuild"]


@dataclass(frozen=True)
class Held:
    """A block whose output is replaced.

    Attributes:
        block: Its name.
        output: What it hands on instead.
    """

    block: str
    output: Output


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """A picture's plain reconstruction.

    Attributes:
        subject: The picture.
        place: Where its denoising begins.
        frame: How its pixels lie in the latent.
        latents: Before every denoising step, and the clean one: float32 [1, 4, h, w] each.
    """

    subject: Subject
    place: Place
    frame: Frame
    latents: tuple[Tensor, ...]

    @property
    def image(self) -> Image:
        """The reconstruction."""
        return self.decoded(self.latents[-1])

    def decoded(self, latent: Tensor) -> Image:
        """Return a clean latent as a picture of the subject's size."""
        return self.frame.image_of(stages.decode(self.place.model, latent))


@torch.no_grad()
def rebuild(model: Model, subject: Subject, settings: DragConfig) -> Rebuilt:
    """Invert a picture and denoise it without a change.

    Args:
        model: The model.
        subject: The picture.
        settings: Its steps and strength are read: how many steps are inverted, of how many.
    """
    frame = Frame.of(subject.image, model.factor)
    latent = stages.encode(model, frame.pixels(subject.image))
    text = stages.embed(model, subject.prompt)
    conditioning = stages.condition(model, text, settings.steps)
    noisy = stages.invert(model, latent, conditioning, settings.active_steps)[-1]
    place = Place.at(model, noisy, conditioning, settings.active_steps)
    return Rebuilt(subject, place, frame, denoise(place, noisy))


@torch.no_grad()
def denoise(
    place: Place, latent: Tensor, start: int = 0, held: Held | None = None
) -> tuple[Tensor, ...]:
    """Denoise from a step on and return every latent, the given one first, the clean one last.

    Args:
        place: Where the whole denoising begins.
        latent: Before the first step that is run, float32 [1, 4, h, w].
        start: That step, from 0 at the place; as many as there are steps: none is run.
        held: The block that is replaced in every step that is run; None: none.
    """
    network = place.model.unet.network
    latents = [latent]
    with nullcontext() if held is None else holding(blocks_of(network)[held.block], held.output):
        for _, timestep in place.schedule.active(place.active_steps)[start:]:
            noise = _noise(place, latents[-1], timestep)
            latents.append(place.schedule.denoise(noise, latents[-1], timestep))
    return tuple(latents)


@torch.no_grad()
def outputs_at(rebuilt: Rebuilt, start: int) -> Mapping[str, Output]:
    """Return what every block hands on at a step of the plain reconstruction."""
    place = rebuilt.place
    _, timestep = place.schedule.active(place.active_steps)[start]
    with recording(blocks_of(place.model.unet.network)) as recorded:
        _noise(place, rebuilt.latents[start], timestep)
    return recorded


def _noise(place: Place, latent: Tensor, timestep: int) -> Tensor:
    """Return the noise that diffusers' own network predicts, float32 [1, 4, h, w]."""
    model = place.model
    told = latent.to(model.dtype)
    output = model.unet.network(told, timestep, encoder_hidden_states=place.text).sample
    return place.schedule.noise(output, latent, timestep)
