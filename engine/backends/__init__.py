"""Run the parts of the network by backends: a table of them, each with its objections.

A placement says who runs which part.
"""

from .artefacts import Artefacts
from .attention import ATTENTION
from .backend import Backend, Choice
from .fastest import fastest_placement
from .placement import Placement
from .registry import BACKENDS, choose

__all__ = [
    "ATTENTION",
    "BACKENDS",
    "Artefacts",
    "Backend",
    "Choice",
    "Placement",
    "choose",
    "fastest_placement",
]
