"""Choose the pictures: the embedded model's samples, or any."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import PIL.Image

from dragnoise.engine import Image
from dragnoise.engine.cli.demo import samples
from dragnoise.engine.errors import ConfigError, ImageError

__all__ = ["Subject", "given", "known", "of_one_size"]


@dataclass(frozen=True)
class Subject:
    """A picture to be rebuilt.

    Attributes:
        name: What it is called in tables.
        image: The picture.
        prompt: What it shows.
    """

    name: str
    image: Image
    prompt: str


def known(names: str | None, prompt: str | None) -> list[Subject]:
    """Return samples of the embedded model.

    Args:
        names: Theirs, separated by commas; None: all.
        prompt: What all show; None: each its own.

    Raises:
        ConfigError: There is no sample of a name.
    """
    by_name = {sample.name: sample for sample in samples()}
    wanted = list(by_name) if names is None else names.split(",")
    if unknown := [name for name in wanted if name not in by_name]:
        raise ConfigError(f"there is no sample {unknown[0]!r}; use {', '.join(by_name)}")
    chosen = [by_name[name] for name in wanted]
    return [
        Subject(sample.name, Image.of(sample.image), sample.prompt if prompt is None else prompt)
        for sample in chosen
    ]


def given(paths: Sequence[str], prompt: str | None) -> list[Subject]:
    """Return the pictures of files. Raises ImageError for what is no picture."""
    return [Subject(Path(path).stem, Image.of(path), prompt or "") for path in paths]


def of_one_size(subjects: Sequence[Subject], size: tuple[int, int] | None) -> list[Subject]:
    """Return the pictures at (height, width); None: as they are.

    Raises:
        ImageError: Their sizes differ: blocks hand on maps of the picture's size, and one picture's
            are put into another's denoising.
    """
    if size is not None:
        return [replace(subject, image=_resized(subject.image, size)) for subject in subjects]
    sizes = {(subject.image.width, subject.image.height) for subject in subjects}
    if len(sizes) > 1:
        seen = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
        raise ImageError(f"the pictures must have one size, got {seen}; choose it: --size WxH")
    return list(subjects)


def _resized(image: Image, size: tuple[int, int]) -> Image:
    height, width = size
    if (image.height, image.width) == size:
        return image
    return Image.of(image.to_pil().resize((width, height), PIL.Image.Resampling.LANCZOS))
