"""The exported parts that lie in a folder, and whether they are whole."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dragnoise.engine.errors import PlanError
from dragnoise.engine.exported import (
    SUFFIX,
    about_graph,
    about_plan,
    check_graph,
    files_of,
    read_plan,
)

__all__ = ["ListedFile", "entries"]


@dataclass(frozen=True)
class ListedFile:
    """A graph or a plan in a folder.

    Attributes:
        name: the file's name.
        nbytes: its size, with the files that belong to it.
        reason: why it cannot be used; empty if it is whole.
    """

    name: str
    nbytes: int
    reason: str

    @property
    def state(self) -> str:
        """Return "whole" or "broken"."""
        return "broken" if self.reason else "whole"

    def to_dict(self) -> dict[str, str | int]:
        """Return the fields by name, ready for JSON."""
        return {
            "file": self.name,
            "bytes": self.nbytes,
            "state": self.state,
            "reason": self.reason,
        }

    def __str__(self) -> str:
        line = f"{self.state:8}  {self.nbytes:>14,} bytes  {self.name}"
        return f"{line}  ({self.reason})" if self.reason else line


def entries(folder: Path) -> list[ListedFile]:
    """Return every graph, then every plan of a folder, by name. All are read to their end."""
    graphs = [_entry(path, _read_graph) for path in sorted(folder.glob("*.onnx"))]
    plans = [_entry(path, _read_plan) for path in sorted(folder.glob(f"*{SUFFIX}"))]
    return graphs + plans


def _read_graph(path: Path) -> object:
    return check_graph(path, about_graph(path)[0])


def _read_plan(path: Path) -> object:
    return read_plan(path, about_plan(path)[0])


def _entry(path: Path, read: Callable[[Path], object]) -> ListedFile:
    reason = ""
    try:
        read(path)
    except PlanError as error:
        reason = str(error)
    return ListedFile(path.name, sum(_size(file) for file in files_of(path)), reason)


def _size(file: Path) -> int:
    """Return a file's bytes, 0 where they are not told."""
    try:
        return file.stat().st_size
    except OSError:
        return 0
