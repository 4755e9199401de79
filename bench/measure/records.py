"""Measure what a command names, and make a record of it."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from dragnoise.engine import Image, PersonaliseConfig
from dragnoise.engine.errors import ConfigError, DeviceError
from dragnoise.engine.system.device import DTYPES, choose_dtype

from ..report.record import edits_table, kernels_table, show
from . import exports, kernels, personalise, precision, sessions, stages
from .asked import about_of, case_of, device_of, model_of, size_of, watch
from .rows import rows_for
from .waterfall import waterfall

__all__ = ["MEASUREMENTS", "Record"]


class Record(NamedTuple):
    """The outcome of a measurement.

    Attributes:
        document: the record, ready for JSON.
        cells: its table, the first row are the columns' names.
    """

    document: dict[str, Any]
    cells: Sequence[Sequence[str]]


Measurement: TypeAlias = Callable[[Namespace], Record]


def _kernels(parsed: Namespace) -> Record:
    about = about_of(parsed, "kernels")
    device = device_of(parsed)
    dtype = choose_dtype(parsed.dtype, device)
    cases = list(kernels.measure(device, dtype, max(parsed.rounds, 5), watch=watch))
    document = about | {"model": "kernels", "size": "", "cases": cases}
    return Record(document, kernels_table(document))


def _stages(parsed: Namespace) -> Record:
    last = parsed.rows or rows_for(device_of(parsed))[-1].name
    edits = waterfall(parsed, "stages", last)
    document = edits.document
    document["roofline"] = stages.shares(edits.model, edits.case, edits.measured[-1])
    return Record(document, stages.stages_table(document))


def _edits(parsed: Namespace) -> Record:
    document = waterfall(parsed, "edits", parsed.rows).document
    return Record(document, edits_table(document))


def _sessions(parsed: Namespace) -> Record:
    edits = waterfall(parsed, "sessions", sessions.session_rows(parsed.method))
    document = edits.document
    if parsed.model == "embedded":
        mouse = document["mouse"] = list(sessions.follow_a_mouse(edits.model))
        show("the target moves on by 3 pixels, 5 times", sessions.mouse_table(mouse))
    return Record(document, edits_table(document))


def _personalise(parsed: Namespace) -> Record:
    about = about_of(parsed, "personalise")
    model = model_of(parsed)
    config = PersonaliseConfig()
    height, width = size_of(parsed)
    image = Image(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))
    training = personalise.measure(model, image, config, parsed.rounds, watch=watch)
    document = about | {"training": training}
    if parsed.model == "embedded":
        sheet = None if parsed.out is None else Path(parsed.out) / "personalise.png"
        longer = config.replace(steps=200)
        fidelity = personalise.fidelity(model, longer, watch=watch, sheet=sheet)
        document["fidelity"] = fidelity
        show("what an adapter of 200 steps is good for", personalise.fidelity_table(fidelity))
    return Record(document, personalise.training_table(training))


def _exports(parsed: Namespace) -> Record:
    about = about_of(parsed, "exports")
    if parsed.dtype not in DTYPES:
        raise DeviceError(f"precision {parsed.dtype!r} is not supported; use {', '.join(DTYPES)}")
    dtype = DTYPES[parsed.dtype]
    document = about | exports.measure(
        parsed.model, size_of(parsed), device_of(parsed), dtype, parsed.rounds, watch
    )
    if cells := exports.edit_table(document):
        show("what an edit gains", cells)
    return Record(document, exports.exports_table(document))


def _precision(parsed: Namespace) -> Record:
    about = about_of(parsed, "precision")
    asked = case_of(parsed).run
    changes = {"iterations": asked.iterations, "strength": asked.strength}
    names = tuple(precision.DRAGS if parsed.rows is None else parsed.rows.split(","))
    if unknown := sorted({*names} - precision.DRAGS.keys()):
        known = ", ".join(precision.DRAGS)
        raise ConfigError(f"there is no drag {unknown[0]!r}; use {known}")
    side = min(size_of(parsed))
    measured = precision.measure(parsed.model, device_of(parsed), side, changes, names, watch=watch)
    document = about | {"mask": True, "computed": False} | measured
    return Record(document, precision.precision_table(document))


MEASUREMENTS: Mapping[str, Sequence[Measurement]] = {
    "kernels": (_kernels,),
    "stages": (_stages,),
    "edits": (_edits,),
    "sessions": (_sessions,),
    "personalise": (_personalise,),
    "precision": (_precision,),
    "exports": (_exports,),
    "all": (_kernels, _stages, _edits),
}
"""What each command measures, one after the other."""
