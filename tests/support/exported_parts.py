"""Exported parts for the tests, each made once for all processes of a run; edits to compare."""

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from dragnoise.engine import DragConfig, Editor
from dragnoise.engine.backends.tensorrt import library
from dragnoise.engine.diffusion.load import load
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.exported import Extent, GraphId, PlanId, Profile, graph_id, write_plan
from dragnoise.engine.session.result import EditResult
from dragnoise.export.models import in_float32, model_for_export
from dragnoise.export.onnx import export_graph
from dragnoise.export.plans import build_plan, kept_plan, plan_id
from golden_cases import MODEL


@cache
def golden(dtype: str = "fp32") -> Model:
    return model_for_export(MODEL, dtype)


@cache
def reference(dtype: str = "fp32") -> Model:
    return in_float32(golden(dtype))


def graphs(
    folder: Path,
    parts: Iterable[str],
    profile: Profile,
    dtype: str = "fp32",
    features: int | None = None,
) -> dict[str, tuple[Path, GraphId]]:
    """Return ONNX files of the golden model's parts, with their identities, by part."""
    found = {}
    for part in parts:
        graph = graph_id(golden(dtype), part, profile, features)
        with FileLock(folder / f"{graph.stem}.lock"):
            path, _ = export_graph(
                golden(dtype), part, profile, folder, features=features, reference=reference(dtype)
            )
        found[part] = path, graph
    return found


def plans(
    folder: Path, parts: Iterable[str], profile: Profile, dtype: str = "fp32"
) -> dict[str, tuple[Path, PlanId]]:
    """Return TensorRT for RTX's plans of these, with their identities, by part."""
    rtx = library("tensorrt_rtx")
    found = {}
    for part, (path, graph) in graphs(folder, parts, profile, dtype).items():
        built = plan_id(graph, rtx)
        with FileLock(folder / f"{built.file}.lock"):
            if kept_plan(folder, built) is None:
                build_plan(golden(dtype), path, built, folder, rtx)
        found[part] = folder / built.file, built
    return found


def doubles(folder: Path, into: Path, parts: Iterable[str], profile: Profile) -> None:
    """Write plans for the double (recording_tensorrt.py): they name the ONNX file that it runs."""
    for path, graph in graphs(folder, parts, profile).values():
        write_plan(
            into,
            PlanId(graph, "tensorrt", "10.13", "none"),
            json.dumps({"onnx": str(path)}).encode(),
            {},
        )


def at(height: int, width: int, batch: int = 1) -> Profile:
    return Profile.at(Extent(height, width, batch))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Edits to compare.

QUICK = DragConfig(steps=10, strength=0.3, iterations=3, lr=0.02)
HEIGHT, WIDTH = 64, 128
DYNAMIC = Profile(Extent(64, 64), Extent(HEIGHT, WIDTH), Extent(128, 128, 2))
"""The range of every dynamic file in the tests, so that each is made once."""


@cache
def model() -> Model:
    return load(MODEL, device="cpu")


def picture(height: int = HEIGHT, width: int = WIDTH) -> Any:
    return (np.random.default_rng(3).random((height, width, 3)) * 255).astype(np.uint8)


def edited(editor: Editor, config: DragConfig = QUICK, **changes: Any) -> EditResult:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[8:56] = True
    inputs: dict[str, Any] = {
        "points": "50,30:70,40",
        "mask": mask,
        "config": config,
        "record": True,
        "prompt": "a ring",
    }
    return editor.edit(picture(), **inputs | changes)


@cache
def by_pytorch(guidance: float = 1.0) -> EditResult:
    negative = {"negative_prompt": "a disc"} if guidance > 1 else {}
    return edited(Editor(model(), backend="eager"), QUICK.replace(guidance=guidance), **negative)


def assert_same_edit(mine: EditResult, theirs: EditResult) -> None:
    assert mine.record is not None
    assert theirs.record is not None
    assert torch.equal(mine.record.handles, theirs.record.handles)
    np.testing.assert_allclose(mine.history.losses, theirs.history.losses, rtol=1e-3)
    torch.testing.assert_close(mine.record.inverted, theirs.record.inverted, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        mine.record.final_latent, theirs.record.final_latent, rtol=0, atol=1e-3
    )
    assert np.abs(mine.image.pixels.astype(int) - theirs.image.pixels.astype(int)).max() <= 1
