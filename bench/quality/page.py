"""Write a run as one page that needs no server: tables, a sorted list, pictures to flip through.

The page is one file. It shows the pictures that lie beside it, and asks for nothing from elsewhere.
All text is escaped here, or set as text by its script.
"""

import html
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..jobs.run import FAILED
from .document import SCORES, Document, contestants, drags, group_of, kinds, values
from .origin import origin
from .table import AGAINST, Cells, Section, sections
from .verdict import verdicts
from .within import GENERATED

__all__ = ["PICTURES", "PLOT", "page"]

PLOT = "pareto.png"
PICTURES = "pictures"

_PLOTTED = f'<img class="plot" src="{PLOT}" alt="Distance against work and against seconds">\n'
_HERE = Path(__file__).parent
_NOT_SHOWN = ("machine", "drags", "contestants", "settings", "bench", "commits", GENERATED)


def page(document: Document, against: Sequence[str] = AGAINST) -> str:
    """Return the page as HTML; beside it lie PLOT, and a folder of each drag in PICTURES.

    Args:
        document: The run.
        against: Whom all others are compared with.
    """
    template = (_HERE / "page.html").read_text(encoding="utf-8")
    parts = {
        "title": _escaped(_title(document)),
        "style": (_HERE / "page.css").read_text(encoding="utf-8"),
        "about": _about(document),
        "verdicts": "".join(f"<p>{_escaped(text)}</p>\n" for text in verdicts(document)),
        "tables": "".join(_section(section) for section in sections(document, against)),
        "plot": _PLOTTED * bool(drags(document)),
        "data": _json(_data(document)),
        "script": (_HERE / "page.js").read_text(encoding="utf-8"),
    }
    return "".join(_filled(template, parts))


def _filled(template: str, parts: dict[str, str]) -> Iterator[str]:
    """Yield the template's pieces, "<!--name-->" replaced; what is put in is not looked through."""
    for piece in template.split("<!--"):
        name, mark, rest = piece.partition("-->")
        if mark and name in parts:
            yield parts[name]
            yield rest
        else:
            yield piece


def _escaped(text: object) -> str:
    return html.escape(str(text), quote=True)


def _title(document: Document) -> str:
    return f"Quality of edits: {document.get('model', 'a model')}"


def _about(document: Document) -> str:
    """Return what was asked and where, as a list of terms."""
    terms = {name: value for name, value in document.items() if name not in _NOT_SHOWN}
    terms["drags"] = f"{len(drags(document))}, {len(kinds(document))} kinds"
    machine = document.get("machine", {})
    terms |= {name: machine[name] for name in ("date", "cpu") if name in machine}
    if "commit" in machine:
        terms["code"] = origin(document)
    if gpu := machine.get("gpu", {}).get("name"):
        terms["gpu"] = gpu
    items = "".join(
        f"<div><dt>{_escaped(name)}</dt><dd>{_escaped(value)}</dd></div>"
        for name, value in terms.items()
        if value is not None
    )
    names = "".join(
        f"<div><dt>{_escaped(name)}</dt>"
        f"<dd>{_escaped(document['contestants'].get(name, ''))}</dd></div>"
        for name in contestants(document)
    )
    return f'<dl class="terms">{items}</dl>\n<dl class="names">{names}</dl>'


def _section(section: Section) -> str:
    return (
        f"<details><summary>{_escaped(section.title)}</summary>\n"
        f"<p>{_escaped(section.about)}</p>\n{_table(section.cells)}</details>\n"
    )


def _table(cells: Cells) -> str:
    """Return a table; what stands between two stars is marked."""
    header = "".join(f'<th scope="col">{_escaped(cell)}</th>' for cell in cells[0])
    rows = "".join(
        f'<tr><th scope="row">{_escaped(row[0])}</th>{"".join(map(_cell, row[1:]))}</tr>\n'
        for row in cells[1:]
    )
    return (
        f'<div class="wide"><table><thead><tr>{header}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>\n"
    )


def _cell(text: str) -> str:
    if len(text) > 2 and text.startswith("*") and text.endswith("*"):
        return f"<td><strong>{_escaped(text[1:-1])}</strong></td>"
    return f"<td>{_escaped(text)}</td>"


def _data(document: Document) -> dict[str, Any]:
    """Return what the script shows: a list of numbers a result, in the order of the scores."""
    names = contestants(document)
    found = {(name, score): values(document, name, score) for name in names for score in SCORES}
    return {
        "pictures": PICTURES,
        "scores": [
            {"name": score.name, "title": score.title, "digits": score.digits} for score in SCORES
        ],
        "contestants": [{"name": name, "group": group_of(name)} for name in names],
        "kinds": kinds(document),
        "drags": [
            {
                "name": drag_name,
                "kind": drag["kind"],
                "prompt": drag["prompt"],
                "handles": drag["handles"],
                "targets": drag["targets"],
                "results": {
                    name: [found[name, score].get(drag_name) for score in SCORES]
                    for name, own in drag["scores"].items()
                    if FAILED not in own
                },
            }
            for drag_name, drag in drags(document).items()
        ],
    }


def _json(data: object) -> str:
    """Return JSON that nothing in it can end: it stands inside of a script element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
