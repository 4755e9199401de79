"""Keep a quality run small: the record of a run without the scores' names in every result.

Numbers are rounded to four digits: no table shows more.
"""

import math
from collections.abc import Callable
from typing import Any

from ..jobs.run import FAILED
from .document import SCORES, Document
from .within import GENERATED

__all__ = ["packed", "unpacked"]

_DIGITS = 4
_COLUMNS = [score.name for score in SCORES if score.name != "left"]


def packed(document: Document) -> dict[str, Any]:
    """Return the document with a list of numbers for each result, in the order of "columns"."""
    drags = {name: _packed_drag(drag) for name, drag in document["drags"].items()}
    return _with_part({**document, "columns": _COLUMNS, "drags": drags}, packed)


def unpacked(record: Document) -> dict[str, Any]:
    """Return the document of a record; what is none is returned as it is."""
    if "columns" not in record:
        return dict(record)
    columns = record["columns"]
    drags = {name: _unpacked_drag(drag, columns) for name, drag in record["drags"].items()}
    rest = {name: value for name, value in record.items() if name != "columns"}
    return _with_part({**rest, "drags": drags}, unpacked)


def _with_part(
    document: dict[str, Any], changed: Callable[[Document], dict[str, Any]]
) -> dict[str, Any]:
    """Return a document with the one within it changed likewise."""
    part = document.get(GENERATED)
    return document if part is None else document | {GENERATED: changed(part)}


def _packed_drag(drag: Document) -> Document:
    if FAILED in drag:
        return drag
    scores = {
        name: own if FAILED in own else [_rounded(own.get(column)) for column in _COLUMNS]
        for name, own in drag["scores"].items()
    }
    return {**drag, "scores": scores}


def _unpacked_drag(drag: Document, columns: list[str]) -> Document:
    if FAILED in drag:
        return drag
    scores = {
        name: own if FAILED in own else dict(zip(columns, own, strict=True))
        for name, own in drag["scores"].items()
    }
    return {**drag, "scores": scores}


def _rounded(value: Any) -> Any:
    """Return a number with four digits; None for what is no finite number."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
