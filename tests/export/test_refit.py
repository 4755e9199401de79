"""Plans for other weights without building anew: what is kept, and what is refused.

They run on the double (recording_tensorrt.py), which is not TensorRT.
"""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from dragnoise.engine import Adapter, ExportError, PlanError
from dragnoise.engine.backends.tensorrt import Library
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.exported import PlanId, about_plan, graph_id, read_plan, write_plan
from dragnoise.export.models import in_float32, model_for_export
from dragnoise.export.onnx import export_graph
from dragnoise.export.refit import refit_plan
from exported_parts import HEIGHT, WIDTH, at, graphs, noise, reference
from golden_cases import MODEL
from recording_tensorrt import OnCpu, Recording, double

SMALL = at(HEIGHT, WIDTH)


@pytest.fixture
def adapted(tmp_path: Path) -> Model:
    """The golden model with an adapter merged in its middle block."""
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    layer = reference().unet.network.get_submodule(name)
    matrices = (name, noise(2, layer.in_features), noise(layer.out_features, 2, seed=1))
    return model_for_export(
        MODEL, "fp32", adapter=Adapter((matrices,)).save(tmp_path / "adapter.safetensors")
    )


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A refittable plan of the plain model, and its graph."""
    path, graph = graphs(exported, ("middle",), SMALL)["middle"]
    there = tmp_path / "exported"
    there.mkdir()
    for ending in (".onnx", ".onnx.data", ".json"):
        (there / f"{graph.stem}{ending}").write_bytes(
            (exported / f"{graph.stem}{ending}").read_bytes()
        )
    plan = json.dumps({"onnx": str(there / path.name)}).encode()
    write_plan(there, PlanId(graph, "tensorrt", "10.13", "none", refittable=True), plan, {})
    return there


def refitted(model: Model, folder: Path) -> tuple[Recording, PlanId, Path]:
    module, recording = double()
    return (recording, *with_library(model, folder, Library("tensorrt", module, "10.13")))


def with_library(model: Model, folder: Path, library: Library) -> tuple[PlanId, Path]:
    path, _ = export_graph(model, "middle", SMALL, folder, reference=model)
    built = PlanId(graph_id(model, "middle", SMALL), "tensorrt", "10.13", "none", refittable=True)
    refit_plan(in_float32(model), path, built, folder, library, OnCpu())
    return built, path


def test_a_plan_is_refitted_with_an_adapter(adapted: Model, folder: Path) -> None:
    recording, built, graph = refitted(adapted, folder)
    assert recording.calls.count("refit_cuda_engine") == 3  # there, back, there
    assert json.loads(read_plan(folder / built.file, built))["onnx"] == str(graph)
    made = about_plan(folder / built.file)[1]
    assert made["error"] < 1e-5
    assert "adapter-none" in made["refitted_from"]


@pytest.mark.parametrize("call", ["refit_from_file", "refit_cuda_engine"])
def test_a_no_is_heard(adapted: Model, folder: Path, call: str) -> None:
    module, recording = double()
    recording.refuse.append(call)
    with pytest.raises(PlanError, match=r"another graph|weights are missing"):
        with_library(adapted, folder, Library("tensorrt", module, "10.13"))
    assert len(list(folder.glob("*.plan"))) == 1


def test_what_does_not_come_back_is_refused(adapted: Model, folder: Path) -> None:
    """A -> B -> A must be A (NVIDIA/TensorRT#3628)."""
    module, recording = double()
    recording.stuck = True
    with pytest.raises(ExportError, match="refitted there and back, is not what it was"):
        with_library(adapted, folder, Library("tensorrt", module, "10.13"))
    assert len(list(folder.glob("*.plan"))) == 1


def test_what_computes_something_else_is_refused(adapted: Model, folder: Path) -> None:
    module, _ = double()
    library = Library("tensorrt", module, "10.13")
    path, _ = export_graph(adapted, "middle", SMALL, folder, reference=adapted)
    built = PlanId(graph_id(adapted, "middle", SMALL), "tensorrt", "10.13", "none", refittable=True)
    with pytest.raises(ExportError, match="off PyTorch, 1e-03 is allowed; build it anew"):
        refit_plan(reference(), path, built, folder, library, OnCpu())
    assert len(list(folder.glob("*.plan"))) == 1


def test_without_a_plan_to_begin_with(adapted: Model, folder: Path) -> None:
    for plan in folder.glob("*.plan"):
        plan.rename(plan.with_name(plan.name.replace("10.13", "10.12")))
    module, _ = double()
    found = dataclasses.replace(Library("tensorrt", module, "10.13"), version="11.0")
    path, _ = export_graph(adapted, "middle", SMALL, folder, reference=adapted)
    built = PlanId(graph_id(adapted, "middle", SMALL), "tensorrt", "11.0", "none", refittable=True)
    with pytest.raises(
        ExportError,
        match=r"no refittable plan of middle for 128x64-b1 lies in .*; make one with --refittable",
    ):
        refit_plan(in_float32(adapted), path, built, folder, found, OnCpu())


@pytest.mark.gpu
@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt_rtx"])
def test_refitting_on_a_device(adapted: Model, tmp_path: Path, flavour: str) -> None:
    """The real library: whether it takes new weights, and gives the old ones back."""
    from dragnoise.engine.backends.tensorrt import Cuda, library, objections_to_tensorrt
    from dragnoise.export.plans import build_plan, plan_id

    if objections_to_tensorrt(flavour):
        pytest.skip(objections_to_tensorrt(flavour)[0])
    trt, there = library(flavour), tmp_path / "exported"
    base, _ = export_graph(reference(), "middle", SMALL, there, reference=reference())
    build_plan(
        reference(), base, plan_id(graph_id(reference(), "middle", SMALL), trt, True), there, trt
    )
    path, _ = export_graph(adapted, "middle", SMALL, there, reference=adapted)
    built = plan_id(graph_id(adapted, "middle", SMALL), trt, True)
    _, made = refit_plan(in_float32(adapted), path, built, there, trt, Cuda(torch.device("cuda")))
    assert made["error"] < 1e-3
