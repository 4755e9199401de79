"""Write what docs/quality.md says of a run: words, tables, a plot, a sheet. No number by hand."""

import textwrap

from .document import LEFT, Document, contestants, drags, kinds, score_of
from .origin import origin
from .packed import unpacked
from .table import markdown, sections, summary_cells
from .verdict import verdicts

__all__ = ["COLUMNS", "PARETO", "ROWS", "SHEET", "docs_page", "totals_cells"]

PARETO = "images/quality-pareto.png"
SHEET = "images/quality-sheet.png"
"""Where the pictures lie, from the folder of the documentation."""

ROWS = (
    "boat",
    "house",
    "long",
    "peak",
    "stretch",
    "balloon-turn",
    "sun-scale",
    "behind",
    "opposite",
    "many",
    "glitter",
    "sky",
    "shadow",
)
"""The kinds in the sheet."""

COLUMNS = (
    "warp",
    "elastic-warp",
    "warp-inpaint",
    "dragnoise",
    "dragdiffusion",
    "freedrag",
    "gooddrag",
    "fast",
    "live",
)
"""The contestants in the sheet, as far as they took part."""

_TOTALS = ("distance_px", "consequence", "gain_db", "sharpness", "tflop", "seconds")


def docs_page(document: Document) -> str:
    """Return Markdown: what the run was, who wins where, all tables, the plot and the sheet."""
    if not drags(document):
        return "Nothing has been measured yet.\n"
    words = "\n\n".join(map(_wrapped, (_conditions(document), *verdicts(document))))
    tables = "\n".join(
        f"### {section.title}\n\n{_paragraph(section.about)}{markdown(section.cells)}"
        for section in sections(document, mark="**")
    )
    names = ", ".join(f"{name} ({_summary(document, name)})" for name in contestants(document))
    return (
        f"\n{words}\n\n"
        f"![Distance against counted work and against seconds]({PARETO})\n\n"
        f"{_wrapped(f'Who took part: {names}.')}\n\n"
        f"{tables}\n"
        "### Pictures\n\n"
        "The drag with the lowest number of each kind; nobody has picked them.\n\n"
        f"![Sources, edits and truths]({SHEET})\n\n"
    )


def totals_cells(record: Document) -> list[list[str]]:
    """Format a few means over all drags of a record, a header first."""
    return summary_cells(unpacked(record), [LEFT, *map(score_of, _TOTALS)])


def _conditions(document: Document) -> str:
    """Return what the numbers depend on, in a sentence."""
    machine = document["machine"]
    device = machine["cpu"] if machine["device"] == "cpu" else machine["gpu"].get("name")
    count = len(drags(document))
    lost = len(document["drags"]) - count
    parts = [
        f"{document['model']}, {document['dtype']}, {document['steps']} steps",
        f"{count} drags of {len(kinds(document))} kinds, lot {document['lot']}",
        f"{lost} more failed" * bool(lost),
        f"{device}, {machine['threads']} threads, {machine['date'][:10]}",
        origin(document),
    ]
    return f"{'; '.join(filter(None, parts))}."


def _summary(document: Document, name: str) -> str:
    return str(document["contestants"].get(name, "not described"))


def _paragraph(text: str) -> str:
    return f"{_wrapped(text)}\n\n" if text else ""


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_on_hyphens=False, break_long_words=False)
