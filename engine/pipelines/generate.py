"""A generated image: what a prompt becomes, with the trajectory that it came by, so that it is dragged without encoding and inverting it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from .. import stages
from ..config import DragConfig
from ..diffusion.lora.adapter import AdapterUse
from ..diffusion.model import Model
from ..errors import ConfigError, ImageError
from ..inputs.frame import Frame
from ..inputs.image import Image
from ..run import Run
from ..system.timers import StageTimes
from .runtime import Runtime

__all__ = ["Generated", "generate_image", "picture_size"]

_SEEDS = 2**63


@dataclass(frozen=True, eq=False)
class Generated:
    """image: the picture. trajectory: float32 [1, 4, h, w] each, from its clean latent to the noise of `seed`, `config.steps` + 1 of them.

    model: the name of the one that made it. config: its steps and guidance are the image's own, the rest is how to drag it if nothing else is said.
    timings_ms: by stage, and "total".
    """

    image: Image
    trajectory: tuple[Tensor, ...]
    prompt: str
    negative_prompt: str
    seed: int
    config: DragConfig
    model: str
    timings_ms: Mapping[str, float]

    @property
    def guidance(self) -> float:
        return self.config.guidance

    def check(self, **asked: str | int | float) -> None:
        """Raises ConfigError where model, prompt, negative_prompt, steps or guidance is not the image's own: its trajectory holds for these alone."""
        config = self.config
        own: dict[str, str | int | float] = {
            "steps": config.steps,
            "guidance": config.guidance,
            "model": self.model,
        }
        own |= {"prompt": self.prompt, "negative_prompt": self.negative_prompt}
        for name, value in asked.items():
            if value != own[name]:
                raise ConfigError(
                    f"the image was generated with {name} {own[name]!r} and can be dragged with no other, got {value!r}; "
                    "drag its picture alone (`generated.image`) to have it inverted like any other"
                )


def generate_image(
    runtime: Runtime,
    prompt: str,
    negative_prompt: str,
    size: tuple[int, int] | None,
    seed: int,
    config: DragConfig,
    *,
    on_step: Callable[[int], None] | None = None,
) -> Generated:
    """A picture of `prompt`, away from `negative_prompt` where `config.guidance` is above 1, in `config.steps` DDIM steps from the noise of `seed`.

    size: (height, width) in pixels, multiples of the VAE's factor; None for the model's own. Raises ImageError for another size, ConfigError for a
    seed that is not a whole number from 0 to 2^63 - 1.
    """
    model = runtime.model
    height, width = size = picture_size(model, size)
    if type(seed) is not int or not 0 <= seed < _SEEDS:
        raise ConfigError(f"seed must be a whole number from 0 to 2^63 - 1, got {seed!r}")
    told = config.negative(negative_prompt)
    times, total = StageTimes(model.device), StageTimes(model.device)
    run = Run((*runtime.observers, times), runtime.keeper())
    with runtime.working(AdapterUse()), total("total"):
        text = run(stages.embed, model, prompt, told)
        conditioning = run(stages.condition, model, text, config.steps, config.guidance)
        noise = run(stages.draw_noise, model, (height // model.factor, width // model.factor), seed)
        trajectory = run(stages.generate, model, conditioning, noise, on_step=on_step)
        image = Frame(size, size, config.parity).image_of(run(stages.decode, model, trajectory[0]))
    return Generated(
        image, trajectory, prompt, told or "", seed, config, model.name, times.ms | total.ms
    )


def picture_size(model: Model, asked: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) of a picture that the model can make: of any number of latent cells, `factor` pixels each; None: what it was trained on.

    Raises ImageError for another, naming the nearest.
    """
    factor = model.factor
    if asked is None:
        cells: int = model.unet.network.config["sample_size"]
        return cells * factor, cells * factor
    height, width = asked
    if height < factor or width < factor or height % factor or width % factor:
        nearest = f"{_nearest(width, factor)} wide, {_nearest(height, factor)} high"
        raise ImageError(
            f"this model makes pictures with sides that are multiples of {factor}, got {width}x{height}; take {nearest}"
        )
    return height, width


def _nearest(side: int, factor: int) -> str:
    """The multiples of `factor` on both sides of `side`, at least `factor` itself, in words."""
    around = {max(factor, side // factor * factor), max(factor, -(-side // factor) * factor)}
    return " or ".join(map(str, sorted(around)))
