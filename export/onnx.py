"""A part of a model as an ONNX graph, compared with PyTorch before it is kept.

The graph is strongly typed, with its weights in a file beside it. Its own metadata has its identity
too, so that any tool can show what it is.
"""

import dataclasses
import importlib.util
import json
import logging
import shutil
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
from dragnoise.engine.system.files import unfinished_folder
from dragnoise.engine.system.packages import EXPORTING, versions

from .check import check
from .inputs import example
from .models import in_float32
from .peak_memory import forget_peak, peak_of_process

__all__ = ["OPSET", "export_graph", "kept_graph"]

OPSET = 20
"""The version of ONNX's operators that graphs are written in."""


def export_graph(
    model: Model,
    part: str,
    profile: Profile,
    folder: Path,
    *,
    features: int | None = None,
    reference: Model | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Export a part and return its file in `folder` and its report.

    A graph that is there already, whole, is left as it is.

    Args:
        model: the model in the precision that is exported.
        part: the part's name.
        profile: the sizes it is made for.
        folder: where the file goes.
        features: the up block whose map `up` gives too; None: no map.
        reference: `in_float32(model)`, made once where several parts are exported.

    Raises:
        ExportError: the graph cannot be made or does not agree with PyTorch; nothing is kept.
        OutputError: the folder cannot be written to.
    """
    _check_packages()
    graph = graph_id(model, part, profile, features)
    if (kept := kept_graph(folder, graph)) is not None:
        return folder / graph.file, kept
    reference = reference or in_float32(model)
    with unfinished_folder(folder) as work:
        path = work / graph.file
        report = _write_timed(model, graph, reference, path, folder)
        report["check"] = check(path, graph, reference)
        for file in reversed(files_of(path)):  # the weights first: where the graph is, they are
            shutil.move(file, folder / file.name)
    write_report(folder / graph.file, graph, report)
    return folder / graph.file, about_graph(folder / graph.file)[1]


def kept_graph(folder: Path, graph: GraphId) -> dict[str, Any] | None:
    """Return the report of a graph that is there already, whole; None where it is not."""
    try:
        return check_graph(folder / graph.file, graph)
    except PlanError:
        return None


def _check_packages() -> None:
    """Raises ExportError if a package that exporting needs is not installed."""
    missing = [
        name
        for name in ("onnx", "onnxscript", "onnxruntime")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ExportError(f"{', '.join(missing)} is not installed; pip install 'dragnoise[onnx]'")


def _write_timed(
    model: Model, graph: GraphId, reference: Model, path: Path, folder: Path
) -> dict[str, Any]:
    """Write the graph and return what it took. folder: where it will go, for the error."""
    forget_peak()
    started = time.perf_counter()
    try:
        _write(model, graph, reference, path)
    except OSError as error:
        raise OutputError(
            f"{graph.file} could not be written to {str(folder)!r} ({error})"
        ) from error
    return {
        "export_s": round(time.perf_counter() - started, 3),
        "peak_bytes": peak_of_process(),
        "versions": versions(EXPORTING),
    }


class _Part(nn.Module):
    """A part as a module, which is what the exporter takes. Weights are constants of the graph."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self._function(*inputs)


def _write(model: Model, graph: GraphId, reference: Model, path: Path) -> None:
    """Write the graph to `path`. Raises ExportError if PyTorch cannot export the part."""
    extent = _traced(model, graph.profile)
    names = signature(model, graph.part, extent, graph.features)
    dtype = precision_of(model, graph.part)
    inputs = tuple(tensor.to(dtype) for tensor in example(reference, graph.part, extent).values())
    spelled = dataclasses.replace(model, vae=exported_vae(model.vae), halves=None)
    part = part_of(spelled, UNet(model.unet.network, SPELLED), graph.part, graph.features)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                _Part(part).eval(),
                inputs,
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
    """Return every field of the identity by its name, and what a user of the graph has to know."""
    identity = {
        name: json.dumps(value) if isinstance(value, dict) else str(value)
        for name, value in graph.to_dict().items()
    }
    about = {
        "prediction": str(model.scheduler.get("prediction_type", "epsilon")),
        "scaling_factor": str(model.vae.config["scaling_factor"]),
        "model_name": model.name,
        "versions": json.dumps(versions(EXPORTING)),
    }
    return {f"dragnoise.{name}": value for name, value in (identity | about).items()}


_SMALLEST = (3, 5)
"""Height and width of the smallest map that a dynamic graph is traced on, with a batch of 2.

All three differ and none is 1, or the exporter would make constants of them."""


def _traced(model: Model, profile: Profile) -> Extent:
    """Return what a graph is traced on: its own extent, or for a dynamic one a small one."""
    if not profile.dynamic:
        return profile.usual
    multiple = multiple_px(model)
    return Extent(_SMALLEST[0] * multiple, _SMALLEST[1] * multiple, 2)


def _linked(inputs: Mapping[str, tuple[int, ...]]) -> tuple[dict[int, Any], ...]:
    """Return the axes of every input that may change.

    A map's sides are multiples of the smallest map's, so that all sizes are linked.
    """
    batch = torch.export.Dim("batch")
    sides = (torch.export.Dim("high"), torch.export.Dim("wide"))

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
    """Silence the exporter's advice: what it makes is checked."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
