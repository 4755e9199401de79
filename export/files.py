"""The files of one part: its graph, and where a plan is wanted the plan that is built of it."""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragnoise.engine.backends.tensorrt import Cuda, Library
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.exported import PlanId, Profile, graph_id
from dragnoise.engine.session.result import Progress
from dragnoise.engine.system.device import choose_device

from .onnx import export_graph
from .plans import build_plan, kept_plan, plan_id
from .refit import refit_plan

__all__ = ["PartFiles", "PlanOptions", "make_files"]


@dataclass(frozen=True)
class PlanOptions:
    """How plans are built.

    Attributes:
        library: the flavour of TensorRT that builds them.
        target: "any", or for TensorRT for RTX one compute capability ("sm89").
        refittable: whether their weights can be replaced later.
        refit: replace the weights of a plan that is there instead of building, on a GPU.
    """

    library: Library
    target: str = "any"
    refittable: bool = False
    refit: bool = False


@dataclass(frozen=True)
class PartFiles:
    """The files of a part, and what they took to make.

    Attributes:
        part: the part's name.
        onnx: the graph's file name.
        onnx_bytes: size of the graph with its weights.
        export_s: seconds of its export.
        error: the largest relative difference (L2) from PyTorch.
        plan: the plan's file name; None if only the graph was wanted.
        plan_figures: what the plan's own header says of its making (seconds, bytes, peak memory).
    """

    part: str
    onnx: str
    onnx_bytes: int
    export_s: float
    error: float
    plan: str | None
    plan_figures: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name, ready for JSON; those of a plan begin with `plan_`."""
        graph = {
            "part": self.part,
            "onnx": self.onnx,
            "onnx_bytes": self.onnx_bytes,
            "export_s": self.export_s,
            "error": self.error,
        }
        if self.plan is None:
            return graph
        figures = {f"plan_{name}": value for name, value in self.plan_figures.items()}
        return graph | {"plan": self.plan} | figures

    def row(self) -> list[str]:
        """Return the figures as text: part, ONNX MB, export s, error, plan MB, build s, peak GB."""
        cells = [
            self.part,
            f"{self.onnx_bytes / 1e6:.1f}",
            f"{self.export_s:.1f}",
            f"{self.error:.1e}",
        ]
        if self.plan is not None:
            cells.append(f"{self.plan_figures['bytes'] / 1e6:.1f}")
            cells.append(f"{self.plan_figures['seconds']:.1f}")
            # A refitted plan has no peak, and not every system tells it.
            peak = self.plan_figures.get("peak_bytes")
            cells.append(f"{peak / 1e9:.2f}" if peak else "")
        return cells


def make_files(
    model: Model,
    reference: Model,
    part: str,
    profile: Profile,
    folder: Path,
    features: int | None,
    plan: PlanOptions | None,
    progress: Progress,
) -> PartFiles:
    """Export a part, build its plan if one is wanted, and return its files in `folder`.

    Args:
        model: the model in the precision that is exported.
        reference: the same in float32, which the files are compared with.
        part: the part's name.
        profile: the sizes it is made for.
        folder: where the files go.
        features: the up block whose map `up` gives too; None: no map.
        plan: how to build the plan; None: only the graph is wanted.
        progress: called with (what, done, of how many).

    Raises:
        ExportError: the part cannot be exported, or is not right and was not kept.
        CancelledError: a build was stopped by Ctrl-C.
        OutputError: the folder cannot be written to.
    """
    progress(f"{part}: exporting", 0, 1)
    path, report = export_graph(
        model, part, profile, folder, features=features, reference=reference
    )
    built = None
    figures: Mapping[str, Any] = {}
    if plan is not None:
        graph = graph_id(model, part, profile, features)
        built = plan_id(graph, plan.library, plan.refittable, plan.target)
        figures = _make_plan(model, reference, path, built, folder, plan, progress)
    return PartFiles(
        part=part,
        onnx=path.name,
        onnx_bytes=report["bytes"],
        export_s=report["export_s"],
        error=report["check"]["worst"],
        plan=None if built is None else built.file,
        plan_figures=figures,
    )


def _make_plan(
    model: Model,
    reference: Model,
    graph: Path,
    built: PlanId,
    folder: Path,
    options: PlanOptions,
    progress: Progress,
) -> Mapping[str, Any]:
    """Return the figures of the plan: of the one that is there, of a refitted or of a new one."""
    library = options.library
    if (kept := kept_plan(folder, built)) is not None:
        return kept
    if options.refit:
        device = Cuda(choose_device("cuda"))
        return refit_plan(reference, graph, built, folder, library, device)[1]
    with _until_interrupted() as goes_on:

        def step(phase: str, done: int, total: int) -> bool:
            progress(f"{built.graph.part}: {phase.lower()}", done, total)
            return goes_on()

        return build_plan(model, graph, built, folder, library, step)[1]


@contextmanager
def _until_interrupted() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether no signal has asked to end yet; then it is raised anew.

    TensorRT does not return on Ctrl-C: the build asks at each of its steps instead.
    """
    signals: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: signals.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: not signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if signals:
            signal.raise_signal(signal.Signals(signals[0]))
