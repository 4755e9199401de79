"""Say which commits a run's results are of: a run that is resumed can have those of several.

{"commits": {"08e26f5": 2800, "unknown": 12}, "machine": {"commit": ...}}: results, and the report
"""

from collections import Counter
from collections.abc import Iterable

from .document import Document
from .within import generated

__all__ = ["UNKNOWN", "counted", "notice", "origin"]

UNKNOWN = "unknown"
"""The commit of results that tell none, as those of older runs."""


def counted(commits: Iterable[str | None]) -> dict[str, int]:
    """Count the results of each commit."""
    return dict(Counter(commit or UNKNOWN for commit in commits))


def origin(document: Document) -> str:
    """Return the commits of a run's results and of its report, in a few words."""
    found = _commits(document)
    report = document["machine"]["commit"]
    if [*found] == [report]:
        return f"commit {report}"
    if len(found) < 2:
        return f"results of commit {next(iter(found), UNKNOWN)}, report of {report}"
    counts = ", ".join(f"{commit} ({count})" for commit, count in found.items())
    return f"results of commits {counts}, report of {report}"


def notice(document: Document) -> list[str]:
    """Return a sentence if results are known to be of another commit than the report, else none."""
    found = _commits(document)
    of_report = [*found] in ([], [document["machine"]["commit"]])
    return [] if of_report else [f"Not all is of one commit: {origin(document)}."]


def _commits(document: Document) -> dict[str, int]:
    own = generated(document) or {}
    return dict(Counter(document.get("commits", {})) + Counter(own.get("commits", {})))
