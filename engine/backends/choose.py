"""Backends as a table: what runs the parts of the network, why one cannot, and who is chosen."""

import dataclasses
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..cache import default_folder
from ..diffusion.model import Model
from ..diffusion.unet import Operators, UNet
from ..diffusion.unet.operators import FusedNorm
from ..errors import BackendError
from ..system.cuda_graphs import Captured, graph_on
from . import onnxruntime, packed
from .artefacts import Artefacts
from .assemble import placed
from .attention import ATTENTION, Attention
from .compiled import Gate, cache_folder, identity
from .exported_parts import ExportedParts
from .placement import Placement
from .tensorrt import backend as plans

__all__ = ["BACKENDS", "ORDER", "Backend", "Choice", "choose", "usual"]

Part = Callable[..., Any]


@dataclass(frozen=True)
class Backend:
    """objections: why it cannot serve a model; empty if it can.

    prepare: the model's network, run by it, with what gates its parts; None where it gives no gradients, so that it can be no drag's.
    serve: parts that were exported; None where it runs PyTorch's own.
    """

    name: str
    source: str
    objections: Callable[[Model], list[str]]
    prepare: Callable[[Model, Attention], tuple[UNet, dict[str, Gate]]] | None = None
    serve: Callable[[Model, Artefacts], ExportedParts[Any]] | None = None


@dataclass(frozen=True)
class Choice:
    """Who runs the network. passed_over: the candidates before it, with their objections. gates: of compiled parts, as they come into use.

    served: exported parts, by who runs them, with the files that are open. measured: milliseconds by part and candidate, where that has chosen.
    """

    placement: Placement
    attention: str
    passed_over: Mapping[str, list[str]] = field(default_factory=dict)
    gates: Mapping[str, Gate] = field(default_factory=dict)
    served: Mapping[str, ExportedParts[Any]] = field(default_factory=dict)
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def backend(self) -> str:
        """The drag's, or where parts are placed otherwise the whole placement."""
        return str(self.placement)

    def to_dict(self) -> dict[str, Any]:
        """For results, records and `dragnoise info`: names, and every reason why something else was not used."""
        refused = {
            part: sorted(set(gate.reasons.values()))
            for part, gate in self.gates.items()
            if gate.reasons
        }
        said = {
            "backend": self.backend,
            "attention": self.attention,
            "passed_over": dict(self.passed_over),
            "refused": refused,
        }
        if self.served:
            said["exported"] = {name: one.to_dict() for name, one in self.served.items()}
        return said | ({"measured_ms": dict(self.measured)} if self.measured else {})


def _eager(model: Model, attention: Attention) -> tuple[UNet, dict[str, Gate]]:
    """PyTorch's operators one by one. On CUDA maps are channels_last, which PyTorch's own normalisation would undo, and a pass is a graph."""
    operators = Operators(attention=attention.attend)
    if model.device.type == "cuda":
        operators = dataclasses.replace(
            operators, memory_format=torch.channels_last, norm=FusedNorm
        )
    return UNet(
        model.unet.network, operators, lambda part, run: _captured(part, run, model.device)
    ), {}


def _packed(model: Model, attention: Attention) -> tuple[UNet, dict[str, Gate]]:
    operators = dataclasses.replace(packed.PACKED, attention=attention.attend)
    return UNet(model.unet.network, operators), {}


def _compiled(model: Model, attention: Attention) -> tuple[UNet, dict[str, Gate]]:
    """torch.compile behind a gate; without its own CUDA graphs (pytorch#126938), since passes and iterations are captured here."""
    cuda = model.device.type == "cuda"
    operators = Operators(
        memory_format=torch.channels_last if cuda else torch.contiguous_format,
        attention=attention.attend,
    )
    gates: dict[str, Gate] = {}
    about = identity(model.unet.network, model.device)

    def prepare(part: str, run: Part) -> Part:
        mode = "max-autotune-no-cudagraphs" if cuda else None
        compiled = torch.compile(run, dynamic=False, mode=mode)
        gates[part] = Gate(part, run, compiled, about, cache_folder())
        return _captured(part, gates[part], model.device)

    return UNet(model.unet.network, operators, prepare), gates


