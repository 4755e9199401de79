"""What lies in a folder of exported parts, and whether it is whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dragnoise.engine.errors import PlanError
from dragnoise.engine.exported import (
    SUFFIX,
    about_graph,
    about_plan,
    check_graph,
    files_of,
    read_plan,
)

__all__ = ["entries"]


def entries(folder: Path) -> list[dict[str, Any]]:
    """Every graph and plan, by name: file, bytes, state ("whole" or "broken") and the reason. All are read to their end."""
    graphs = [
        _entry(path, lambda path: check_graph(path, about_graph(path)[0]))
        for path in sorted(folder.glob("*.onnx"))
    ]
    plans = [
        _entry(path, lambda path: read_plan(path, about_plan(path)[0]))
        for path in sorted(folder.glob(f"*{SUFFIX}"))
    ]
    return graphs + plans


def _entry(path: Path, check: Callable[[Path], object]) -> dict[str, Any]:
    try:
        check(path)
        reason = ""
    except PlanError as wrong:
        reason = str(wrong)
    size = sum(file.stat().st_size for file in files_of(path))
    return {
        "file": path.name,
        "bytes": size,
        "state": "broken" if reason else "whole",
        "reason": reason,
    }
