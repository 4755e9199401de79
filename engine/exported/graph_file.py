"""Know a graph's files, and check that they are whole.

With the graph's identity as STEM there are STEM.onnx, STEM.onnx.data (its weights) and STEM.json,
the report of how it was made and checked. The report has the identity, and the length and digest of
both files: a file that is cut off, changed or another's is noticed. A graph whose weights lie in
any other file is refused: nobody would notice what becomes of that.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cache.digest import file_digest
from ..errors import PlanError
from ..system.files import write_whole
from ..system.incoming import open_regular, read_json, shown, told_as
from ..system.schema import Fields, Plain, Text, Whole
from .identity import GraphId, differences, read_graph_id

__all__ = ["LARGEST_BYTES", "about_graph", "check_graph", "files_of", "write_report"]

LARGEST_BYTES = 16 * 2**30
"""The longest file of a graph or a plan: it is read to its end."""

_LARGEST_REPORT = 2**20
_REPORT = Fields(
    {
        "graph": Plain(),
        "bytes": Whole(0, LARGEST_BYTES),
        "digest": Text(longest=64),
        "check": Fields({}, more=True),
    },
    more=True,
)


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the files of an ONNX file that exist: the graph, its weights."""
    return tuple(file for file in (path, _weights_of(path)) if file.exists())


def _weights_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.data")


def write_report(path: Path, graph: GraphId, report: Mapping[str, Any]) -> Path:
    """Write the report beside an ONNX file, with the length and digest of its files.

    Args:
        path: The ONNX file.
        graph: Its identity.
        report: How it was made and checked, JSON-ready.

    Raises:
        OutputError: Where the disk refuses.
    """
    files = files_of(path)
    fields = {
        "graph": graph.to_dict(),
        "bytes": _size(files),
        "digest": file_digest(*files),
    }
    text = json.dumps({**fields, **report}, indent=1)
    return write_whole(
        path.with_suffix(".json"), lambda partial: partial.write_text(text, encoding="utf-8")
    )


def about_graph(path: Path) -> tuple[GraphId, dict[str, Any]]:
    """Return the identity and the report of an ONNX file, from its report alone.

    Raises:
        PlanError: Where the report cannot be read.
    """
    beside = path.with_suffix(".json")
    report = read_json(beside, PlanError, _LARGEST_REPORT)
    with told_as(PlanError, f"the report {str(beside)!r} cannot be read; export the graph again"):
        _REPORT.check(report, "report")
        return read_graph_id(report["graph"]), report


def check_graph(path: Path, wanted: GraphId) -> dict[str, Any]:
    """Return the report, if the files are whole and the graph that is wanted.

    Raises:
        PlanError: That says what is wrong with them.
    """
    graph, report = about_graph(path)
    wrong = differences(graph.to_dict(), wanted.to_dict())
    if wrong:
        raise PlanError(
            f"the graph {str(path)!r} is another's: {'; '.join(wrong)}; export it again"
        )
    files = files_of(path)
    for file in files:
        open_regular(file, PlanError).close()  # what is no file has no end
    size = _size(files)
    if size != report["bytes"]:
        raise PlanError(
            f"the graph {str(path)!r} is cut off: it has {size} bytes of {report['bytes']}; "
            "export it again"
        )
    with told_as(PlanError, f"the graph {str(path)!r} cannot be read; export it again"):
        digest = file_digest(*files)
    if digest != report["digest"]:
        raise PlanError(
            f"the graph {str(path)!r} is corrupt: its digest does not match; export it again"
        )
    _check_places(path)
    return report


def _check_places(path: Path) -> None:
    """Refuse a graph that reads weights from a file that is not digested with it."""
    with told_as(PlanError, f"the graph {str(path)!r} cannot be read; export it again"):
        import onnx

        graph = onnx.load(str(path), load_external_data=False)
        elsewhere = sorted(set(_places(graph)) - {_weights_of(path).name})
    if elsewhere:
        raise PlanError(
            f"the graph {str(path)!r} has weights in {shown(elsewhere[0])}, not in "
            f"{_weights_of(path).name!r} beside it; export it again"
        )


def _places(message: Any) -> Iterator[str]:
    """Yield the names of the files that tensors anywhere in a part of a graph lie in."""
    for entry in getattr(message, "external_data", ()):
        if entry.key == "location":
            yield entry.value
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in value if isinstance(value, Sequence) else (value,):
                yield from _places(inner)


def _size(files: tuple[Path, ...]) -> int:
    return sum(file.stat().st_size for file in files)
