"""Notices of pictures that a model does not know, before any work is done on them."""

import warnings
from typing import Any

from ..config import DiffusionSettings
from ..diffusion.load import EMBEDDED
from ..diffusion.model import Model
from ..drag.method import AnyMethod
from ..errors import InputWarning
from ..inputs.frame import Frame
from ..inputs.image import Image
from ..run import Run
from ..stages import encode, rebuild
from .source import Source

__all__ = ["notice_picture"]

ENOUGH_DB = 26.0
"""What a VAE that knows a kind of picture rebuilds it with, and more; the demo's have 33 to 38."""

TIMES = 4
"""So many times may a side be the model's own: beyond, it sees a small part of a thing at once."""

_ANOTHER = "give another model (Editor.from_pretrained(PATH), --model PATH)"


def notice_picture(
    run: Run, model: Model, source: Source, method: AnyMethod, settings: DiffusionSettings
) -> tuple[str, ...]:
    """Warn (InputWarning) of a picture that the model does not know; return the warnings' texts.

    A picture much larger than those it was trained on, or one that its VAE cannot rebuild. What was
    generated or inverted here before was noticed then.

    Args:
        settings: Only its `preparation` is read.
    """
    if source.generated is not None or source.inversions:
        return ()
    bare = run.once(method.prepare, model)
    frame = Frame.of(source.image, bare.factor, settings.preparation.parity)
    sizes = run.once(_notice_size, bare, source.image)
    pixels = run.once(Frame.pixels, frame, source.image)
    rebuilt_db = run(rebuild, bare, run(encode, bare, pixels), pixels)
    return (*sizes, *run.once(_notice_rebuilt, bare, source.image, rebuilt_db))


def _notice_size(model: Model, image: Image) -> tuple[str, ...]:
    cells: Any = model.unet.config["sample_size"]
    own = cells * model.factor if isinstance(cells, int) else 0
    side = max(image.width, image.height)
    if not own or side <= TIMES * own:
        return ()
    return _said(
        f"the picture is {image.width}x{image.height}, up to {side / own:.3g} times the {own} "
        "pixels a side that the model was trained on; it takes long and comes out poor: make the "
        f"picture smaller, or {_ANOTHER}"
    )


def _notice_rebuilt(model: Model, image: Image, rebuilt_db: float) -> tuple[str, ...]:
    if rebuilt_db >= ENOUGH_DB:
        return ()
    why = "the model does not know such pictures"
    if model.loaded_from is not None and model.loaded_from.path == EMBEDDED:
        why = "the embedded model knows only drawn pictures of 128 px"
    return _said(
        f"the VAE alone rebuilds this picture with {rebuilt_db:.1f} dB, less than {ENOUGH_DB:g}: "
        f"{why}, and edits come out as poor; {_ANOTHER}"
    )


def _said(notice: str) -> tuple[str, ...]:
    warnings.warn(notice, InputWarning, stacklevel=2)
    return (notice,)
