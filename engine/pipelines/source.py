"""A picture as an edit is given it, and what is known of it already."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..cache.digest import digest
from ..config import LIMITS, DragSettings, PictureLimits
from ..diffusion.lora.adapter import AdapterUse
from ..drag.method import AnyMethod
from ..inputs.image import Image, ImageLike
from ..inputs.prompt import check_prompts
from .generated import Generated
from .styled import StyledPicture

__all__ = ["Source", "preparation_key"]


@dataclass(frozen=True, eq=False)
class Source:
    """A picture, what it shows, and its inversions where they are known.

    Attributes:
        image: The picture.
        prompt: What it shows.
        negative_prompt: What guidance draws away from.
        generated: Where the picture comes from, if it was made here; then nothing is inverted.
        inversions: What inverting it gave in an earlier process, by `preparation_key`.
    """

    image: Image
    prompt: str
    negative_prompt: str = ""
    generated: Generated | None = None
    inversions: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        image: "ImageLike | Generated | StyledPicture",
        prompt: str,
        negative_prompt: str,
        limits: PictureLimits = LIMITS,
    ) -> "Source":
        """Return the source of a picture, or of a `Generated` one, which has its own prompts.

        A generator's own, a `StyledPicture`, is known to it.

        Raises:
            ConfigError: For prompts that are no text, or others than a generated picture's own.
            ImageError: For what is no picture, or one larger than the limits.
        """
        check_prompts(prompt=prompt, negative_prompt=negative_prompt)
        if isinstance(image, StyledPicture):
            return cls(image.image, prompt, negative_prompt, None, image.inversions)
        if not isinstance(image, Generated):
            picture = Image.of(image, limits)
            limits.check_edit(picture.width, picture.height)
            return cls(picture, prompt, negative_prompt)
        image.check(
            prompt=prompt or image.prompt,
            negative_prompt=negative_prompt or image.negative_prompt,
        )
        return cls(image.image, image.prompt, image.negative_prompt, image)


def preparation_key(method: AnyMethod, settings: DragSettings, use: AdapterUse, *model: str) -> str:
    """Digest what a preparation depends on beside the source.

    Args:
        model: The digest of a model that is not the one that sessions are bound to.
    """
    preparation: Any = settings.preparation
    return digest(method.name, preparation, use.key, *model)
