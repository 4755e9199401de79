"""What lies in a folder of exported parts, and whether it is whole."""

from pathlib import Path
from typing import Any

from dragnoise.engine.errors import PlanError
from dragnoise.engine.exported import SUFFIX, about_graph, about_plan, check_graph, files_of, read_plan

__all__ = ["entries"]


def entries(folder: Path) -> list[dict[str, Any]]:
    """Every graph and plan, by name: file, bytes, state ("whole" or "broken") and the reason. All are read to their end."""
    return [_graph(path) for path in sorted(folder.glob("*.onnx"))] + [
        _plan(path) for path in sorted(folder.glob(f"*{SUFFIX}"))
    ]


def _graph(path: Path) -> dict[str, Any]:
    try:
        check_graph(path, about_graph(path)[0])
        reason = ""
    except PlanError as wrong:
        reason = str(wrong)
    size = sum(file.stat().st_size for file in files_of(path))
    return {"file": path.name, "bytes": size, "state": "broken" if reason else "whole", "reason": reason}


def _plan(path: Path) -> dict[str, Any]:
    try:
        read_plan(path, about_plan(path)[0])
        reason = ""
    except PlanError as wrong:
        reason = str(wrong)
    return {"file": path.name, "bytes": path.stat().st_size, "state": "broken" if reason else "whole", "reason": reason}
