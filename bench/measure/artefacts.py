"""Make exported parts for what is measured: on the CPU, whatever the model runs on."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dragnoise.engine.backends.tensorrt import Library, library, objections_to_tensorrt
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.unet import UNet
from dragnoise.engine.exported import OF_AN_EDIT, Extent, Profile, graph_id
from dragnoise.export.models import in_float32
from dragnoise.export.onnx import export_graph
from dragnoise.export.plans import build_plan, kept_plan, plan_id

__all__ = ["builder", "make", "on_device"]


def builder() -> Library | None:
    """Return the TensorRT that is installed here; None without one."""
    return None if objections_to_tensorrt() else library()


def make(
    model: Model,
    size: tuple[int, int],
    folder: Path,
    watch: Callable[[str], object],
    parts: Sequence[str] = OF_AN_EDIT,
) -> list[dict[str, Any]]:
    """Export parts as graphs, and build plans of them where there is a TensorRT.

    Args:
        model: The model.
        size: (height, width) of the pictures in pixels.
        folder: Takes the files; those that are in it already are not made again.
        watch: Called with what is made next.
        parts: Names of the parts.

    Returns:
        The figures of each part, as the record holds them.
    """
    on_cpu = on_device(model, torch.device("cpu"))
    reference = in_float32(on_cpu)
    profile = Profile.at(Extent(*size))
    trt = builder()
    rows = []
    for part in parts:
        watch(f"exporting {part}")
        path, report = export_graph(on_cpu, part, profile, folder, reference=reference)
        figures = {name: report[name] for name in ("bytes", "export_s", "peak_bytes")}
        row: dict[str, Any] = {"part": part, "onnx": figures | {"error": report["check"]["worst"]}}
        if trt is not None:
            watch(f"building {part}")
            row["plan"] = _plan(on_cpu, part, profile, path, folder, trt)
        rows.append(row)
    return rows


def _plan(
    model: Model, part: str, profile: Profile, graph: Path, folder: Path, trt: Library
) -> dict[str, Any]:
    """Build the plan of a graph, unless it is there; return the figures of its build."""
    identity = plan_id(graph_id(model, part, profile), trt)
    figures = kept_plan(folder, identity)
    if figures is None:
        _, figures = build_plan(model, graph, identity, folder, trt)
    return figures


def on_device(model: Model, device: torch.device) -> Model:
    """Return the model with its weights on a device: itself, or a copy."""
    if model.device.type == device.type:
        return model
    model.weights.freeze_digest()  # of the weights as they are known here
    unet, vae, text = (
        torch.nn.Module.to(copy.deepcopy(network), device)
        for network in (model.unet.network, model.vae, model.text_encoder)
    )
    return dataclasses.replace(
        model,
        unet=UNet(unet),
        vae=vae,
        text_encoder=text,
        device=device,
        halves=None,
    )
