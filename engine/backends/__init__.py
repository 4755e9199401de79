"""What runs the parts of the network: a table of backends, each with its objections, where each part is placed, and the attention they use."""

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
