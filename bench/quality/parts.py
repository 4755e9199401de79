"""The two parts of the table: drags of the drawn world, and drags on a generator's own pictures.

Each has its folder with a ledger and pictures, for their results depend on different models.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..jobs import Ledger, run_jobs
from ..report.machine import commit
from ..world.kinds import KINDS
from .asked import Asked
from .contestants import BY_PRESET, CONTESTANTS, DRAGGAN, ENGINE, OF_GENERATED, Contestant, Studio
from .generated import GENERATED, TRUNCATION
from .origin import counted
from .run import by_drag, jobs_of, names_of, worker
from .within import GENERATED as GENERATED_PART

__all__ = ["compete", "found", "parts_of"]


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the table.

    Attributes:
        folder: Where it lies.
        ledger: Its results.
        kinds: Of its drags.
        contestants: Who edits them.
    """

    folder: Path
    ledger: Ledger
    kinds: Sequence[str]
    contestants: Sequence[str]


def parts_of(asked: Asked, studio: Studio, model: str) -> list[Part]:
    """Return the parts that are asked for, the drawn drags' always; their ledgers are open.

    Args:
        asked: Who edits which drags.
        studio: The editor.
        model: Its name.

    Raises:
        ConfigError: What is in a ledger's folder was made with other settings.
    """
    drawn = [kind for kind in asked.kinds if kind in KINDS]
    others = [name for name in asked.methods if name != DRAGGAN]
    ledger = Ledger(asked.folder, _about(asked, studio, model), asked.shard, commit())
    parts = [Part(asked.folder, ledger, drawn, others)]
    generated = [kind for kind in asked.kinds if kind in GENERATED]
    if DRAGGAN in asked.methods and generated:
        own = asked.folder / GENERATED_PART
        ledger = Ledger(own, _about_generated(asked, studio), asked.shard, commit())
        parts.append(Part(own, ledger, generated, list(OF_GENERATED)))
    return parts


def _about(asked: Asked, studio: Studio, model: str) -> dict[str, Any]:
    """Return what the scores depend on beside the jobs' names."""
    return {
        "model": model,
        "digest": studio.editor.model.digest,
        "size": "128x128",
        "dtype": str(studio.editor.model.dtype).removeprefix("torch."),
        "lot": asked.lot,
        "steps": studio.steps,
        "settings": {name: studio.config(name).to_dict() for name in (*ENGINE, *BY_PRESET)},
    }


def _about_generated(asked: Asked, studio: Studio) -> dict[str, Any]:
    generator = studio.editor.generator
    size = generator.architecture.size
    return {
        "generator": generator.digest,
        "size": f"{size}x{size}",
        "lot": asked.lot,
        "truncation": TRUNCATION,
        "settings": {DRAGGAN: studio.draggan.to_dict()},
    }


def compete(part: Part, asked: Asked, studio: Studio) -> None:
    """Let a part's contestants edit this shard's drags; its ledger keeps what comes of it."""
    names = asked.shard.take(names_of(asked.lot, part.kinds, asked.each))
    jobs = jobs_of(names, part.contestants)
    work = worker(studio, part.folder / "pictures")
    run_jobs(jobs, work, part.ledger, resume=asked.resume, watch=_watch)


def _watch(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def found(folder: Path) -> dict[str, Any]:
    """Return what all shards have found until now, as a document without its machine."""
    document = {"bench": "quality", **_found(folder, CONTESTANTS)}
    own = folder / GENERATED_PART
    if (own / "about.json").is_file():
        document[GENERATED_PART] = _found(own, OF_GENERATED)
    return document


def _found(folder: Path, contestants: Mapping[str, Contestant]) -> dict[str, Any]:
    ledger = Ledger.found(folder)
    summaries = {name: contestant.summary for name, contestant in contestants.items()}
    return {
        **ledger.about,
        "commits": counted(ledger.commits().values()),
        "contestants": summaries,
        "drags": by_drag(ledger.done()),
    }