def _captured(part: str, run: Part, device: torch.device) -> Part:
    """A whole pass as a graph, on CUDA. The drag's own part is inside the graph of its iteration."""
    return (
        Captured(run, graph_on(device))
        if device.type == "cuda" and part in ("whole", "replaced")
        else run
    )


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(
            "packed",
            "oneDNN with weights packed once, channels_last",
            lambda model: packed.objections(model.device, model.dtype),
            _packed,
        ),
        Backend("compiled", "torch.compile behind a gradient gate", lambda model: [], _compiled),
        Backend("eager", "PyTorch's operators as they are", lambda model: [], _eager),
        Backend(
            "tensorrt", "TensorRT plans, in either flavour", plans.objections, serve=plans.served
        ),
        Backend(
            "onnxruntime",
            "exported graphs on the CPU",
            onnxruntime.objections,
            serve=onnxruntime.served,
        ),
    )
}

ORDER: Mapping[str, tuple[str, ...]] = {"cpu": ("packed", "eager"), "cuda": ("compiled", "eager")}
"""Who is asked first where nobody is asked for. Compiled code did not pay on a CPU, so it is there only by name."""


def usual(model: Model) -> tuple[str, dict[str, list[str]]]:
    """The first in the order of its device that has no objection, and the objections of those before it. Raises BackendError where all have."""
    passed_over: dict[str, list[str]] = {}
    for name in ORDER.get(model.device.type, ("eager",)):
        if not (found := BACKENDS[name].objections(model)):
            return name, passed_over
        passed_over[name] = found
    reasons = "; ".join(f"{name}: {', '.join(found)}" for name, found in passed_over.items())
    raise BackendError(f"no backend can serve here: {reasons}. Use eager")


def choose(
    model: Model,
    backend: str | Placement | None = None,
    attention: str = "sdpa",
    artefacts: Artefacts | None = None,
    measured: Mapping[str, Mapping[str, float]] | None = None,
) -> tuple[Model, Choice]:
    """The model, run as asked for, and who runs it.

    backend: None for the first without an objection, a name, or a `Placement` (or its text). A name of one that runs exported parts stands for all
    that it can run. Raises BackendError for a name that is not in the tables, and for one that cannot serve, with its objections.
    """
    attend = _named("attention", attention, ATTENTION)
    if refused := attend.objections(model.device, model.dtype):
        raise BackendError(
            f"attention {attention!r} cannot serve here: {'; '.join(refused)}. Use sdpa"
        )
    placement, passed_over = _settled(model, backend)
    _object(model, placement)
    artefacts = artefacts or Artefacts(default_folder() / "exported")
    model.read()  # shared by all views of the model from here on: who merges an adapter tells those who run exported parts
    servers: dict[str, ExportedParts[Any]] = {}
    gates: list[dict[str, Gate]] = []  # filled as parts come into use
    networks: dict[str, UNet] = {}
    for name in dict.fromkeys((placement.drag, *placement.frozen.values())):
        row = BACKENDS[name]
        if row.prepare is not None:
            networks[name], found = row.prepare(model, attend)
            gates.append(found)
        elif row.serve is not None:
            servers[name] = row.serve(model, artefacts)
    choice = Choice(placement, attention, passed_over, ChainMap(*gates), servers, measured or {})
    return placed(model, placement, networks, servers, (str(placement), attention)), choice


def _settled(
    model: Model, backend: str | Placement | None
) -> tuple[Placement, dict[str, list[str]]]:
    """With every name checked, and the drag's filled in."""
    placement = Placement.of(backend) if isinstance(backend, str) else backend or Placement()
    for name in (placement.drag or "eager", *placement.frozen.values()):
        _named("backend", name, BACKENDS)
    if placement.drag and BACKENDS[placement.drag].prepare is None:
        if placement.frozen:
            raise BackendError(
                f"{placement.drag} gives no gradients, and a drag needs them; use drag=compiled, packed or eager"
            )
        placement = Placement.everywhere(placement.drag)
    if placement.drag:
        return placement, {}
    name, passed_over = usual(model)
    return dataclasses.replace(placement, drag=name), passed_over


def _object(model: Model, placement: Placement) -> None:
    names = (placement.drag, *placement.frozen.values())
    refused = {name: found for name in names if (found := BACKENDS[name].objections(model))}
    if refused:
        reasons = "; ".join(f"{name}: {', '.join(found)}" for name, found in refused.items())
        raise BackendError(f"no backend can serve here: {reasons}. Use auto or eager")
    if placement.vae not in (None, "eager") and BACKENDS[str(placement.vae)].serve is None:
        raise BackendError(
            f"{placement.vae} does not run the VAE; use vae=eager, tensorrt or onnxruntime"
        )
    if placement.unet is not None and BACKENDS[placement.unet].serve is None:
        raise BackendError(
            f"unet={placement.unet} is no exported part; place down, middle and up there, or leave them to the drag's"
        )


def _named(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    if name not in table:
        raise BackendError(f"there is no {kind} {name!r}; known: {', '.join(table)}")
    return table[name]
