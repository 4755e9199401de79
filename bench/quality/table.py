"""Sum up a quality run as tables, a header first: by contestant, by kind, in pairs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from ..fidelity.statistics import Interval, Paired, interval, paired
from .document import (
    CONSEQUENCE,
    LEFT,
    SCORES,
    Document,
    Score,
    contestants,
    drags,
    editors,
    failures,
    kinds,
    score_of,
    values,
)
from .within import generated

__all__ = [
    "AGAINST",
    "LEAST_DRAGS",
    "Cells",
    "Section",
    "aligned",
    "drags_cells",
    "is_noise",
    "kinds_cells",
    "markdown",
    "mean_cell",
    "means_cells",
    "pairs_cells",
    "sections",
    "summary_cells",
    "winners",
]

Cells: TypeAlias = Sequence[Sequence[str]]

AGAINST = ("dragnoise", "warp")
"""Whom all others are compared with, where they took part."""

LEAST_DRAGS = 5
"""Fewer drags show no difference: signs agree by chance."""

_PARTS: Mapping[str, Sequence[str]] = {
    "Where it went": (
        "left",
        "distance_px",
        "template_px",
        "completion",
        "completion_error",
        "consequence",
    ),
    "The picture": (
        "gain_db",
        "inside_db",
        "inside_ssim",
        "uncovered_db",
        "outside_db",
        "outside_source_db",
        "sharpness",
    ),
    "What it cost": ("iterations", "reached", "tflop", "seconds"),
}
_OF_GENERATED = (*_PARTS["Where it went"], "outside_source_db", *_PARTS["What it cost"])
_COMPARED = ("left", "completion_error", "consequence", "gain_db", "sharpness")


class Section(NamedTuple):
    """A table under its heading.

    Attributes:
        title: Of the table.
        about: What it shows, a sentence or two.
        cells: A header first.
    """

    title: str
    about: str
    cells: Cells


def sections(
    document: Document, against: Sequence[str] = AGAINST, mark: str = "*"
) -> list[Section]:
    """Return all tables of a run, those without a number left out.

    Args:
        document: The run.
        against: Whom all others are compared with.
        mark: Stands on both sides of the best of each kind.
    """
    found = [
        Section(
            title,
            "Means over drags with 95 % bootstrap intervals.",
            summary_cells(document, [score_of(name) for name in names]),
        )
        for title, names in _PARTS.items()
    ]
    about = "The share of the way that is left; the nearest warp or method of each kind is marked."
    found.append(Section("Way left by kind", about, kinds_cells(document, LEFT, mark)))
    about = "The share of the true change away from what is dragged; the best is marked."
    found.append(Section("Consequence by kind", about, kinds_cells(document, CONSEQUENCE, mark)))
    about = (
        "Everybody's scores less those of {} on the same drags, with 95 % bootstrap intervals; "
        f"noise: 0 is within, or there are fewer than {LEAST_DRAGS} drags."
    )
    present = contestants(document)
    found += [
        Section(f"Compared with {name}", about.format(name), pairs_cells(document, name))
        for name in dict.fromkeys(against)
        if name in present
    ]
    if own := generated(document):
        found.append(_of_generated(own))
    if lost := [*failures(document), *(failures(own) if own else ())]:
        found.append(Section("Failed", "", [["job", "why"], *lost]))
    return [section for section in found if _says_something(section.cells)]


def _of_generated(own: Document) -> Section:
    """Return the table of the drags on a generator's pictures."""
    count = len(drags(own))
    about = (
        f"These are other pictures than those above, {own['size']}, made by the generator "
        f"{own['generator'][:8]}: no row here can be compared with a row there. Drags: {count}, of "
        f"the kinds {', '.join(kinds(own))}; lot {own['lot']}. Nobody knows their true results, so "
        "that only places are judged: a thing stands where it stands in the drawn scene that looks "
        "most like the picture. warp cuts it out along that scene. Means over drags with 95 % "
        "bootstrap intervals."
    )
    cells = summary_cells(own, [score_of(name) for name in _OF_GENERATED])
    return Section("DragGAN, on its own generator's pictures", about, cells)


def _says_something(cells: Cells) -> bool:
    return len(cells) > 1 and len(cells[0]) > 1


def summary_cells(document: Document, scores: Sequence[Score] = SCORES) -> list[list[str]]:
    """Format a row a contestant: "mean [low, high]" of each score that anybody has."""
    means = {
        name: {score: _mean(document, name, score) for score in scores}
        for name in contestants(document)
    }
    shown = [score for score in scores if any(row[score] for row in means.values())]
    header = ["contestant", *(score.title for score in shown)]
    return [
        header,
        *([name, *(_shown(row[score], score) for score in shown)] for name, row in means.items()),
    ]


def mean_cell(document: Document, name: str, score: Score) -> str:
    """Format a contestant's "mean [low, high]" of a score."""
    return _shown(_mean(document, name, score), score)


