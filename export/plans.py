"""TensorRT plans, built of graphs.

TensorRT for RTX builds on any machine, TensorRT on the device that the plan is for.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dragnoise.engine.backends.tensorrt import Library, Log
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.errors import CancelledError, ExportError, PlanError
from dragnoise.engine.exported import GraphId, PlanId, about_plan, read_plan, signature, write_plan
from dragnoise.engine.system.files import write_whole

from .peak_memory import forget_peak, peak_of_process

__all__ = ["Step", "build_plan", "kept_plan", "plan_id"]

Step = Callable[[str, int, int], bool]
"""(phase, steps done, steps in all) -> whether to go on."""


def plan_id(
    graph: GraphId, library: Library, refittable: bool = False, target: str = "any"
) -> PlanId:
    """Return the identity of the plan that is built here.

    Args:
        graph: what it is built of.
        library: what builds it.
        refittable: whether its weights can be replaced.
        target: "any", or for TensorRT for RTX one compute capability ("sm89").

    Raises:
        ExportError: the library does not build for the target.
    """
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    usual = library.targets(capability)[0]
    if target not in ("any", usual) and target not in (known := _known(library)):
        raise ExportError(
            f"{library.flavour} {library.version} does not build for {target!r} here; "
            f"use {', '.join(known)}"
        )
    return PlanId(
        graph, library.flavour, library.version, usual if target == "any" else target, refittable
    )


def _known(library: Library) -> list[str]:
    """Return the targets that can be asked for; TensorRT builds for the device that is here."""
    if library.flavour != "tensorrt_rtx":
        return ["any"]
    return [
        "any",
        *(
            name.lower()
            for name in library.module.ComputeCapability.__members__
            if name.startswith("SM")
        ),
    ]


def kept_plan(folder: Path, built: PlanId) -> dict[str, Any] | None:
    """Return how a plan was made that is there already, whole; None where it is not."""
    try:
        read_plan(folder / built.file, built)
    except PlanError:
        return None
    return about_plan(folder / built.file)[1]


def build_plan(
    model: Model,
    graph: Path,
    built: PlanId,
    folder: Path,
    library: Library,
    step: Step | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Build a plan and return its file in `folder` and figures of its build.

    The figures are seconds, bytes, peak memory of the process in bytes, and layers.

    Args:
        model: whose part it is.
        graph: the ONNX file of `built.graph`.
        built: the plan's identity.
        folder: where the plan goes.
        library: what builds it.
        step: called at every step of the build, which stops where it returns False.

    Raises:
        ExportError: it cannot be built; the message has what TensorRT's log says.
        CancelledError: `step` returned False.
        OutputError: the folder cannot be written to.
    """
    log = library.log()
    if library.flavour == "tensorrt" and not torch.cuda.is_available():
        raise ExportError(
            "tensorrt builds on the device that a plan is for, and there is none here; "
            "use --flavour tensorrt_rtx"
        )
    started = time.perf_counter()
    forget_peak()
    plan, layers, timings = _built(model, graph, built, folder, library, log, step)
    seconds = round(time.perf_counter() - started, 3)
    made = {
        "seconds": seconds,
        "bytes": plan.nbytes,
        "peak_bytes": peak_of_process(),
        "layers": layers,
    }
    if timings is not None:
        path, raw = timings
        write_whole(path, lambda target: target.write_bytes(raw))
    return write_plan(folder, built, memoryview(plan), made), made


def _built(
    model: Model,
    graph: Path,
    built: PlanId,
    folder: Path,
    library: Library,
    log: Log,
    step: Step | None,
) -> tuple[Any, int, tuple[Path, bytes] | None]:
    """Return the plan, the number of its layers, and the timing cache's file and bytes."""
    trt = library.module
    builder = trt.Builder(log.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(graph)):
        errors = "; ".join(parser.get_error(number).desc() for number in range(parser.num_errors))
        raise ExportError(
            f"{library.flavour} {library.version} refuses the graph {graph.name}: "
            f"{errors or log.text()}"
        )
    config = builder.create_builder_config()
    if library.flavour == "tensorrt_rtx" and built.target != "any":
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, built.target.upper()), 0)
    if built.refittable:
        config.set_flag(trt.BuilderFlag.REFIT)
    if built.graph.profile.dynamic:
        config.add_optimization_profile(_profile(model, built.graph, builder))
    monitor = _monitor(trt, step)
    config.progress_monitor = monitor
    timings = _timing_cache(library, config, folder)
    plan = builder.build_serialized_network(network, config)
    if monitor.cancelled:
        raise CancelledError(f"the build of {built.file} was cancelled; nothing was written")
    if plan is None:
        raise ExportError(
            f"{library.flavour} {library.version} cannot build {built.graph.part}: {log.text()}"
        )
    timed = None if timings is None else (timings, bytes(config.get_timing_cache().serialize()))
    return plan, network.num_layers, timed


def _profile(model: Model, graph: GraphId, builder: Any) -> Any:
    """Return least, usual and most shape of every input: linked sizes stay linked."""
    ranges = [
        signature(model, graph.part, extent, graph.features).inputs
        for extent in (graph.profile.least, graph.profile.usual, graph.profile.most)
    ]
    profile = builder.create_optimization_profile()
    for name in ranges[0]:
        profile.set_shape(name, *(shapes[name] for shapes in ranges))
    return profile


def _timing_cache(library: Library, config: Any, folder: Path) -> Path | None:
    """Give the builder what TensorRT measured on this device before, and return the file of that.

    None for TensorRT for RTX, which measures nothing when it builds.
    """
    if library.flavour != "tensorrt":
        return None
    device = torch.cuda.get_device_name().replace(" ", "-").lower()
    path = folder / f"timings.{device}.{library.flavour}-{library.version}.cache"
    raw = path.read_bytes() if path.exists() else b""
    cache = config.create_timing_cache(raw)
    config.set_timing_cache(cache, ignore_mismatch=False)
    return path


def _monitor(trt: Any, step: Step | None) -> Any:
    """Return TensorRT's progress monitor; the build stops where `step` returns False."""
    base: Any = trt.IProgressMonitor  # the module is chosen when it runs

    class Monitor(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.cancelled = False
            self._counts: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, count: int) -> None:
            self._counts[phase] = count
            self._report(phase, 0)

        def phase_finish(self, phase: str) -> None:
            self._report(phase, self._counts[phase])

        def step_complete(self, phase: str, number: int) -> bool:
            return self._report(phase, number + 1)

        def _report(self, phase: str, done: int) -> bool:
            if step is not None and not self.cancelled:
                self.cancelled = not step(phase, done, self._counts[phase])
            return not self.cancelled

    return Monitor()
