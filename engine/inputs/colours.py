"""Colours of a picture with a profile, as sRGB.

A profile says what a picture's numbers mean on a screen. Every photograph of a telephone has one;
without it its colours shift, by up to 116 of 255 for a wide gamut.
"""

import io
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
import PIL.ImageCms

from ..errors import ImageError
from ..system.incoming import told_as
from .notices import say

__all__ = ["Transform", "srgb_transform"]

Picture: TypeAlias = PIL.Image.Image
Transform: TypeAlias = Callable[[Picture], Picture]
"""Makes RGB of an opaque picture, or of a part of one."""

_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
"""The Pillow mode of every profile's colour space that is known."""

_TOLERANCE = 2
"""Levels of 255 by which a profile may differ from sRGB and still be called one: rounding."""


def srgb_transform(picture: Picture, name: str) -> Transform:
    """Return what makes sRGB of a picture's strips, by its colour profile if it has one.

    A profile that changes something, and one that cannot be used, is said (InputWarning).
    """
    profile = picture.info.get("icc_profile")
    if not profile:
        return _as_it_is
    try:
        with told_as(ImageError, f"the colour profile of {name} is ignored: it cannot be used"):
            transform, about = _transform(profile, picture)
    except ImageError as unusable:
        say(f"{unusable}; its colours are taken as sRGB")
        return _as_it_is
    if transform is _as_it_is:
        return transform
    say(f"the colours of {name} were converted from {about} to sRGB")
    return transform


def _as_it_is(picture: Picture) -> Picture:
    return picture.convert("RGB")


def _transform(content: bytes, picture: Picture) -> tuple[Transform, str]:
    """Return what makes sRGB of a picture with that profile, and the profile's name."""
    profile = PIL.ImageCms.ImageCmsProfile(io.BytesIO(content))
    space = profile.profile.xcolor_space.strip()
    mode = _SPACES.get(space)
    if mode is None or not _fits(mode, picture.mode):
        raise ImageError(f"it is for {space or 'no'} colours, the picture is {picture.mode}")
    build: Any = PIL.ImageCms.buildTransform
    transform = build(profile, _srgb(), mode, "RGB")

    def apply(part: Picture) -> Picture:
        source = part.convert("RGB").convert(mode) if part.mode != mode else part
        converted: Any = PIL.ImageCms.applyTransform(source, transform)
        return converted  # type: ignore[no-any-return]

    about = " ".join((profile.profile.profile_description or "its colour profile").split())[:60]
    return (_as_it_is if _changes_nothing(apply, mode) else apply), about


def _fits(mode: str, seen: str) -> bool:
    """Whether a profile for that mode can be that of a picture of the mode seen."""
    if mode == "RGB":
        return seen not in ("CMYK", "LAB")
    return seen == mode or (mode == "L" and (seen in ("1", "LA", "La", "F") or seen[0] == "I"))


def _changes_nothing(apply: Transform, mode: str) -> bool:
    """Whether colours of all kinds stay as they are."""
    if mode not in ("RGB", "L"):
        return False
    sample = _cube() if mode == "RGB" else _cube().convert("L")
    before, after = (np.asarray(each, np.int16) for each in (_as_it_is(sample), apply(sample)))
    return int(np.abs(after - before).max()) <= _TOLERANCE


@cache
def _cube() -> Picture:
    """Return a picture of 17 x 17 x 17 colours, every 16th level of each channel."""
    levels = np.linspace(0, 255, 17).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    return PIL.Image.fromarray(cube.reshape(17 * 17, 17, 3))


@cache
def _srgb() -> Any:
    return PIL.ImageCms.createProfile("sRGB")