def kinds_cells(document: Document, score: Score, mark: str = "*") -> list[list[str]]:
    """Format a row a kind: everybody's mean, the best of warps and methods marked.

    Args:
        document: The run.
        score: Of which means are shown.
        mark: Stands on both sides of the best.
    """
    header = ["kind", "drags", *contestants(document)]
    rows = [header]
    for kind in kinds(document):
        means = {name: _mean(document, name, score, kind) for name in contestants(document)}
        if any(means.values()):
            best = winners(document, score, kind)
            cells = [_plain(mean, score) for mean in means.values()]
            marked = [
                f"{mark}{cell}{mark}" if name in best else cell
                for name, cell in zip(means, cells, strict=True)
            ]
            rows.append([kind, str(len(drags(document, kind))), *marked])
    return rows if len(rows) > 1 else []


def winners(document: Document, score: Score, kind: str | None = None) -> list[str]:
    """Return who of warps and methods has the best mean of a score; several if they are equal."""
    means = {
        name: mean.mean * score.better
        for name in editors(document)
        if (mean := _mean(document, name, score, kind))
    }
    return [name for name, mean in means.items() if mean == max(means.values())]


def pairs_cells(document: Document, against: str) -> list[list[str]]:
    """Format a row a contestant: its scores less those of `against` on the same drags."""
    compared = [score_of(name) for name in _COMPARED]
    rows = [["contestant", "drags", *(score.title for score in compared)]]
    for name in contestants(document):
        if name != against:
            pairs = [_pair(document, name, against, score) for score in compared]
            count = max((pair.difference.count for pair in pairs if pair), default=0)
            cells = [_difference(*pair) for pair in zip(pairs, compared, strict=True)]
            rows.append([name, str(count), *cells])
    return rows


def is_noise(pair: Paired) -> bool:
    """Tell whether a comparison shows no difference."""
    return pair.is_noise or pair.difference.count < LEAST_DRAGS


def _pair(document: Document, first: str, second: str, score: Score) -> Paired | None:
    """Compare two on the drags that both have; None if there are none."""
    of_first = values(document, first, score)
    of_second = values(document, second, score)
    return paired(of_first, of_second) if of_first.keys() & of_second.keys() else None


def _difference(pair: Paired | None, score: Score) -> str:
    if pair is None:
        return ""
    mean, low, high = (
        f"{value:+.{score.digits}f}"
        for value in (pair.difference.mean, pair.difference.low, pair.difference.high)
    )
    return f"{mean} [{low}, {high}]{' noise' * is_noise(pair)}"


def means_cells(document: Document) -> list[list[str]]:
    """Return every mean with its interval in a row of its own, over all kinds and of each."""
    header = ["kind", "contestant", "score", "mean", "low", "high", "drags"]
    return [header, *_means(document)]


def _means(document: Document) -> Iterator[list[str]]:
    for kind in (None, *kinds(document)):
        for name in contestants(document):
            for score in SCORES:
                if mean := _mean(document, name, score, kind):
                    numbers = (mean.mean, mean.low, mean.high, mean.count)
                    yield [kind or "all", name, score.name, *map(str, numbers)]


def drags_cells(document: Document) -> list[list[str]]:
    """Return every result in a row of its own, with full digits."""
    found = {
        (name, score): values(document, name, score)
        for name in contestants(document)
        for score in SCORES
    }
    rows = [["drag", "kind", "contestant", *(score.name for score in SCORES)]]
    for drag_name, drag in drags(document).items():
        for name in drag["scores"]:
            numbers = [found[name, score].get(drag_name, "") for score in SCORES]
            rows.append([drag_name, drag["kind"], name, *map(str, numbers)])
    return rows


def _mean(
    document: Document, contestant: str, score: Score, kind: str | None = None
) -> Interval | None:
    """Return a contestant's mean; None if it has no value."""
    found = values(document, contestant, score, kind)
    return interval(list(found.values())) if found else None


def _shown(mean: Interval | None, score: Score) -> str:
    """Format a mean with its interval, unless that is too narrow to be seen."""
    if mean is None:
        return ""
    middle, low, high = (f"{value:.{score.digits}f}" for value in (mean.mean, mean.low, mean.high))
    return middle if low == high else f"{middle} [{low}, {high}]"


def _plain(mean: Interval | None, score: Score) -> str:
    return "" if mean is None else f"{mean.mean:.{score.digits}f}"


def aligned(cells: Cells) -> str:
    """Return a table in columns of text: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def markdown(cells: Cells) -> str:
    """Return a table in Markdown, numbers to the right."""
    header, *rows = cells
    rule = ["---", *("---:" for _ in header[1:])]
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in (header, rule, *rows))
    return "".join(f"| {' | '.join(row)} |\n" for row in escaped)
