"""Format the observation as tables, a header first."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..report.record import number

__all__ = ["map_tables", "summary_table"]


class _Column(NamedTuple):
    """What is shown of a record.

    Attributes:
        source: What was held.
        measure: Its name.
        title: What it is.
    """

    source: str
    measure: str
    title: str


_MAPS = (
    _Column("own", "pixels", "own held: mean difference of 255"),
    _Column("own", "structure", "own held: 1 - SSIM"),
    _Column("other", "pixels_share", "another's held: 0 own picture, 1 the other"),
)

_SUMMARY = (
    _Column("own", "pixels", "own held"),
    _Column("other", "pixels", "another's held"),
    _Column("zeros", "pixels", "zeros held"),
    _Column("own", "colour", "own held: colours"),
    _Column("own", "structure", "own held: 1 - SSIM"),
    _Column("other", "pixels_share", "another's: 0 own, 1 the other"),
)


def map_tables(document: Mapping[str, Any]) -> list[list[list[str]]]:
    """Return tables of blocks by start steps, each with its title over the first column."""
    header = [f"from {start}" for start in document["starts"]]
    return [
        [[shown.title, *header], *_rows(document["maps"][shown.source][shown.measure])]
        for shown in _MAPS
        if shown.source in document["maps"]
    ]


def _rows(table: Mapping[str, Sequence[float]]) -> list[list[str]]:
    return [[block, *(number(value) for value in values)] for block, values in table.items()]


def summary_table(document: Mapping[str, Any]) -> list[list[str]]:
    """Return one row a block: what comes of it held from the step at which a drag happens on.

    It is the nearest start step of the record. Distances are in levels of 255.
    """
    starts: Sequence[int] = document["starts"]
    place = min(range(len(starts)), key=lambda place: abs(starts[place] - document["drag_step"]))
    shown = [column for column in _SUMMARY if column.source in document["maps"]]
    tables = [document["maps"][column.source][column.measure] for column in shown]
    header = [f"from step {starts[place]} of {document['steps']}"]
    return [
        [*header, *(column.title for column in shown)],
        *([block, *(number(table[block][place]) for table in tables)] for block in tables[0]),
    ]
