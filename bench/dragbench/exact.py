"""Judge as the published script does, whose figure depends on the order of the pictures.

It seeds one stream of random numbers at its start and draws every picture's noise from it, in the
order of the categories' list and, within one, of the file system's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dragnoise.engine.errors import ConfigError
from dragnoise.engine.inputs.image import Image

from ..jobs.ledger import Ledger
from ..jobs.run import FAILED
from .asked import Asked
from .judge import EDITED, UNEDITED, Judge
from .samples import names_of, read_sample

__all__ = ["SEED", "exact_distances"]

SEED = 42
"""The published script's."""

Distances = dict[str, dict[str, list[float]]]


def exact_distances(
    asked: Asked,
    make_judge: Callable[[Asked], Judge],
    ledger: Ledger,
    watch: Callable[[str], None],
) -> Distances:
    """Return the distances of every sample's pairs, edited and not, in pixels.

    They are kept beside the results, and found again where all of them are there.

    Args:
        asked: The run.
        make_judge: Loads what judges.
        ledger: Holds the results of all samples.
        watch: Told a line before each sample.

    Raises:
        ConfigError: A sample has no edited picture.
    """
    names = names_of(asked.root, as_listed=True)
    _check_whole(names, ledger)
    kept = Ledger(asked.out / "exact", {**ledger.about, "order": names})
    done = kept.done()
    if all(name in done for name in names):
        return _distances(names, done)
    judge = make_judge(asked)
    generator = torch.Generator(judge.device).manual_seed(SEED)
    for place, name in enumerate(names, 1):
        watch(f"in the published order, {place} of {len(names)}: {name}")
        sample = read_sample(asked.root, name, asked.converted)
        pictures = [Image.of(asked.picture(name)), sample.image]
        edited, unedited = judge.distances(sample, pictures, generator)
        kept.add(name, {EDITED: edited, UNEDITED: unedited})
    return _distances(names, kept.done())


def _check_whole(names: Sequence[str], ledger: Ledger) -> None:
    """Raise ConfigError unless all samples are edited."""
    done = ledger.done()
    missing = [name for name in names if FAILED in done.get(name, {FAILED: ""})]
    if missing:
        raise ConfigError(
            f"{len(missing)} of {len(names)} samples are not edited, {missing[0]!r} the first; the "
            "published order takes them all: edit them with --resume, then ask for --exact"
        )


def _distances(names: Sequence[str], done: dict[str, dict[str, Any]]) -> Distances:
    return {name: done[name] for name in names}
