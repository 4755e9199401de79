"""An exported graph compared with PyTorch on the same inputs.

onnxruntime runs the graph on the CPU, PyTorch's eager operators run the model. PyTorch computes in
float32 with the graph's own (rounded) weights and inputs, so that a half-precision graph is held to
what its numbers mean. onnxruntime has no bfloat16 operators for CPUs: a bfloat16 graph is run with
every bfloat16 widened to float32, which checks all of it but its roundings.
"""

import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.errors import ExportError
from dragnoise.engine.exported import DTYPES, Extent, GraphId, part_of, signature
from dragnoise.engine.system.incoming import told_as

from .inputs import example

__all__ = ["TOLERANCE", "check"]

TOLERANCE: Mapping[str, float] = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-4}
"""Allowed relative difference (L2) of every output. bf16: of the widened graph."""


def check(path: Path, graph: GraphId, reference: Model) -> dict[str, Any]:
    """Compare a graph with PyTorch and return the differences and times as a report.

    A dynamic graph is tried at its least and its usual extent, and turned by a quarter.

    Args:
        path: the graph's file.
        graph: what it should be.
        reference: the model in float32.

    Raises:
        ExportError: a difference is too large, or the graph does not run.
    """
    allowed = TOLERANCE[graph.dtype]
    with tempfile.TemporaryDirectory(prefix=".check-", dir=path.parent) as work:
        runnable = _widened(path, Path(work)) if graph.dtype == "bf16" else path
        session = _session(runnable)
        comparisons = {
            str(extent): _differences(session, graph, reference, extent)
            for extent in _extents(graph)
        }
    for extent, comparison in comparisons.items():
        for name, difference in comparison["relative"].items():
            if not difference <= allowed:
                raise ExportError(
                    f"the graph of {graph.part} is not kept: its output {name} is "
                    f"{difference:.1e} off PyTorch's at {extent}, {allowed:.0e} is allowed"
                )
    worst = max(
        difference
        for comparison in comparisons.values()
        for difference in comparison["relative"].values()
    )
    how = "onnxruntime, CPU" + (", widened to float32" if graph.dtype == "bf16" else "")
    return {
        "beside": "PyTorch eager, float32",
        "ran_by": how,
        "allowed": allowed,
        "worst": worst,
        "extents": comparisons,
    }


def _extents(graph: GraphId) -> tuple[Extent, ...]:
    """Return the extents at which a graph is tried."""
    profile = graph.profile
    if not profile.dynamic:
        return (profile.usual,)
    usual = profile.usual
    least = profile.least
    turned = Extent(usual.width, usual.height, usual.batch)
    oblong = Extent(least.height, usual.width, profile.most.batch)
    return tuple(
        dict.fromkeys(extent for extent in (least, usual, turned, oblong) if profile.covers(extent))
    )


def _session(path: Path) -> Any:
    """Return an onnxruntime session of the graph. Raises ExportError if it cannot be run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    with told_as(ExportError, f"the graph {path.name} cannot be run, and is not kept"):
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _differences(session: Any, graph: GraphId, reference: Model, extent: Extent) -> dict[str, Any]:
    """Return relative differences by output, and how long PyTorch and onnxruntime took."""
    names = signature(reference, graph.part, extent, graph.features)
    dtype = DTYPES[graph.dtype]
    inputs = {
        name: tensor.to(dtype)
        for name, tensor in example(reference, graph.part, extent, seed=1).items()
    }
    part = part_of(reference, reference.unet, graph.part, graph.features)
    started = time.perf_counter()
    with torch.no_grad():
        expected = part(*(tensor.float() for tensor in inputs.values()))
    between = time.perf_counter()
    fed = {
        name: (tensor.float() if graph.dtype == "bf16" else tensor).numpy()
        for name, tensor in inputs.items()
    }
    outputs = session.run(list(names.outputs), fed)
    ended = time.perf_counter()
    right = (expected,) if isinstance(expected, Tensor) else expected
    relative = {
        name: _relative(tensor, torch.from_numpy(output))
        for name, tensor, output in zip(names.outputs, right, outputs, strict=True)
    }
    times = {
        "eager_ms": round((between - started) * 1e3, 3),
        "onnxruntime_ms": round((ended - between) * 1e3, 3),
    }
    return {"relative": relative, **times}


def _relative(expected: Tensor, output: Tensor) -> float:
    """Return the relative difference (L2); infinity where something is not finite."""
    if expected.shape != output.shape:
        raise ExportError(
            f"an output has shape {list(output.shape)}, expected {list(expected.shape)}; "
            "the graph is not kept"
        )
    right = expected.double()
    difference = float((right - output.double()).norm() / right.norm().clamp(min=1e-30))
    return difference if math.isfinite(difference) else math.inf


def _widened(path: Path, work: Path) -> Path:
    """Write the graph with every bfloat16 as float32 and return its file."""
    import numpy as np
    import onnx
    from onnx import TensorProto, numpy_helper

    model = onnx.load(str(path))

    def widen(tensor: Any) -> None:
        if tensor.data_type == TensorProto.BFLOAT16:
            tensor.CopyFrom(
                numpy_helper.from_array(
                    numpy_helper.to_array(tensor).astype(np.float32), tensor.name
                )
            )

    def widen_type(value: Any) -> None:
        if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT

    graphs = [model.graph, *model.functions]
    for graph in graphs:
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    widen(attribute.t)
                if (
                    node.op_type == "Cast"
                    and attribute.name == "to"
                    and attribute.i == TensorProto.BFLOAT16
                ):
                    attribute.i = TensorProto.FLOAT
    for tensor in model.graph.initializer:
        widen(tensor)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        widen_type(value)
    target = work / "widened.onnx"
    onnx.save(model, str(target), save_as_external_data=True, location="widened.data")
    return target
