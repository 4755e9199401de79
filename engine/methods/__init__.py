"""The table of drag methods."""

from ..drag.method import Forward, Method, Place, Predictor, Scene, Start, State, WarmStart
from .baseline import BASELINE, BASELINE_PLAIN
from .dragnoise import DRAGNOISE

__all__ = [
    "METHODS",
    "Forward",
    "Method",
    "Place",
    "Predictor",
    "Scene",
    "Start",
    "State",
    "WarmStart",
]

METHODS: dict[str, Method] = {
    method.name: method for method in (DRAGNOISE, BASELINE, BASELINE_PLAIN)
}
