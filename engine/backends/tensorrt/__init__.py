"""Run TensorRT plans, in either flavour of its library."""

from .execution import Cuda, Device, Engine
from .flavours import FLAVOURS, Library, Log, library, objections_to_tensorrt

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
