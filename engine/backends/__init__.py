"""What runs the parts of the network: a table of backends, each with its objections, where each part is placed, and the attention they use."""

from .artefacts import Artefacts
from .attention import ATTENTION
from .measured import by_speed
from .placement import Placement
from .table import BACKENDS, Backend, Choice, choose

__all__ = ["ATTENTION", "BACKENDS", "Artefacts", "Backend", "Choice", "Placement", "by_speed", "choose"]
