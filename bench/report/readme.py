"""Write the figures of README and docs from the kept records: no number is typed by hand.

A page has a place for a text between `<!-- NAME:begin -->` and `<!-- NAME:end -->`:

    summary      one table: the published code, our first edit, our next drag (README.md)
    session      first and later drags of every measured model, a sentence each (docs/sessions.md)
    bench        every record's table with its conditions (docs/benchmarks.md)
    replacement  what is kept of a picture whose blocks are held (docs/replacement.md)
    quality      who comes nearest on the drags whose results are known (docs/quality.md)
    presets      what each preset costs and how near it comes (README.md)
    live         how a picture follows a pointer (docs/live.md)
"""

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dragnoise.engine.system.files import write_whole

from ..measure.exports import edit_table, exports_table
from ..measure.personalise import fidelity_table, training_table
from ..measure.precision import precision_table
from ..measure.sessions import mouse_table
from ..measure.stages import stages_table
from ..quality.docs import docs_page, totals_cells
from ..quality.packed import unpacked
from ..replacement.table import summary_table
from . import service
from .live import LIVE_HEADER, live_cells, live_row, presets_cells
from .record import RESULTS, edits_table, kernels_table, newest, number

__all__ = ["PAGES", "ROOT", "refresh", "rendered"]

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "docs/sessions.md",
    ROOT / "docs/benchmarks.md",
    ROOT / "docs/replacement.md",
    ROOT / "docs/quality.md",
    ROOT / "docs/live.md",
    ROOT / "docs/service.md",
)

Record = Mapping[str, Any]
Cells = Sequence[Sequence[str]]


def refresh(pages: Sequence[Path] = PAGES, folder: Path = RESULTS, *, check: bool = False) -> bool:
    """Write what the records in `folder` say into every page, unless `check`.

    Returns:
        Whether all pages said so already.

    Raises:
        ValueError: A page has no markers to write between.
    """
    stale = [page for page in pages if not _refresh(page, folder, check)]
    return not stale


def rendered(folder: Path = RESULTS) -> str:
    """Return the table of every newest record, with the conditions it was taken under."""
    parts = [_part(slug, record) for slug, record in newest(folder)]
    return "\n".join(parts) if parts else "Nothing has been measured yet.\n"


def _refresh(page: Path, folder: Path, check: bool) -> bool:
    """Return whether one page says what the records say."""
    text = page.read_text(encoding="utf-8")
    names = [name for name in _TEXTS if f"<!-- {name}:begin -->" in text]
    if not names:
        raise ValueError(f"{page.name} has no markers to write between, of {', '.join(_TEXTS)}")
    wanted = text
    for name in names:
        wanted = _between(page.name, wanted, name, _TEXTS[name](folder))
    if wanted != text and not check:
        write_whole(page, lambda part: part.write_text(wanted, encoding="utf-8"))
    return wanted == text


def _between(page: str, text: str, name: str, wanted: str) -> str:
    """Return `text` with `wanted` between the markers of that name."""
    begin = f"<!-- {name}:begin -->"
    end = f"<!-- {name}:end -->"
    before, _, rest = text.partition(begin)
    _, marker, after = rest.partition(end)
    if not marker:
        raise ValueError(f"{page} has no {end} after {begin}")
    return f"{before}{begin}\n{wanted}{end}{after}"


def _of_kind(folder: Path, bench: str) -> list[tuple[str, Record]]:
    """Return the newest records of one bench, by device."""
    return [(slug, record) for slug, record in newest(folder) if record["bench"] == bench]


def _summary(folder: Path) -> str:
    """Return one table: the published code, our first edit, our next drag, by model."""
    rows = [
        *_measured_sessions(folder, "embedded"),
        *_computed_sessions(folder, "sd15"),
    ]
    header = ["model", "published", "first edit", "next drag", "conditions"]
    return _markdown([header, *rows]) + "\n" if rows else "Nothing has been measured yet.\n"


def _measured_sessions(folder: Path, model: str) -> Iterator[list[str]]:
    """Yield the rows of a model whose sessions were measured."""
    for slug, record in _of_kind(folder, "sessions"):
        if record["model"] == model:
            took = {row["row"]: row["total_ms"]["median"] / 1e3 for row in record["rows"]}
            yield _summary_row(
                slug, record, took["baseline"], took["first"], took["again"], "measured whole"
            )


