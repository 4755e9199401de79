"""Exported parts for what is measured: made on the CPU, whatever the model runs on."""

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
from dragnoise.export.plans import build_plan, plan_id

__all__ = ["builder", "make", "on_device"]


def builder() -> Library | None:
    """The TensorRT that is here, if any."""
    return None if objections_to_tensorrt() else library()


def make(
    model: Model,
    size: tuple[int, int],
    folder: Path,
    watch: Callable[[str], object],
    parts: Sequence[str] = OF_AN_EDIT,
) -> list[dict[str, Any]]:
    """Graphs of these parts for pictures of that (height, width), and plans where there is a TensorRT; figures of each."""
    there = on_device(model, torch.device("cpu"))
    reference, profile, trt = in_float32(there), Profile.at(Extent(*size)), builder()
    rows = []
    for part in parts:
        watch(f"exporting {part}")
        path, report = export_graph(there, part, profile, folder, reference=reference)
        made = {name: report[name] for name in ("bytes", "export_s", "peak_bytes")}
        row: dict[str, Any] = {"part": part, "onnx": made | {"error": report["check"]["worst"]}}
        if trt is not None:
            watch(f"building {part}")
            row["plan"] = build_plan(
                there, path, plan_id(graph_id(there, part, profile), trt), folder, trt
            )[1]
        rows.append(row)
    return rows


def on_device(model: Model, device: torch.device) -> Model:
    """The same weights there; the model itself where it is there already."""
    if model.device.type == device.type:
        return model
    weights = model.read()
    weights.digest  # noqa: B018 of the weights as they are known here
    networks = (
        copy.deepcopy(network) for network in (model.unet.network, model.vae, model.text_encoder)
    )
    unet, vae, text = (torch.nn.Module.to(network, device) for network in networks)
    return dataclasses.replace(
        model,
        unet=UNet(unet),
        vae=vae,
        text_encoder=text,
        device=device,
        weights=weights,
        halves=None,
    )
