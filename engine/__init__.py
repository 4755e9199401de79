"""Drag-based image editing with diffusion models.

    from dragnoise.engine import Editor
    result = Editor.from_pretrained().edit("picture.png", [((60, 40), (80, 40))])
    result.image.save("edited.png")

Names are imported when first used: PyTorch takes seconds, and the command line sets how its threads wait before it is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import DragConfig
    from .editor import Editor, EditResult, History, Record
    from .errors import (
        BackendError,
        ConfigError,
        DeviceError,
        DragnoiseError,
        ImageError,
        InputWarning,
        MaskError,
        ModelError,
        OutputError,
        PointError,
    )
    from .values import Image, Mask, Points

_HOMES = {
    "config": ("DragConfig",),
    "editor": ("EditResult", "Editor", "History", "Record"),
    "errors": (
        "BackendError",
        "ConfigError",
        "DeviceError",
        "DragnoiseError",
        "ImageError",
        "InputWarning",
        "MaskError",
        "ModelError",
        "OutputError",
        "PointError",
    ),
    "values": ("Image", "Mask", "Points"),
}

__all__ = [
    "BackendError",
    "ConfigError",
    "DeviceError",
    "DragConfig",
    "DragnoiseError",
    "EditResult",
    "Editor",
    "History",
    "Image",
    "ImageError",
    "InputWarning",
    "Mask",
    "MaskError",
    "ModelError",
    "OutputError",
    "PointError",
    "Points",
    "Record",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
