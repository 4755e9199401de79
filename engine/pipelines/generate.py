"""A picture of a prompt, with the trajectory that it came by, so that it needs no inversion."""

from collections.abc import Callable
from typing import Any

from ..config import LIMITS, DiffusionSettings, PictureLimits, shown, whole
from ..diffusion.model import Model
from ..errors import ConfigError, ImageError
from ..inputs.frame import Frame
from ..run import Run
from ..stages import condition, decode, draw_noise, embed, generate
from .generated import Generated
from .prompts import notice_prompts

__all__ = ["Generated", "checked_seed", "generate_image", "picture_size"]


def generate_image(
    run: Run,
    model: Model,
    prompt: str,
    negative_prompt: str,
    size: tuple[int, int],
    seed: int,
    config: DiffusionSettings,
    *,
    on_step: Callable[[int], None] | None = None,
) -> Generated:
    """Return a picture of `prompt`, in `config.steps` DDIM steps from the noise of `seed`.

    Args:
        negative_prompt: What guidance draws away from, where `config.guidance` is above 1.
        size: (height, width) in pixels, multiples of the VAE's factor.
    """
    height, width = size
    run.once(notice_prompts, model, prompt, negative_prompt, config.guidance)
    negative = negative_prompt if config.guidance > 1 else None
    text = run(embed, model, prompt, negative)
    conditioning = run(condition, model, text, config.steps, config.guidance)
    noise = run(draw_noise, model, (height // model.factor, width // model.factor), seed)
    trajectory = run(generate, model, conditioning, noise, on_step=on_step)
    pixels = run(decode, model, trajectory[0])
    image = Frame(size, size, config.parity).image_of(pixels)
    return Generated(image, trajectory, prompt, negative or "", seed, config, model.name, {})


def checked_seed(seed: int) -> int:
    """Return a seed. Raises ConfigError if it is not a whole number from 0 to 2^63 - 1."""
    return whole("seed", seed, 0, 2**63 - 1, "a whole number from 0 to 2^63 - 1")


def picture_size(
    model: Model, wanted: tuple[int, int] | None, limits: PictureLimits = LIMITS
) -> tuple[int, int]:
    """Return (height, width) of a picture that the model can make.

    Args:
        wanted: Any number of latent cells, `factor` pixels each; None: what the model was trained
            on.
        limits: How many pixels it may have.

    Raises:
        ImageError: For another size, naming the nearest, or for one beyond the limits.
        ConfigError: For what is no size.
    """
    factor = model.factor
    if wanted is None:
        cells: int = model.unet.config["sample_size"]
        return cells * factor, cells * factor
    given: Any = wanted
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise ConfigError(f"size must be (height, width) in pixels, got {shown(wanted)}")
    height, width = (
        whole("a side of size", side, -(2**63), 2**63, "a whole number") for side in given
    )
    limits.check_edit(width, height)
    if height < factor or width < factor or height % factor or width % factor:
        nearest = f"{_nearest(width, factor)} wide, {_nearest(height, factor)} high"
        raise ImageError(
            f"this model makes pictures with sides that are multiples of {factor}, "
            f"got {width}x{height}; take {nearest}"
        )
    return height, width


def _nearest(side: int, factor: int) -> str:
    """Name the multiples of `factor` on both sides of `side`, at least `factor` itself."""
    below = max(factor, side // factor * factor)
    above = max(factor, -(-side // factor) * factor)
    return " or ".join(str(multiple) for multiple in sorted({below, above}))
