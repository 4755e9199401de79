"""What lies in a folder of exported parts, and whether it is whole."""

import json
from pathlib import Path
from typing import Any

from dragnoise.engine.errors import PlanError
from dragnoise.engine.exported import SUFFIX, about_plan, read_graph, read_plan

from .graphs import kept_graph

__all__ = ["entries"]


def entries(folder: Path) -> list[dict[str, Any]]:
    """Every graph and plan, by name: file, bytes, state ("whole" or "broken") and the reason. Plans are read to their end."""
    return [_graph(path) for path in sorted(folder.glob("*.onnx"))] + [
        _plan(path) for path in sorted(folder.glob(f"*{SUFFIX}"))
    ]


def _graph(path: Path) -> dict[str, Any]:
    parts = (path, path.with_name(f"{path.name}.data"))
    size = sum(part.stat().st_size for part in parts if part.exists())
    try:
        graph = read_graph(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["graph"])
        whole = kept_graph(path.parent, graph) is not None
        reason = "" if whole else "its weights or its report are of another length or another graph"
    except (OSError, ValueError, KeyError, TypeError) as wrong:
        reason = f"its report cannot be read: {wrong}"
    return {"file": path.name, "bytes": size, "state": "broken" if reason else "whole", "reason": reason}


def _plan(path: Path) -> dict[str, Any]:
    try:
        read_plan(path, about_plan(path)[0])
        reason = ""
    except PlanError as wrong:
        reason = str(wrong)
    return {"file": path.name, "bytes": path.stat().st_size, "state": "broken" if reason else "whole", "reason": reason}
