"""Say what a backend is, and what was chosen: the types that every backend's file ends in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..diffusion.model import Model
from ..diffusion.parts import Part, PartFunction
from ..diffusion.unet import UNet
from ..system.cuda_graphs import Captured, NullGraph, graph_on
from .artefacts import Artefacts
from .attention import Attention
from .exported_parts import ExportedParts, needs_gradient
from .gate import Gate
from .placement import Placement

__all__ = ["Backend", "Choice", "Gates", "captured"]

Gates = dict[str, Gate]
"""Gates of compiled parts by part; filled as parts come into use."""


@dataclass(frozen=True)
class Backend:
    """A row of the table of backends. It runs PyTorch's operators or exported parts.

    Attributes:
        name: As placements, results and cache keys have it.
        description: What runs, in a few words.
        objections: Lists why it cannot serve a model; empty if it can.
        build_unet: Returns the model's network as this backend runs it, and what gates its parts.
            None for a backend without gradients, which no drag can use.
        open_parts: Returns the exported parts of a model. None for a backend of PyTorch's.
    """

    name: str
    description: str
    objections: Callable[[Model], list[str]]
    build_unet: Callable[[Model, Attention], tuple[UNet, Gates]] | None = None
    open_parts: Callable[[Model, Artefacts], ExportedParts[Any]] | None = None


@dataclass(frozen=True)
class Choice:
    """A record of which backends run the network, and why no others.

    Attributes:
        placement: Backends by part.
        attention: Name of the attention.
        passed_over: Candidates before the chosen one, with their objections.
        gates: Gates of compiled parts, as they come into use.
        exported: Exported parts by the backend that runs them, with the files that are open.
        measured_ms: Milliseconds by part and candidate, where times have decided.
    """

    placement: Placement
    attention: str
    passed_over: Mapping[str, list[str]] = field(default_factory=dict)
    gates: Mapping[str, Gate] = field(default_factory=dict)
    exported: Mapping[str, ExportedParts[Any]] = field(default_factory=dict)
    measured_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def backend(self) -> str:
        """Name of the backend, or the placement as text if parts differ."""
        return str(self.placement)

    def to_dict(self) -> dict[str, Any]:
        """Return names, and every reason why something else was not used; JSON-ready.

        Results, records and `dragnoise info` show it.
        """
        refused = {
            part: sorted(set(gate.reasons.values()))
            for part, gate in self.gates.items()
            if gate.reasons
        }
        record: dict[str, Any] = {
            "backend": self.backend,
            "attention": self.attention,
            "passed_over": dict(self.passed_over),
            "refused": refused,
        }
        if self.exported:
            record["exported"] = {name: parts.files() for name, parts in self.exported.items()}
        if self.measured_ms:
            record["measured_ms"] = dict(self.measured_ms)
        return record


def captured(part: Part, run: PartFunction, device: torch.device) -> PartFunction:
    """Return a part that is replayed as a graph, where no gradient goes through it on CUDA.

    The drag's own part stays as it is: it lies inside the graph of its iteration.
    """
    capture = graph_on(device)
    if capture is NullGraph or not (part.whole or part.exported):
        return run
    replayed = Captured(run, capture)
    return lambda *inputs: (run if needs_gradient(inputs) else replayed)(*inputs)
