"""A plan for other weights, made of one that is there: its weights are replaced instead of building anew.

Only where the flavour and the device can, and only if what comes out is right: refitting has mixed weights in the field (NVIDIA/TensorRT#3628) and
dropped biases, and where building takes seconds (TensorRT for RTX) it is not worth it. So the default is to merge the adapter and build; this is for
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
from dragnoise.engine.errors import ExportError
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
    """The plan `built` in `folder`, of a refittable one there that differs in the adapter alone, and figures of it.

    graph: the ONNX file of `built.graph`. reference: the model in float32, with the adapter merged. Checked before it is kept: the new weights'
    outputs are PyTorch's; with the old weights put back the old plan's outputs are the same bits.
    Raises ExportError where there is no plan to begin with or a check fails, PlanError where TensorRT refuses.
    """
    started = time.perf_counter()
    path, base = _base(built, folder)
    base_graph = folder / base.graph.file
    check_graph(base_graph, base.graph)
    extent = built.graph.profile.usual
    names = signature(reference, built.graph.part, extent, built.graph.features)
    engine = Engine(library, read_plan(path, base), names, device, path.name)
    wide = example(reference, built.graph.part, extent, seed=1)
    given = {name: tensor.to(DTYPES[built.graph.dtype]) for name, tensor in wide.items()}
    there = {name: tensor.to(device.device) for name, tensor in given.items()}
    before = engine(there)
    engine.refit(graph)
    worst = _worst(_expected(reference, built.graph, given), engine(there))
    if not worst <= (allowed := TOLERANCE[built.graph.dtype]):
        raise ExportError(
            f"{path.name}, refitted with {graph.name}, is {worst:.1e} off PyTorch, {allowed:.0e} is allowed; build it anew"
        )
    engine.refit(base_graph)
    again = engine(there)
    if not all(torch.equal(before[name], again[name]) for name in before):
        raise ExportError(
            f"{path.name}, refitted there and back, is not what it was; build the plan of {graph.name} anew"
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
    """A plan that differs from `built` in the adapter alone."""
    for path in sorted(folder.glob(f"{built.graph.part}*.refittable{SUFFIX}")):
        found, _ = about_plan(path)
        if (
            dataclasses.replace(
                found, graph=dataclasses.replace(found.graph, adapter=built.graph.adapter)
            )
            == built
        ):
            return path, found
    raise ExportError(
        f"no refittable plan of {built.graph.part} for {built.graph.profile} lies in {str(folder)!r}; make one with --refittable"
    )


def _expected(reference: Model, graph: GraphId, given: dict[str, Tensor]) -> tuple[Tensor, ...]:
    with torch.no_grad():
        part = part_of(reference, reference.unet, graph.part, graph.features)
        found = part(*(tensor.float() for tensor in given.values()))
    return (found,) if isinstance(found, Tensor) else tuple(found)


def _worst(expected: tuple[Tensor, ...], found: dict[str, Tensor]) -> float:
    pairs = zip(expected, found.values(), strict=True)
    return max(
        float((mine.cpu().double() - right.double()).norm() / right.double().norm())
        for right, mine in pairs
    )
