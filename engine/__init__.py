"""Drag-based image editing with diffusion models.

    from dragnoise.engine import Editor
    result = Editor.from_pretrained().edit("picture.png", [((60, 40), (80, 40))])
    result.image.save("edited.png")
"""

from .config import DragConfig
from .editor import Editor, EditResult, History, Record
from .errors import (
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

__all__ = [
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
