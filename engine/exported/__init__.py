"""Exported parts: what they are called, what goes in and out, which file is whose. `dragnoise.export` makes them, backends run them."""

from .identity import DTYPES, Built, Graph, Profile, code, graph_of, read_graph
from .operators import EXPORTED
from .parts import PARTS, Extent, Signature, part_of, signature
from .plan_file import SUFFIX, about_plan, read_plan, write_plan

__all__ = [
    "DTYPES",
    "EXPORTED",
    "PARTS",
    "SUFFIX",
    "Built",
    "Extent",
    "Graph",
    "Profile",
    "Signature",
    "about_plan",
    "code",
    "graph_of",
    "part_of",
    "read_graph",
    "read_plan",
    "signature",
    "write_plan",
]
