"""Backends as a table: what runs the parts of the network, why one cannot, and who is chosen."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..capture import Captured, graph_on
from ..errors import BackendError
from ..model import Model
from ..unet import Operators, UNet
from ..unet.operators import FusedNorm
from . import packed
from .attention import ATTENTION, Attention
from .compiled import Gate, cache_folder, identity

__all__ = ["BACKENDS", "Backend", "Choice", "choose"]

Part = Callable[..., Any]


@dataclass(frozen=True)
class Backend:
    """objections: why it cannot serve a model; empty if it can. prepare: the model's network, run by it, with what gates its parts."""

    name: str
    source: str
    objections: Callable[[Model], list[str]]
    prepare: Callable[[Model, Attention], tuple[UNet, Mapping[str, Gate]]]


@dataclass(frozen=True)
class Choice:
    """Who runs the network. passed_over: the candidates before it, with their objections. gates: of compiled parts, as they come into use."""

    backend: str
    attention: str
    passed_over: Mapping[str, list[str]] = field(default_factory=dict)
    gates: Mapping[str, Gate] = field(default_factory=dict)

    def said(self) -> dict[str, Any]:
        """For results, records and `dragnoise info`: names, and every reason why something else was not used."""
        refused = {part: sorted(set(gate.reasons.values())) for part, gate in self.gates.items() if gate.reasons}
        return {
            "backend": self.backend,
            "attention": self.attention,
            "passed_over": dict(self.passed_over),
            "refused": refused,
        }


def _eager(model: Model, attention: Attention) -> tuple[UNet, Mapping[str, Gate]]:
    """PyTorch's operators one by one. On CUDA maps are channels_last, which PyTorch's own normalisation would undo, and a pass is a graph."""
    operators = Operators(attention=attention.attend)
    if model.device.type == "cuda":
        operators = dataclasses.replace(operators, memory_format=torch.channels_last, norm=FusedNorm)
    return UNet(model.unet.network, operators, lambda part, run: _captured(part, run, model.device)), {}


def _packed(model: Model, attention: Attention) -> tuple[UNet, Mapping[str, Gate]]:
    operators = dataclasses.replace(packed.PACKED, attention=attention.attend)
    return UNet(model.unet.network, operators), {}


def _compiled(model: Model, attention: Attention) -> tuple[UNet, Mapping[str, Gate]]:
    """torch.compile behind a gate; without its own CUDA graphs (pytorch#126938), since passes and iterations are captured here."""
    cuda = model.device.type == "cuda"
    operators = Operators(
        memory_format=torch.channels_last if cuda else torch.contiguous_format, attention=attention.attend
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
    return Captured(run, graph_on(device)) if device.type == "cuda" and part in ("whole", "replaced") else run


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
    )
}

_ORDER: Mapping[str, tuple[str, ...]] = {"cpu": ("packed", "eager"), "cuda": ("compiled", "eager")}
"""Who is asked first for "auto". Compiled code did not pay on a CPU, so it is there only by name."""


def choose(model: Model, backend: str = "auto", attention: str = "sdpa") -> tuple[Model, Choice]:
    """The model, run by the backend asked for, or for "auto" by the first that has no objection; and who that is.

    Raises BackendError for a name that is not in the tables, and for one that cannot serve, with its objections.
    """
    attend = _named("attention", attention, ATTENTION)
    if refused := attend.objections(model.device, model.dtype):
        raise BackendError(f"attention {attention!r} cannot serve here: {'; '.join(refused)}. Use sdpa")
    candidates = _ORDER.get(model.device.type, ("eager",)) if backend == "auto" else (backend,)
    passed_over: dict[str, list[str]] = {}
    for name in candidates:
        row = _named("backend", name, BACKENDS)
        if found := row.objections(model):
            passed_over[name] = found
            continue
        unet, gates = row.prepare(model, attend)
        return dataclasses.replace(model, unet=unet, how=(*model.how, name, attention)), Choice(
            name, attention, passed_over, gates
        )
    reasons = "; ".join(f"{name}: {', '.join(found)}" for name, found in passed_over.items())
    raise BackendError(f"no backend can serve here: {reasons}. Use auto or eager")


def _named(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    if name not in table:
        raise BackendError(f"there is no {kind} {name!r}; known: {', '.join(table)}")
    return table[name]
