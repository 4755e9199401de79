"""Ways to drag that have a name: a method with settings, chosen by one word."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..config import shown
from ..errors import ConfigError

__all__ = ["PRESETS", "Preset", "preset_of"]


@dataclass(frozen=True)
class Preset:
    """A method, and the settings in which it differs from that method's usual ones.

    Attributes:
        summary: What it is, in a few words.
        method: A name in `METHODS`.
        changes: Settings by name.
    """

    summary: str
    method: str
    changes: Mapping[str, Any] = field(default_factory=dict)


PRESETS: Mapping[str, Preset] = {
    "published": Preset("DragNoise to the letter, with the model's own settings", "dragnoise"),
    "fast": Preset("the noisy latent moved, then mended by a few updates", "fast"),
    "live": Preset(
        "the noisy latent moved, and denoised in few steps: for a picture that follows the pointer",
        "fast",
        {"steps": 5, "iterations": 0},
    ),
    "warp": Preset("no model: the picture's own pixels moved, in milliseconds", "warp"),
}
"""By name; docs/presets.md says what each costs and how near it comes."""


def preset_of(name: object) -> Preset:
    """Return the preset of a name. Raises ConfigError for another."""
    if isinstance(name, str) and name in PRESETS:
        return PRESETS[name]
    raise ConfigError(f"there is no preset {shown(name)}; known: {', '.join(PRESETS)}")
