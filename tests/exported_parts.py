"""Exported parts for the tests: made once for all processes of a run, each when it is first asked for."""

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock

from dragnoise.engine.backends.tensorrt import library
from dragnoise.engine.exported import Built, Extent, Graph, Profile, graph_of, write_plan
from dragnoise.engine.model import Model
from dragnoise.export.graphs import export_graph
from dragnoise.export.models import in_float32, model_for_export
from dragnoise.export.plans import build_plan, kept_plan, plan_of
from golden_cases import MODEL

EDIT = ("down", "middle", "up", "vae-encoder", "vae-decoder")
"""The parts that an edit runs."""


@cache
def golden(dtype: str = "fp32") -> Model:
    return model_for_export(MODEL, dtype)


@cache
def reference(dtype: str = "fp32") -> Model:
    return in_float32(golden(dtype))


def graphs(
    folder: Path, parts: Iterable[str], profile: Profile, dtype: str = "fp32", features: int | None = None
) -> dict[str, tuple[Path, Graph]]:
    """ONNX files of the golden model's parts, by part."""
    found = {}
    for part in parts:
        graph = graph_of(golden(dtype), part, profile, features)
        with FileLock(folder / f"{graph.stem}.lock"):
            path, _ = export_graph(golden(dtype), part, profile, folder, features=features, reference=reference(dtype))
        found[part] = path, graph
    return found


def plans(folder: Path, parts: Iterable[str], profile: Profile, dtype: str = "fp32") -> dict[str, tuple[Path, Built]]:
    """TensorRT for RTX's plans of these."""
    rtx, found = library("tensorrt_rtx"), {}
    for part, (path, graph) in graphs(folder, parts, profile, dtype).items():
        built = plan_of(graph, rtx)
        with FileLock(folder / f"{built.file}.lock"):
            if kept_plan(folder, built) is None:
                build_plan(golden(dtype), path, built, folder, rtx)
        found[part] = folder / built.file, built
    return found


def doubles(folder: Path, into: Path, parts: Iterable[str], profile: Profile) -> None:
    """Plans for the double (recording_tensorrt.py) in `into`: they name the ONNX file that it runs."""
    for path, graph in graphs(folder, parts, profile).values():
        write_plan(into, Built(graph, "tensorrt", "10.13", "none"), json.dumps({"onnx": str(path)}).encode(), {})


def at(height: int, width: int, batch: int = 1) -> Profile:
    return Profile.at(Extent(height, width, batch))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