def _how(record: Mapping[str, Any]) -> str:
    """Return how whole edits were measured, and the precision of the published execution."""
    whole = "computed from a few iterations and steps" if record["computed"] else "measured whole"
    on_gpu = record["machine"]["device"].startswith("cuda")
    precision = "float32, its iterations under bfloat16 autocast" if on_gpu else "float32"
    return f"{whole}; published in {precision}"


def _computed_sessions(folder: Path, model: str) -> Iterator[list[str]]:
    """Yield the rows of a model with measured edits: a next drag is what follows inversion."""
    for slug, record in _of_kind(folder, "edits"):
        if record["model"] == model:
            first = record["rows"][0]
            last = record["rows"][-1]
            stages = last["stages_ms"]
            again = sum(stages[name]["median"] for name in ("drag", "propagate", "decode"))
            how = f"random weights, {_how(record)}"
            yield _summary_row(
                slug,
                record,
                first["total_ms"]["median"] / 1e3,
                last["total_ms"]["median"] / 1e3,
                again / 1e3,
                how,
            )


def _summary_row(
    slug: str, record: Record, published: float, first: float, again: float, how: str
) -> list[str]:
    """Return a row of the summary. published, first, again: seconds."""
    iterations = record["settings"]["iterations"]
    about = f"{record['size']}, {record['dtype']}, {iterations} iterations; {how}"
    return [
        record["model"],
        f"{number(published)} s",
        f"{number(first)} s ({published / first:.1f}x)",
        f"{number(again)} s ({published / again:.1f}x)",
        f"{about}; {_machine(slug, record)}",
    ]


def _machine(slug: str, record: Record) -> str:
    """Return the device, threads, torch, date and commit of a record."""
    about = record["machine"]
    torch = about["versions"]["torch"]
    day = about["date"][:10]
    threads = about["threads"]
    return f"{slug}, {threads} threads, torch {torch}, {day}, commit {about['commit']}"


def _session_times(folder: Path) -> str:
    """Return a list: first and later drags of every model whose sessions were measured."""
    lines = [_wrapped(_first_and_later(record), "- ") for _, record in _of_kind(folder, "sessions")]
    return "\n" + "\n".join(lines) + "\n\n"


def _first_and_later(record: Record) -> str:
    """Return one sentence about the first and later drags of a record."""
    took = {row["row"]: number(row["total_ms"]["median"] / 1e3) for row in record["rows"]}
    threads = record["machine"]["threads"]
    iterations = record["settings"]["iterations"]
    about = f"{record['model']}, {record['size']}, {iterations} iterations, {threads} CPU threads"
    times = [
        f"first edit {took['first']} s",
        f"next drag {took['again']} s",
        f"drag on the result {took['result']} s",
        f"another process on the same picture {took['stored']} s",
    ]
    moves = [move["went_ms"]["median"] / 1e3 for move in record.get("mouse", ())]
    if moves:
        span = f"{number(min(moves))} to {number(max(moves))} s"
        times.append(f"a drag that goes on as its target moves {span}")
    return f"{about}: {', '.join(times)}; the published code {took['baseline']} s every time."


def _replacement(folder: Path) -> str:
    """Return what came of held blocks, a table a record."""
    parts = [
        f"\n{_wrapped(_pictures(record))}\n\n{_markdown(summary_table(record))}\n"
        for _, record in _of_kind(folder, "replacement")
    ]
    return "".join(parts) if parts else "Nothing has been measured yet.\n"


def _quality(folder: Path) -> str:
    """Return what the newest run of the quality bench shows."""
    record = _newest_of_all(folder, "quality")
    return "Nothing has been measured yet.\n" if record is None else docs_page(unpacked(record))


def _newest_of_all(folder: Path, bench: str) -> Record | None:
    """Return the newest record of a bench, on whatever device."""
    records = [record for _, record in _of_kind(folder, bench)]
    return max(records, key=lambda record: str(record["machine"]["date"]), default=None)


def _presets(folder: Path) -> str:
    """Return one table: what each preset costs, and how near it comes."""
    live = [record for _, record in _of_kind(folder, "live") if record["model"] == "embedded"]
    quality = _newest_of_all(folder, "quality")
    if not live or quality is None:
        return "Nothing has been measured yet.\n"
    newest_live = max(live, key=lambda record: str(record["machine"]["date"]))
    return _markdown(presets_cells(unpacked(quality), newest_live)) + "\n"


