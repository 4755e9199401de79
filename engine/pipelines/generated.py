"""A generated picture, with the trajectory that it came by."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..config import DiffusionSettings
from ..errors import ConfigError
from ..inputs.image import Image

__all__ = ["Generated"]


@dataclass(frozen=True, eq=False)
class Generated:
    """A picture that a prompt became; it is dragged without encoding and inverting it.

    Attributes:
        image: The picture.
        trajectory: `config.steps` + 1 latents, float32 [1, 4, h, w] each, from its clean latent to
            the noise of `seed`.
        prompt: What it was to show.
        negative_prompt: What guidance drew away from.
        seed: Of the noise.
        config: Its steps and guidance are the picture's own; the rest is how to drag it if nothing
            else is said.
        model: The name of the model that made it.
        timings_ms: Milliseconds by stage, and "total".
    """

    image: Image
    trajectory: tuple[Tensor, ...]
    prompt: str
    negative_prompt: str
    seed: int
    config: DiffusionSettings
    model: str
    timings_ms: Mapping[str, float]

    @property
    def guidance(self) -> float:
        """The scale of classifier-free guidance that it was made with."""
        return self.config.guidance

    def check(self, **wanted: str | int | float) -> None:
        """Check that the trajectory, which holds for its own settings alone, can be used.

        Args:
            wanted: Any of model, prompt, negative_prompt, steps, guidance.

        Raises:
            ConfigError: Where one is not the picture's own.
        """
        own: dict[str, str | int | float] = {
            "steps": self.config.steps,
            "guidance": self.config.guidance,
            "model": self.model,
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
        }
        for name, value in wanted.items():
            if value != own[name]:
                if isinstance(value, str):  # a person's own: it is not repeated
                    differs = f"another {name} than the one given"
                else:
                    differs = f"{name} {own[name]!r}, not {value!r}"
                raise ConfigError(
                    f"the image was generated with {differs}, and can be dragged with its own "
                    "alone; drag its picture (`generated.image`) to have it inverted like any other"
                )
