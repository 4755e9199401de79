"""Show a quality run: as text, as files beside its pictures, as a page of the documentation."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill

from dragnoise.engine.system.files import write_whole

from ..report.record import RESULTS, keep, to_csv
from .docs import COLUMNS, PARETO, ROWS, SHEET, docs_page
from .document import Document, contestants, drags
from .origin import notice
from .packed import packed, unpacked
from .page import PICTURES, PLOT, page
from .table import AGAINST, aligned, drags_cells, markdown, means_cells, sections
from .verdict import verdicts
from .within import GENERATED, generated

__all__ = ["docs_page", "show_table", "write_all", "write_docs"]

_DOCS = Path(__file__).parents[2] / "docs"
_SHEET_BYTES = 300_000
_COLUMNS = 100


def show_table(document: Document, against: Sequence[str] = AGAINST) -> str:
    """Return all tables and what they say, as text.

    Args:
        document: The run.
        against: Whom all others are compared with.
    """
    tables = [
        f"{section.title}. {section.about}\n\n{aligned(section.cells)}"
        for section in sections(document, against)
    ]
    return "\n".join([*tables, *(f"{fill(text, _COLUMNS)}\n" for text in _words(document))])


def _words(document: Document) -> list[str]:
    return [*verdicts(document), *notice(document)]


def write_all(document: Document, folder: Path, against: Sequence[str] = AGAINST) -> list[Path]:
    """Write tables, plots, a sheet, a page to open in a browser and the record; return the files.

    Args:
        document: The run.
        folder: Its pictures are in `folder/pictures`.
        against: Whom all others are compared with.
    """
    return list(_written(document, folder, against))


def _written(document: Document, folder: Path, against: Sequence[str]) -> Iterator[Path]:
    yield _text(folder / "record.json", json.dumps(document) + "\n")
    yield _text(folder / "table.csv", to_csv(means_cells(document)))
    yield _text(folder / "drags.csv", to_csv(drags_cells(document)))
    yield _text(folder / "table.md", _markdown(document, against))
    yield from _pictures(document, folder)
    if own := generated(document):
        yield _text(folder / GENERATED / "drags.csv", to_csv(drags_cells(own)))
        yield _sheet(own, folder / GENERATED, last="drawn goal")
    yield _text(folder / "index.html", page(document, against))


def _pictures(document: Document, folder: Path) -> Iterator[Path]:
    """Write the plot, and the sheet with everybody's picture of one drag a kind."""
    if drags(document):
        from .pareto import draw_pareto

        yield draw_pareto(document, folder / PLOT)
        yield _sheet(document, folder)


def _sheet(document: Document, folder: Path, last: str = "truth") -> Path:
    from .sheet import draw_sheet, one_of_each

    names = one_of_each(document)
    shown = [name for name in contestants(document) if name != "nothing"]
    pictures = folder / PICTURES
    return draw_sheet(document, pictures, folder / "sheet.png", names, shown, last=last)


def _markdown(document: Document, against: Sequence[str]) -> str:
    words = "\n\n".join(_words(document))
    tables = "\n".join(
        f"## {section.title}\n\n{section.about}\n\n{markdown(section.cells)}"
        for section in sections(document, against, mark="**")
    )
    return f"# Quality of edits\n\n{words}\n\n{tables}"


def write_docs(
    document: Document, folder: Path, docs: Path = _DOCS, results: Path = RESULTS
) -> list[Path]:
    """Keep the record of a run, and write what the documentation shows of it; return the files.

    Args:
        document: The run.
        folder: Its pictures are in `folder/pictures`.
        docs: The documentation's folder.
        results: The folder of all records.
    """
    from ..report.machine import slug_of
    from ..report.readme import refresh
    from .pareto import draw_pareto
    from .sheet import draw_sheet, one_of_each

    record = packed(document)
    kept = keep(record, slug_of(document["machine"]), results, indent=None)
    shown = [name for name in COLUMNS if name in contestants(document)]
    names = one_of_each(document, ROWS)
    pictures = [
        draw_pareto(unpacked(record), docs / PARETO),
        draw_sheet(
            document, folder / PICTURES, docs / SHEET, names, shown, at_most_bytes=_SHEET_BYTES
        ),
    ]
    pages = [docs / "quality.md", docs / "benchmarks.md"]
    refresh(pages, results)
    return [kept, *pictures, *pages]


def _text(target: Path, text: str) -> Path:
    return write_whole(target, lambda path: path.write_text(text, encoding="utf-8"))
