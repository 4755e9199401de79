"""An exported graph beside PyTorch: onnxruntime on the CPU runs the graph, PyTorch's eager operators run the model, on the same inputs.

PyTorch computes in float32 with the graph's own (rounded) weights and inputs, so that a half-precision graph is held to what its numbers mean. CPUs
have no bfloat16 operators in onnxruntime: a bfloat16 graph is run with every bfloat16 widened to float32, which checks all of it but its roundings.
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

from .inputs import example

__all__ = ["TOLERANCE", "check"]

TOLERANCE: Mapping[str, float] = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-4}
"""Allowed relative difference (L2) of every output. bf16: of the widened graph."""


def check(path: Path, graph: GraphId, reference: Model) -> dict[str, Any]:
    """The report: differences by extent and output, and how long both took. Raises ExportError where one is too large, or the graph does not run.

    reference: the model in float32. A dynamic graph is tried at its least and its usual extent, and turned by a quarter.
    """
    allowed = TOLERANCE[graph.dtype]
    with tempfile.TemporaryDirectory(prefix=".check-", dir=path.parent) as work:
        runnable = _widened(path, Path(work)) if graph.dtype == "bf16" else path
        session = _session(runnable)
        found = {
            str(extent): _differences(session, graph, reference, extent)
            for extent in _extents(graph)
        }
    for extent, one in found.items():
        for name, difference in one["relative"].items():
            if not difference <= allowed:
                off = f"its output {name} is {difference:.1e} off PyTorch's at {extent}, {allowed:.0e} is allowed"
                raise ExportError(f"the graph of {graph.part} is not kept: {off}")
    worst = max(difference for one in found.values() for difference in one["relative"].values())
    how = "onnxruntime, CPU" + (", widened to float32" if graph.dtype == "bf16" else "")
    return {
        "beside": "PyTorch eager, float32",
        "ran_by": how,
        "allowed": allowed,
        "worst": worst,
        "extents": found,
    }


def _extents(graph: GraphId) -> tuple[Extent, ...]:
    profile = graph.profile
    if not profile.dynamic:
        return (profile.usual,)
    usual, least = profile.usual, profile.least
    turned = Extent(usual.width, usual.height, usual.batch)
    oblong = Extent(least.height, usual.width, profile.most.batch)
    return tuple(
        dict.fromkeys(one for one in (least, usual, turned, oblong) if profile.covers(one))
    )


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as refused:  # its exceptions have no common base
        raise ExportError(
            f"the graph {path.name} cannot be run ({str(refused).splitlines()[0]}); it is not kept"
        ) from refused


def _differences(session: Any, graph: GraphId, reference: Model, extent: Extent) -> dict[str, Any]:
    names = signature(reference, graph.part, extent, graph.features)
    dtype = DTYPES[graph.dtype]
    given = {
        name: tensor.to(dtype)
        for name, tensor in example(reference, graph.part, extent, seed=1).items()
    }
    part = part_of(reference, reference.unet, graph.part, graph.features)
    started = time.perf_counter()
    with torch.no_grad():
        expected = part(*(tensor.float() for tensor in given.values()))
    between = time.perf_counter()
    fed = {
        name: (tensor.float() if graph.dtype == "bf16" else tensor).numpy()
        for name, tensor in given.items()
    }
    outputs = session.run(list(names.outputs), fed)
    ended = time.perf_counter()
    wanted = (expected,) if isinstance(expected, Tensor) else expected
    relative = {
        name: _relative(right, torch.from_numpy(output))
        for name, right, output in zip(names.outputs, wanted, outputs, strict=True)
    }
    times = {
        "eager_ms": round((between - started) * 1e3, 3),
        "onnxruntime_ms": round((ended - between) * 1e3, 3),
    }
    return {"relative": relative, **times}


def _relative(expected: Tensor, found: Tensor) -> float:
    if expected.shape != found.shape:
        raise ExportError(
            f"an output has shape {list(found.shape)}, expected {list(expected.shape)}; the graph is not kept"
        )
    expected, found = expected.double(), found.double()
    difference = float((expected - found).norm() / expected.norm().clamp(min=1e-30))
    return difference if math.isfinite(difference) else math.inf


def _widened(path: Path, work: Path) -> Path:
    """The graph with every bfloat16 as float32."""
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
