"""TensorRT: its library in either flavour, and what runs its plans."""

from .library import FLAVOURS, Library, Log, library, objections_to

__all__ = ["FLAVOURS", "Library", "Log", "library", "objections_to"]
