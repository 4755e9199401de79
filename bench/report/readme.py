"""The README's figures, made from the kept records: nobody types a number."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dragnoise.engine.system.files import write_whole

from ..measure.exports import edit_table, exports_table
from ..measure.personalise import fidelity_table, training_table
from ..measure.sessions import mouse_table
from ..measure.stages import stages_table
from .record import RESULTS, edits_table, kernels_table, name_of, newest, number

__all__ = ["README", "refresh", "rendered"]

README = Path(__file__).parents[2] / "README.md"


def rendered(folder: Path = RESULTS) -> str:
    """Every record's table with the conditions it was taken under, newest of each kind."""
    parts = [_part(slug, record, folder) for slug, record in newest(folder)]
    return "\n".join(parts) if parts else "Nothing has been measured yet.\n"


def refresh(readme: Path = README, folder: Path = RESULTS, *, check: bool = False) -> bool:
    """Whether the README already says what the records say; it is rewritten if not, unless `check`. Raises ValueError where the markers are not."""
    text = readme.read_text(encoding="utf-8")
    wanted = _between(text, "bench", rendered(folder))
    if "<!-- session:begin -->" in wanted:
        wanted = _between(wanted, "session", _session_times(folder))
    if wanted != text and not check:
        write_whole(readme, lambda part: part.write_text(wanted, encoding="utf-8"))
    return wanted == text


def _between(text: str, name: str, wanted: str) -> str:
    """The text with that between its markers."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"the README has no {begin} ... {end} to write between")
    return f"{before}{begin}\n{wanted}{end}{after}"


def _session_times(folder: Path) -> str:
    """Cold and warm, of every model whose sessions were measured, in a sentence each."""
    return "".join(
        f"{_cold_and_warm(record)}\n"
        for _, record in newest(folder)
        if record["bench"] == "sessions"
    )


def _cold_and_warm(record: Mapping[str, Any]) -> str:
    took = {row["row"]: number(row["total_ms"]["median"] / 1e3) for row in record["rows"]}
    moves = [one["went_ms"]["median"] / 1e3 for one in record.get("mouse", ())]
    moved = (
        f", a drag that goes on as its target moves {number(min(moves))} to {number(max(moves))} s"
        if moves
        else ""
    )
    about = record["machine"]
    return (
        f"{record['model']}, {record['size']}, {record['settings']['iterations']} iterations, {about['threads']} CPU threads: "
        f"cold {took['first']} s, the next drag {took['again']} s, a drag on the result {took['result']} s, "
        f"another process on the same picture {took['stored']} s{moved}; "
        f"the published code {took['baseline']} s every time."
    )


def _part(slug: str, record: Mapping[str, Any], folder: Path) -> str:
    about = record["machine"]
    tables = [table(record) for table in _TABLES[record["bench"]]]
    said = [
        f"**{record['bench']}**: {', '.join(_about(record))}" + _settings(record),
        f"{slug}, {about['threads']} threads, torch {about['versions']['torch']}, {about['date'][:10]}, commit {about['commit']}",
    ]
    lines = "\n\n".join(_markdown(table) for table in tables if table)
    drawn = f"{slug}/{name_of(record)}.png"
    if (folder / drawn).exists():
        said.append(f"[plot](bench/results/{drawn})")
    return "\n".join(["; ".join(said) + ".", "", lines, "", ""])


def _markdown(table: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]])


_TABLES: Mapping[str, Sequence[Callable[[Mapping[str, Any]], Sequence[Sequence[str]]]]] = {
    "edits": (edits_table,),
    "kernels": (kernels_table,),
    "stages": (stages_table,),
    "sessions": (
        edits_table,
        lambda record: mouse_table(record["mouse"]) if "mouse" in record else (),
    ),
    "exports": (exports_table, edit_table),
    "personalise": (
        lambda record: training_table(record["training"]),
        lambda record: fidelity_table(record["fidelity"]) if "fidelity" in record else (),
    ),
}


def _about(record: Mapping[str, Any]) -> list[str]:
    named = () if record["bench"] == "kernels" else (record["model"], record["size"])
    return [*named, record["dtype"]]


def _settings(record: Mapping[str, Any]) -> str:
    settings = record.get("settings")
    if not settings:
        return ""
    mask = "with mask" if record["mask"] else "without mask"
    whole = f", {settings['iterations']} iterations, {settings['steps']} steps at strength {settings['strength']}, {mask}"
    ran = record["ran"]
    return whole + (
        f" (whole edits computed from {ran['iterations']} iterations and {ran['active_steps']} steps that were run)"
        if record["computed"]
        else ""
    )
