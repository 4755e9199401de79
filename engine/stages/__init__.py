"""The stages of an edit, in the order in which they run: plain functions of values.

Positional arguments are what a result depends on; keyword arguments only watch. A stage holds no timer, no cache and no device query.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ..diffusion.lora.adapter import Adapter
from ..diffusion.unet import Conditioning, Constants, Down, Folded, Guidance, Step
from ..drag.loop import Iteration, LoopCache, Optimum, drag, driven, iterations
from ..methods import Forward, Start
from ..methods.dragnoise import EncoderHalf
from ..training.lora import Learning, Training, personalise
from .decode import decode
from .encode import condition, embed, encode
from .generate import draw_noise, generate
from .invert import invert
from .preview import preview
from .propagate import propagate
from .start import place, reference, start

__all__ = [
    "KEPT",
    "KINDS",
    "Iteration",
    "Learning",
    "LoopCache",
    "Optimum",
    "Training",
    "condition",
    "decode",
    "drag",
    "draw_noise",
    "driven",
    "embed",
    "encode",
    "generate",
    "invert",
    "iterations",
    "personalise",
    "place",
    "preview",
    "propagate",
    "reference",
    "start",
]

KEPT: Mapping[Callable[..., Any], bool] = {
    embed: True,
    encode: True,
    condition: False,
    invert: True,
    generate: True,
    personalise: True,
    start: False,
    reference: False,
}
"""Stages whose results are worth keeping, and whether on disk too: what is quicker to compute than to read is not."""

KINDS: tuple[type, ...] = (
    Adapter,
    Conditioning,
    Constants,
    Down,
    EncoderHalf,
    Folded,
    Guidance,
    Forward,
    Start,
    Step,
)
"""What these results consist of, beside tensors."""
