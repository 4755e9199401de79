"""Choose who runs the parts of a network, from a table of backends."""

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import replace
from types import NoneType
from typing import Any

from ..cache import default_folder
from ..config import shown
from ..diffusion.model import Model
from ..diffusion.unet import UNet
from ..errors import BackendError
from .artefacts import Artefacts
from .assemble import assemble
from .attention import ATTENTION, Attention
from .backend import Backend, Choice, Gates
from .compiled import COMPILED
from .eager import EAGER
from .exported_parts import ExportedParts
from .onnxruntime import ONNXRUNTIME
from .packed import PACKED
from .placement import Placement
from .tensorrt.backend import TENSORRT

__all__ = ["BACKENDS", "ORDER", "choose", "usual_backend"]

BACKENDS: dict[str, Backend] = {
    row.name: row for row in (PACKED, COMPILED, EAGER, TENSORRT, ONNXRUNTIME)
}
"""Backends by name."""

ORDER: Mapping[str, tuple[str, ...]] = {"cpu": ("packed", "eager"), "cuda": ("eager",)}
"""Default order of backends by device.

`compiled` runs where it is named: it was slower on a CPU, and on an H100 the compiler tried
algorithms for more than two minutes before a first edit, which `eager`'s graphs do not.
"""


def choose(
    model: Model,
    backend: str | Placement | Backend | None = None,
    attention: str = "sdpa",
    artefacts: Artefacts | None = None,
    measured_ms: Mapping[str, Mapping[str, float]] | None = None,
) -> tuple[Model, Choice]:
    """Return the model with its parts run as wanted, and a record of who runs them.

    Args:
        model: As it was loaded.
        backend: None for the first of the device's order without an objection; a name; a
            `Placement`, or its text; a row of one's own. A backend that runs exported parts
            stands for all that it can run.
        attention: A name in `ATTENTION`.
        artefacts: Where exported parts lie; None for the cache folder.
        measured_ms: Milliseconds by part and candidate, for the record alone.

    Raises:
        BackendError: For a name that is not in the tables, and for a backend that cannot serve,
            with its objections.
    """
    attend = _usable_attention(model, attention)
    table: Mapping[str, Backend] = BACKENDS
    if isinstance(backend, Backend):
        table = _with_row(backend)
        backend = backend.name
    placement, passed_over = _complete(model, backend, table)
    _check(model, placement, table)
    artefacts = artefacts or Artefacts(default_folder() / "exported")
    networks: dict[str, UNet] = {}
    exported: dict[str, ExportedParts[Any]] = {}
    gates: list[Gates] = []
    for name in placement.backends:
        row = table[name]
        if row.build_unet is not None:
            networks[name], of_parts = row.build_unet(model, attend)
            gates.append(of_parts)
        elif row.open_parts is not None:
            exported[name] = row.open_parts(model, artefacts)
    choice = Choice(
        placement, attention, passed_over, ChainMap(*gates), exported, measured_ms or {}
    )
    tags = (str(placement), attention)
    return assemble(model, placement, networks, exported, tags), choice


def usual_backend(
    model: Model, table: Mapping[str, Backend] = BACKENDS
) -> tuple[str, dict[str, list[str]]]:
    """Return the first backend of the device's order without an objection, and those before it.

    Raises:
        BackendError: Where all have objections, with all of them.
    """
    passed_over: dict[str, list[str]] = {}
    for name in ORDER.get(model.device.type, ("eager",)):
        objections = table[name].objections(model)
        if not objections:
            return name, passed_over
        passed_over[name] = objections
    raise BackendError(f"no backend can serve here: {_in_words(passed_over)}. Use eager")


def _usable_attention(model: Model, name: str) -> Attention:
    _check_name("attention", name, ATTENTION)
    attention = ATTENTION[name]
    objections = attention.objections(model.device, model.dtype)
    if objections:
        reasons = "; ".join(objections)
        raise BackendError(f"attention {name!r} cannot serve here: {reasons}. Use sdpa")
    return attention


def _with_row(row: Backend) -> Mapping[str, Backend]:
    """Return the table with a row of one's own: under a new name, because names are cache keys."""
    if row.name in BACKENDS and BACKENDS[row.name] is not row:
        raise BackendError(f"there is a backend {row.name!r} already; give yours another name")
    return {**BACKENDS, row.name: row}


def _complete(
    model: Model, backend: str | Placement | None, table: Mapping[str, Backend]
) -> tuple[Placement, dict[str, list[str]]]:
    """Return a placement with names that are in the table and the drag's backend filled in."""
    if not isinstance(backend, (str, Placement, NoneType)):
        raise BackendError(
            f"a backend cannot be a {type(backend).__name__}; give a name, a Placement or a Backend"
        )
    placement = Placement.of(backend) if isinstance(backend, str) else backend or Placement()
    for name in (placement.drag or "eager", *placement.frozen.values()):
        _check_name("backend", name, table)
    if placement.drag and table[placement.drag].build_unet is None:
        if placement.frozen:
            raise BackendError(
                f"{placement.drag} gives no gradients, and a drag needs them; "
                "use drag=compiled, packed or eager"
            )
        placement = Placement.everywhere(placement.drag)
    if placement.drag:
        return placement, {}
    name, passed_over = usual_backend(model, table)
    return replace(placement, drag=name), passed_over


def _check(model: Model, placement: Placement, table: Mapping[str, Backend]) -> None:
    """Refuse a placement that cannot be: backends that cannot serve, or not that part."""
    objections = {name: table[name].objections(model) for name in placement.backends}
    refused = {name: reasons for name, reasons in objections.items() if reasons}
    if refused:
        raise BackendError(f"no backend can serve here: {_in_words(refused)}. Use auto or eager")
    vae = placement.vae
    if vae not in (None, "eager") and table[vae].open_parts is None:
        raise BackendError(f"{vae} does not run the VAE; use vae=eager, tensorrt or onnxruntime")
    unet = placement.unet
    if unet is not None and table[unet].open_parts is None:
        raise BackendError(
            f"unet={unet} is no exported part; "
            "place down, middle and up there, or leave them to the drag's"
        )


def _check_name(kind: str, name: Any, table: Mapping[str, object]) -> None:
    if not isinstance(name, str) or name not in table:
        raise BackendError(f"there is no {kind} {shown(name)}; known: {', '.join(table)}")


def _in_words(objections: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{name}: {', '.join(reasons)}" for name, reasons in objections.items())
