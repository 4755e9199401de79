"""Name exported parts and their files. `dragnoise.export` makes them, backends run them."""

from .graph_file import about_graph, check_graph, files_of, write_report
from .identity import DTYPES, GraphId, PlanId, Profile, code, dtype_name, graph_id, read_graph_id
from .parts import (
    EXPORTABLE,
    OF_AN_EDIT,
    Extent,
    Signature,
    extent_of,
    multiple_px,
    part_named,
    part_of,
    precision_of,
    signature,
)
from .plan_file import SUFFIX, about_plan, read_plan, write_plan
from .spelling import SPELLED, exported_vae

__all__ = [
    "DTYPES",
    "EXPORTABLE",
    "OF_AN_EDIT",
    "SPELLED",
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
    "dtype_name",
    "exported_vae",
    "extent_of",
    "files_of",
    "graph_id",
    "multiple_px",
    "part_named",
    "part_of",
    "precision_of",
    "read_graph_id",
    "read_plan",
    "signature",
    "write_plan",
    "write_report",
]
