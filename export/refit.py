"""A plan for other weights, made of one that is there: its weights are replaced.

It needs a flavour and a device that can refit, and the result is checked: refitting has mixed up
weights in the field (NVIDIA/TensorRT#3628) and dropped biases. Where building takes seconds
(TensorRT for RTX) it is not worth it. So the default is to merge the adapter and build; this is for
TensorRT, whose builds take minutes.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dragnoise.engine.backends.tensorrt import Device, Engine, Library
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.errors import ExportError, PlanError
from dragnoise.engine.exported import (
    DTYPES,
    SUFFIX,
    GraphId,
    PlanId,
    about_plan,
    check_graph,
    part_of,
    read_plan,
    signature,
    write_plan,
)

from .inputs import example

__all__ = ["TOLERANCE", "refit_plan"]

TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 8e-2}
"""Allowed relative difference (L2) of every output of the refitted plan from PyTorch in float32."""


def refit_plan(
    reference: Model, graph: Path, built: PlanId, folder: Path, library: Library, device: Device
) -> tuple[Path, dict[str, Any]]:
    """Refit a plan that differs in the adapter alone; return the new file and figures of it.

    Two checks come before it is kept: with the new weights the outputs are PyTorch's; with the old
    weights put back the outputs are those of the old plan, bit for bit.

    Args:
        reference: the model in float32, with the adapter merged.
        graph: the ONNX file of `built.graph`.
        built: the identity of the new plan.
        folder: where the refittable plan lies, and where the new one goes.
        library: the flavour of TensorRT.
        device: where the plan runs.

    Raises:
        ExportError: there is no plan to begin with, or a check fails.
        PlanError: TensorRT refuses.
    """
    started = time.perf_counter()
    path, base = _base(built, folder)
    base_graph = folder / base.graph.file
    check_graph(base_graph, base.graph)
    extent = built.graph.profile.usual
    names = signature(reference, built.graph.part, extent, built.graph.features)
    engine = Engine(library, read_plan(path, base), names, device, path.name)
    wide = example(reference, built.graph.part, extent, seed=1)
    inputs = {name: tensor.to(DTYPES[built.graph.dtype]) for name, tensor in wide.items()}
    on_device = {name: tensor.to(device.device) for name, tensor in inputs.items()}
    before = engine(on_device)
    engine.refit(graph)
    worst = _largest_difference(_expected(reference, built.graph, inputs), engine(on_device))
    if not worst <= (allowed := TOLERANCE[built.graph.dtype]):
        raise ExportError(
            f"{path.name}, refitted with {graph.name}, is {worst:.1e} off PyTorch, "
            f"{allowed:.0e} is allowed; build it anew"
        )
    engine.refit(base_graph)
    again = engine(on_device)
    if not all(torch.equal(before[name], again[name]) for name in before):
        raise ExportError(
            f"{path.name}, refitted there and back, is not what it was; "
            f"build the plan of {graph.name} anew"
        )
    engine.refit(graph)
    plan = engine.serialized()
    made = {
        "seconds": round(time.perf_counter() - started, 3),
        "bytes": len(plan),
        "refitted_from": path.name,
        "error": worst,
    }
    return write_plan(folder, built, plan, made), made


def _base(built: PlanId, folder: Path) -> tuple[Path, PlanId]:
    """Return a plan that differs from `built` in the adapter alone. Raises ExportError."""
    for path in sorted(folder.glob(f"{built.graph.part}*.refittable{SUFFIX}")):
        try:
            plan, _ = about_plan(path)
        except PlanError:  # a broken neighbour
            continue
        graph = dataclasses.replace(plan.graph, adapter=built.graph.adapter)
        if dataclasses.replace(plan, graph=graph) == built:
            return path, plan
    raise ExportError(
        f"no refittable plan of {built.graph.part} for {built.graph.profile} lies in "
        f"{str(folder)!r}; make one with --refittable"
    )


def _expected(reference: Model, graph: GraphId, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Return what PyTorch computes in float32."""
    with torch.no_grad():
        part = part_of(reference, reference.unet, graph.part, graph.features)
        outputs = part(*(tensor.float() for tensor in inputs.values()))
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _largest_difference(expected: tuple[Tensor, ...], outputs: dict[str, Tensor]) -> float:
    """Return the largest relative difference (L2) of an output."""
    return max(
        float((output.cpu().double() - right.double()).norm() / right.double().norm())
        for right, output in zip(expected, outputs.values(), strict=True)
    )
