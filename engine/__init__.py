"""Drag-based image editing with diffusion models.

    from dragnoise.engine import Editor
    result = Editor.from_pretrained().edit("picture.png", [((60, 40), (80, 40))])
    result.image.save("edited.png")

Names are imported when first used: PyTorch takes seconds, and the command line sets how its threads wait before it is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapters import Adapter
    from .backends import Placement
    from .cache import Limits, Store
    from .config import DragConfig, PersonaliseConfig
    from .editor import Editor
    from .errors import (
        AdapterError,
        BackendError,
        CacheWarning,
        CancelledError,
        ConfigError,
        DeadlineError,
        DeviceError,
        DragnoiseError,
        ExportError,
        ImageError,
        InputWarning,
        MaskError,
        ModelError,
        OutputError,
        PlanError,
        PointError,
        SessionError,
    )
    from .generated import Generated
    from .result import EditResult, History, Record
    from .session import Session
    from .values import Image, Mask, Points

_HOMES = {
    "adapters": ("Adapter",),
    "backends": ("Placement",),
    "cache": ("Limits", "Store"),
    "config": ("DragConfig", "PersonaliseConfig"),
    "editor": ("Editor",),
    "errors": (
        "AdapterError",
        "BackendError",
        "CacheWarning",
        "CancelledError",
        "ConfigError",
        "DeadlineError",
        "DeviceError",
        "DragnoiseError",
        "ExportError",
        "ImageError",
        "InputWarning",
        "MaskError",
        "ModelError",
        "OutputError",
        "PlanError",
        "PointError",
        "SessionError",
    ),
    "generated": ("Generated",),
    "result": ("EditResult", "History", "Record"),
    "session": ("Session",),
    "values": ("Image", "Mask", "Points"),
}

__all__ = [
    "Adapter",
    "AdapterError",
    "BackendError",
    "CacheWarning",
    "CancelledError",
    "ConfigError",
    "DeadlineError",
    "DeviceError",
    "DragConfig",
    "DragnoiseError",
    "EditResult",
    "Editor",
    "ExportError",
    "Generated",
    "History",
    "Image",
    "ImageError",
    "InputWarning",
    "Limits",
    "Mask",
    "MaskError",
    "ModelError",
    "OutputError",
    "PersonaliseConfig",
    "Placement",
    "PlanError",
    "PointError",
    "Points",
    "Record",
    "Session",
    "SessionError",
    "Store",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