def _live(folder: Path) -> str:
    """Return how pictures follow a pointer, a row a record."""
    records = _of_kind(folder, "live")
    rows = [[*live_row(record), _machine(slug, record)] for slug, record in records]
    header = [*LIVE_HEADER, "conditions"]
    return f"\n{_markdown([header, *rows])}\n\n" if rows else "Nothing has been measured yet.\n"


def _service(folder: Path) -> str:
    """Return what the newest record of a service says."""
    records = _of_kind(folder, "service")
    if not records:
        return "Nothing has been measured yet.\n"
    slug, record = records[-1]
    tables = [_markdown(table(record)) for table in service.CELLS]
    return "\n" + "\n\n".join([*tables, _wrapped(f"{_machine(slug, record)}.")]) + "\n\n"


def _pictures(record: Record) -> str:
    """Return one sentence: what a record's pictures are, and how far from each other."""
    pictures = record["pictures"]
    names = ", ".join(picture["name"] for picture in pictures)
    away = sum(picture["rebuilt"]["pixels"] for picture in pictures) / len(pictures)
    apart = sum(picture["apart"]["pixels"] for picture in pictures) / len(pictures)
    return (
        f"{record['model']}, {record['steps']} steps, mean of {names}: with nothing held they are "
        f"rebuilt to {number(away)} levels of 255; the other picture's reconstruction is "
        f"{number(apart)} levels away."
    )


def _part(slug: str, record: Record) -> str:
    """Return one record's section: a heading, its conditions, its tables."""
    tables = [table(record) for table in _TABLES[record["bench"]]]
    lines = "\n\n".join(_markdown(table) for table in tables if table)
    heading = f"### {record['bench']}: {', '.join(_about(record))}"
    conditions = _wrapped(f"{_settings(record)}{_machine(slug, record)}.")
    return "\n".join([heading, "", conditions, "", lines, ""])


def _wrapped(text: str, mark: str = "") -> str:
    """Return a paragraph, or an item after its mark, in lines of at most 100 columns."""
    indent = " " * len(mark)
    return textwrap.fill(
        text, 100, initial_indent=mark, subsequent_indent=indent, break_on_hyphens=False
    )


def _markdown(table: Cells) -> str:
    """Return a table in Markdown, the header first."""
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]])


def _mouse(record: Record) -> Cells:
    return mouse_table(record["mouse"]) if "mouse" in record else ()


def _training(record: Record) -> Cells:
    return training_table(record["training"])


def _fidelity(record: Record) -> Cells:
    return fidelity_table(record["fidelity"]) if "fidelity" in record else ()


_TABLES: Mapping[str, Sequence[Callable[[Record], Cells]]] = {
    "edits": (edits_table,),
    "kernels": (kernels_table,),
    "stages": (stages_table,),
    "sessions": (edits_table, _mouse),
    "exports": (exports_table, edit_table),
    "personalise": (_training, _fidelity),
    "precision": (precision_table,),
    "replacement": (summary_table,),
    "quality": (totals_cells,),
    "live": (live_cells,),
    "service": service.CELLS,
}

_TEXTS: Mapping[str, Callable[[Path], str]] = {
    "summary": _summary,
    "session": _session_times,
    "bench": rendered,
    "replacement": _replacement,
    "quality": _quality,
    "presets": _presets,
    "live": _live,
    "service": _service,
}


def _about(record: Record) -> list[str]:
    """Return the model, size and variant, where a record has any, and the precision."""
    if record["bench"] == "kernels":
        return [record["dtype"]]
    return [record[name] for name in ("model", "size", "variant", "dtype") if name in record]


def _settings(record: Record) -> str:
    """Return the settings of a record's edits, ready to be followed by the machine."""
    settings = record.get("settings")
    if not settings or record["bench"] in ("quality", "live"):  # which have some for each method
        return ""
    mask = "with mask" if record["mask"] else "without mask"
    schedule = f"{settings['steps']} steps at strength {settings['strength']}"
    text = f"{settings['iterations']} iterations, {schedule}, {mask}"
    if record["computed"]:
        ran = record["ran"]
        steps = f"{ran['iterations']} iterations and {ran['active_steps']} steps that were run"
        text += f" (whole edits computed from {steps})"
    return f"{text}; "
