"""What runs the parts of the network: a table of backends, each with its objections, and the attention they use."""

from .attention import ATTENTION
from .table import BACKENDS, Backend, Choice, choose

__all__ = ["ATTENTION", "BACKENDS", "Backend", "Choice", "choose"]
