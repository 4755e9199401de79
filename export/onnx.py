"""A part of a model as an ONNX graph: strongly typed, weights beside it, compared with PyTorch before it is kept.

The graph's own metadata has its identity too, so that any tool can show what it is.
"""

import dataclasses
import importlib.util
import json
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.unet import UNet
from dragnoise.engine.errors import ExportError, OutputError, PlanError
from dragnoise.engine.exported import (
    SPELLED,
    Extent,
    GraphId,
    Profile,
    about_graph,
    check_graph,
    exported_vae,
    files_of,
    graph_id,
    multiple_px,
    part_of,
    precision_of,
    signature,
    write_report,
)
from dragnoise.engine.system.packages import EXPORTING, versions

from .check import check
from .inputs import example
from .models import in_float32
from .peak_memory import forget_peak, peak_of_process

__all__ = ["OPSET", "export_graph", "kept_graph"]

OPSET = 20


def export_graph(
    model: Model,
    part: str,
    profile: Profile,
    folder: Path,
    *,
    features: int | None = None,
    reference: Model | None = None,
) -> tuple[Path, dict[str, Any]]:
    """The graph's file in `folder`, and its report; where it is there already, as it is.

    reference: `in_float32(model)`, where several parts are exported. Raises ExportError where it does not agree with PyTorch: nothing is kept then.
    """
    if missing := [
        name
        for name in ("onnx", "onnxscript", "onnxruntime")
        if importlib.util.find_spec(name) is None
    ]:
        raise ExportError(f"{', '.join(missing)} is not installed; pip install 'dragnoise[onnx]'")
    graph = graph_id(model, part, profile, features)
    if (kept := kept_graph(folder, graph)) is not None:
        return folder / graph.file, kept
    reference = reference or in_float32(model)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".onnx-", dir=folder) as work:
        path = Path(work) / graph.file
        forget_peak()
        started = time.perf_counter()
        try:
            _write(model, graph, reference, path)
        except OSError as refused:
            raise OutputError(
                f"{graph.file} could not be written to {str(folder)!r} ({refused})"
            ) from refused
        report: dict[str, Any] = {
            "export_s": round(time.perf_counter() - started, 3),
            "peak_bytes": peak_of_process(),
        }
        report["versions"] = versions(EXPORTING)
        report["check"] = check(path, graph, reference)
        for file in reversed(files_of(path)):  # the weights first: where the graph is, they are
            shutil.move(file, folder / file.name)
    write_report(folder / graph.file, graph, report)
    return folder / graph.file, about_graph(folder / graph.file)[1]


def kept_graph(folder: Path, graph: GraphId) -> dict[str, Any] | None:
    """The report of a graph that is there already, whole; None where it is not."""
    try:
        return check_graph(folder / graph.file, graph)
    except PlanError:
        return None


class _Part(nn.Module):
    """What the exporter takes: a module. Weights are constants of the graph."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self._function(*inputs)


def _write(model: Model, graph: GraphId, reference: Model, path: Path) -> None:
    extent = _traced(model, graph.profile)
    names = signature(model, graph.part, extent, graph.features)
    dtype = precision_of(model, graph.part)
    given = tuple(tensor.to(dtype) for tensor in example(reference, graph.part, extent).values())
    spelled = dataclasses.replace(model, vae=exported_vae(model.vae), halves=None)
    part = part_of(spelled, UNet(model.unet.network, SPELLED), graph.part, graph.features)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                _Part(part).eval(),
                given,
                dynamo=True,
                input_names=list(names.inputs),
                output_names=list(names.outputs),
                dynamic_shapes=(_linked(names.inputs),) if graph.profile.dynamic else None,
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as failed:
        reason = str(failed.__cause__ or failed).strip().splitlines()[0]
        raise ExportError(
            f"PyTorch {torch.__version__} cannot export {graph.part} ({reason})"
        ) from failed
    assert program is not None
    program.model.metadata_props.update(_metadata(model, graph))
    program.save(str(path), external_data=True)


def _metadata(model: Model, graph: GraphId) -> dict[str, str]:
    """Every field of the identity by its name, so that any tool can show it, and what a user of the graph has to know."""
    said = {
        name: json.dumps(value) if isinstance(value, dict) else str(value)
        for name, value in graph.to_dict().items()
    }
    told = {
        "prediction": str(model.scheduler.get("prediction_type", "epsilon")),
        "scaling_factor": str(model.vae.config["scaling_factor"]),
        "model_name": model.name,
        "versions": json.dumps(versions(EXPORTING)),
    }
    return {f"dragnoise.{name}": value for name, value in (said | told).items()}


_SMALLEST = (3, 5)
"""Height and width of the smallest map that a dynamic graph is traced on, of a batch of 2: all different and none 1, or they would be constants."""


def _traced(model: Model, profile: Profile) -> Extent:
    """What a graph is traced on: its own extent, or for a dynamic one a small one."""
    if not profile.dynamic:
        return profile.usual
    multiple = multiple_px(model)
    return Extent(_SMALLEST[0] * multiple, _SMALLEST[1] * multiple, 2)


def _linked(inputs: Mapping[str, tuple[int, ...]]) -> tuple[dict[int, Any], ...]:
    """The axes that may change. A map's sides are multiples of the smallest map's: all sizes are linked."""
    batch, sides = torch.export.Dim("batch"), (torch.export.Dim("high"), torch.export.Dim("wide"))

    def axes(shape: tuple[int, ...]) -> dict[int, Any]:
        if len(shape) == 1:
            return {}
        counts = (
            side // smallest
            for side, smallest in zip(shape[2:], _SMALLEST, strict=False)
            if len(shape) == 4
        )
        maps = {
            axis: dim if count == 1 else count * dim
            for axis, count, dim in zip((2, 3), counts, sides, strict=False)
        }
        return {0: batch, **maps}

    return tuple(axes(shape) for shape in inputs.values())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's advice: what it makes is checked."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
