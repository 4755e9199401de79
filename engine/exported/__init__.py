"""Exported parts: what they are called, what goes in and out, which file is whose. `dragnoise.export` makes them, backends run them."""

from .graph_file import about_graph, check_graph, files_of, write_report
from .identity import DTYPES, GraphId, PlanId, Profile, code, graph_id, multiple_px, read_graph_id
from .parts import OF_AN_EDIT, PARTS, Extent, Signature, part_of, precision_of, signature
from .plan_file import SUFFIX, about_plan, read_plan, write_plan
from .spelling import EXPORTED, exported_vae

__all__ = [
    "DTYPES",
    "EXPORTED",
    "OF_AN_EDIT",
    "PARTS",
    "SUFFIX",
    "Extent",
    "GraphId",
    "PlanId",
    "Profile",
    "Signature",
    "about_graph",
    "about_plan",
    "check_graph",
    "code",
    "exported_vae",
    "files_of",
    "graph_id",
    "multiple_px",
    "part_of",
    "precision_of",
    "read_graph_id",
    "read_plan",
    "signature",
    "write_plan",
    "write_report",
]
