"""A graph's files, STEM being its identity: STEM.onnx, STEM.onnx.data (its weights) and STEM.json, the report of how it was made and checked.

The report has the identity and the length and digest of both files: where one of them is cut off, changed or another's, it is told.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import PlanError
from ..system.files import write_whole
from .identity import GraphId, differences, read_graph_id

__all__ = ["about_graph", "check_graph", "files_of", "write_report"]


def files_of(path: Path) -> tuple[Path, ...]:
    """Those of the ONNX file `path` that are there: the graph, its weights."""
    return tuple(file for file in (path, path.with_name(f"{path.name}.data")) if file.exists())


def write_report(path: Path, graph: GraphId, report: Mapping[str, Any]) -> Path:
    """Beside the ONNX file `path`, of its files as they are. Raises OutputError."""
    whole = files_of(path)
    said = {
        "graph": graph.to_dict(),
        "bytes": sum(file.stat().st_size for file in whole),
        "digest": _digest(whole),
    }
    text = json.dumps({**said, **report}, indent=1)
    return write_whole(
        path.with_suffix(".json"), lambda part: part.write_text(text, encoding="utf-8")
    )


def about_graph(path: Path) -> tuple[GraphId, dict[str, Any]]:
    """(identity, report) of an ONNX file, from its report. Raises PlanError."""
    beside = path.with_suffix(".json")
    try:
        report = json.loads(beside.read_text(encoding="utf-8"))
        graph = read_graph_id(report["graph"])
        if not (
            isinstance(report["bytes"], int)
            and isinstance(report["digest"], str)
            and isinstance(report["check"], dict)
        ):
            raise TypeError("a field is of another type")
    except (OSError, ValueError, KeyError, TypeError) as wrong:
        raise PlanError(
            f"the report {str(beside)!r} cannot be read ({wrong}); export the graph again"
        ) from wrong
    return graph, report


def check_graph(path: Path, wanted: GraphId) -> dict[str, Any]:
    """The report, if the files are whole and the graph that is wanted. Raises PlanError that says what is wrong with them."""
    graph, report = about_graph(path)
    if found := differences(graph.to_dict(), wanted.to_dict()):
        raise PlanError(
            f"the graph {str(path)!r} is another's: {'; '.join(found)}; export it again"
        )
    files = files_of(path)
    size = sum(file.stat().st_size for file in files)
    if size != report["bytes"]:
        raise PlanError(
            f"the graph {str(path)!r} is cut off: it has {size} bytes of {report['bytes']}; export it again"
        )
    if _digest(files) != report["digest"]:
        raise PlanError(
            f"the graph {str(path)!r} is corrupt: its digest does not match; export it again"
        )
    return report


def _digest(files: tuple[Path, ...]) -> str:
    found = hashlib.blake2b(digest_size=32)
    for file in files:
        with file.open("rb") as opened:
            while piece := opened.read(2**24):
                found.update(piece)
    return found.hexdigest()
