"""TensorRT: its library in either flavour, and what runs its plans."""

from .execution import Cuda, Device, Engine
from .library import FLAVOURS, Library, Log, library, objections_to_tensorrt

__all__ = [
    "FLAVOURS",
    "Cuda",
    "Device",
    "Engine",
    "Library",
    "Log",
    "library",
    "objections_to_tensorrt",
]
