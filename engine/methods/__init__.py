"""The table of drag methods."""

from .baseline import BASELINE, BASELINE_PLAIN
from .dragnoise import DRAGNOISE
from .method import Method, Origin, Place, Predictor, Scene, Seen, Start, State

__all__ = ["METHODS", "Method", "Origin", "Place", "Predictor", "Scene", "Seen", "Start", "State"]

METHODS: dict[str, Method] = {method.name: method for method in (DRAGNOISE, BASELINE, BASELINE_PLAIN)}
