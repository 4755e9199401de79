"""Say in words who ends nearest: a method, or a plain editor's warp."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..fidelity.statistics import Interval, Paired, interval, paired
from .document import (
    CONSEQUENCE,
    LEFT,
    METHOD,
    PLAIN,
    Document,
    Score,
    contestants,
    drags,
    editors,
    kinds,
    values,
)
from .table import LEAST_DRAGS, is_noise

__all__ = ["Standing", "standing", "verdicts"]


@dataclass(frozen=True)
class Standing:
    """The best warp and the best method of a kind.

    Attributes:
        kind: Of drags; None: all.
        warp: Its name.
        method: Its name.
        warp_mean: Of the score.
        method_mean: Of the score.
        pair: The method less the warp, on the drags that both have.
    """

    kind: str | None
    warp: str
    method: str
    warp_mean: float
    method_mean: float
    pair: Paired

    @property
    def text(self) -> str:
        """Both with their means, ready to stand in a list."""
        means = f"{self.warp} {self.warp_mean:.2f}, {self.method} {self.method_mean:.2f}"
        return f"{self.kind} ({means})"


def standing(document: Document, score: Score, kind: str | None = None) -> Standing | None:
    """Return how the best warp and the best method stand; None if one of them is missing."""
    warp = _best(document, editors(document, PLAIN), score, kind)
    method = _best(document, editors(document, METHOD), score, kind)
    if warp is None or method is None:
        return None
    own = values(document, method[0], score, kind)
    other = values(document, warp[0], score, kind)
    if not own.keys() & other.keys():
        return None
    return Standing(kind, warp[0], method[0], warp[1].mean, method[1].mean, paired(own, other))


def _best(
    document: Document, names: Sequence[str], score: Score, kind: str | None
) -> tuple[str, Interval] | None:
    """Return who of `names` has the best mean, and that mean."""
    means = [
        (name, interval(list(found.values())))
        for name in names
        if (found := values(document, name, score, kind))
    ]
    return max(means, key=lambda pair: score.better * pair[1].mean, default=None)


def verdicts(document: Document) -> list[str]:
    """Return paragraphs: where warps win, where methods win, what is noise, and consequences."""
    if not drags(document):
        return ["No drag has been judged."]
    found = [stands for kind in kinds(document) if (stands := standing(document, LEFT, kind))]
    said = [_overall(document), *_by_kind(found), _consequences(document)]
    return [paragraph for paragraph in said if paragraph]


def _overall(document: Document) -> str:
    """Return who ends nearest over all drags."""
    stands = standing(document, LEFT)
    if stands is None:
        having = ("warps", "methods") if editors(document, PLAIN) else ("methods", "warps")
        return (
            f"Only {having[0]} took part, no {having[1]}: nothing can be said of who wins."
            if editors(document)
            else "Neither warps nor methods took part: nothing can be said of who wins."
        )
    count = stands.pair.difference.count
    means = (
        f"of the way {stands.warp} leaves {stands.warp_mean:.2f}, "
        f"{stands.method}, the best method, {stands.method_mean:.2f}"
    )
    if is_noise(stands.pair):
        return f"Over all {count} drags no difference between warps and methods shows: {means}."
    winner = "a method" if stands.pair.difference.mean < 0 else "a plain editor's warp"
    return f"Over all {count} drags {winner} ends nearer: {means}."


def _by_kind(found: Sequence[Standing]) -> list[str]:
    """Return where warps win, where methods win, and where neither does."""
    clear = [stands for stands in found if not is_noise(stands.pair)]
    by_warps = [stands for stands in clear if stands.pair.difference.mean > 0]
    by_methods = [stands for stands in clear if stands.pair.difference.mean < 0]
    unclear = [stands for stands in found if is_noise(stands.pair)]
    of = f"of {len(found)} kinds"
    return [
        _listed(f"A plain editor's warp wins in {len(by_warps)} {of}", by_warps),
        _listed(f"A method wins in {len(by_methods)} {of}", by_methods),
        _listed(
            f"In {len(unclear)} {of} the difference is noise, or there are fewer than "
            f"{LEAST_DRAGS} drags",
            unclear,
        ),
    ] * bool(found)


def _listed(text: str, found: Sequence[Standing]) -> str:
    names = ", ".join(stands.text for stands in found)
    return f"{text}: {names}." if names else f"{text}."


def _consequences(document: Document) -> str:
    """Return what share of the true change away from the dragged things came about."""
    best = [
        pair
        for group in (METHOD, PLAIN)
        if (pair := _best(document, editors(document, group), CONSEQUENCE, None))
    ]
    if not best:
        return ""
    shares = ", ".join(
        f"{name} {mean.mean:.2f} [{mean.low:.2f}, {mean.high:.2f}]" for name, mean in best
    )
    count = max(mean.count for _, mean in best)
    tail = ", no edit 0 by definition" if "nothing" in contestants(document) else ""
    return (
        "Consequences (shadows, reflections, glitter, the sky: what changes away from the dragged "
        f"thing), share of the true change that came about, {count} drags: {shares}{tail}."
    )
