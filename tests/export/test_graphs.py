"""Exported graphs: what they are called, what they compute, and that a wrong one is not kept."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from dragnoise.engine import Adapter, ExportError
from dragnoise.engine.diffusion.load import load
from dragnoise.engine.diffusion.lora.adapter import AdapterUse
from dragnoise.engine.diffusion.lora.merge import Adapters
from dragnoise.engine.exported import EXPORTABLE, Extent, graph_id, part_of, signature
from dragnoise.export import check as check_module
from dragnoise.export.check import TOLERANCE, check
from dragnoise.export.inputs import example
from dragnoise.export.models import in_float32, in_precision, model_for_export
from dragnoise.export.onnx import OPSET, export_graph, kept_graph
from exported_parts import DYNAMIC, HEIGHT, WIDTH, at, golden, graphs, noise, reference
from golden_cases import MODEL
from small_models import sd2

SMALL = at(HEIGHT, WIDTH)


def run(path: Path, given: dict[str, Tensor]) -> dict[str, Tensor]:
    session = onnxruntime.InferenceSession(str(path))
    names = [output.name for output in session.get_outputs()]
    return dict(
        zip(
            names,
            map(torch.from_numpy, session.run(names, {k: v.numpy() for k, v in given.items()})),
            strict=True,
        )
    )


@pytest.mark.parametrize("part", EXPORTABLE)
def test_a_graph_says_what_it_is(exported: Path, part: str) -> None:
    path, graph = graphs(exported, (part,), SMALL)[part]
    model = onnx.load(str(path), load_external_data=False)
    onnx.checker.check_model(str(path))
    names = signature(golden(), part, SMALL.usual)

    def shapes(values: Any) -> dict[str, tuple[int, ...]]:
        return {
            one.name: tuple(axis.dim_value for axis in one.type.tensor_type.shape.dim)
            for one in values
        }

    assert shapes(model.graph.input) == dict(names.inputs)
    assert shapes(model.graph.output) == dict(names.outputs)
    assert {one.type.tensor_type.elem_type for one in model.graph.input} == {onnx.TensorProto.FLOAT}
    assert [one.version for one in model.opset_import if one.domain in ("", "ai.onnx")] == [OPSET]
    metadata = {one.key: one.value for one in model.metadata_props}
    assert {metadata[f"dragnoise.{name}"] for name in ("part", "model", "dtype")} == {
        part,
        graph.model,
        "fp32",
    }
    assert json.loads(metadata["dragnoise.profile"])["usual"] == {
        "height": HEIGHT,
        "width": WIDTH,
        "batch": 1,
    }
    assert metadata["dragnoise.prediction"] == "epsilon"
    assert set(json.loads(metadata["dragnoise.versions"])) >= {"torch", "onnx", "dragnoise"}
    files = {one.name for one in exported.glob(f"{graph.stem}*")} - {f"{graph.stem}.lock"}
    assert files >= {graph.file, f"{graph.file}.data", f"{graph.stem}.json"}
    report = kept_graph(exported, graph)
    assert report is not None
    assert 0 < report["check"]["worst"] <= 1e-5


@pytest.mark.parametrize(("dtype", "part"), [("fp16", "middle"), ("bf16", "down")])
def test_half_precision_is_in_the_graph(exported: Path, dtype: str, part: str) -> None:
    """Inputs, outputs and weights; norms stay float32, and so does a float16 model's VAE."""
    path, graph = graphs(exported, (part,), SMALL, dtype)[part]
    model = onnx.load(str(path))
    wanted = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}[dtype]
    assert {
        one.type.tensor_type.elem_type for one in (*model.graph.input, *model.graph.output)
    } == {wanted}
    big = [one for one in model.graph.initializer if np.prod(one.dims) > 1000]
    assert big
    assert {one.data_type for one in big} == {wanted}
    report = kept_graph(exported, graph)
    assert report is not None
    assert 1e-6 < report["check"]["worst"] <= TOLERANCE[dtype]
    assert ("widened" in report["check"]["ran_by"]) == (dtype == "bf16")
    vae = graph_id(golden(dtype), "vae-decoder", SMALL)
    assert vae.dtype == {"fp16": "fp32", "bf16": "bf16"}[dtype]


def test_features_beside_the_prediction(exported: Path) -> None:
    path, graph = graphs(exported, ("up",), SMALL, features=2)["up"]
    given = example(reference(), "up", SMALL.usual, seed=5)
    found = run(path, given)
    with torch.no_grad():
        features, eps = part_of(golden(), golden().unet, "up", 2)(*given.values())
    torch.testing.assert_close(found["features"], features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["eps"], eps, rtol=1e-4, atol=1e-4)
    assert "up-features2." in graph.file


def test_the_pieces_are_the_whole(exported: Path) -> None:
    """down, middle and up in a row are unet; with another bottleneck, unet-replaced."""
    found = graphs(exported, ("down", "middle", "up", "unet", "unet-replaced"), SMALL)
    given = example(reference(), "unet", SMALL.usual, seed=2)
    told = {name: given[name] for name in ("times", "text_kv")}
    down = run(found["down"][0], given)
    bottleneck = run(found["middle"][0], {"bottom": down.pop("bottom"), **told})
    eps = run(found["up"][0], {**bottleneck, **down, **told})["eps"]
    torch.testing.assert_close(eps, run(found["unet"][0], given)["eps"], rtol=1e-4, atol=1e-5)
    other = {
        "bottleneck": bottleneck["bottleneck"] + noise(*bottleneck["bottleneck"].shape, seed=4)
    }
    eps = run(found["up"][0], {**other, **down, **told})["eps"]
    torch.testing.assert_close(
        eps, run(found["unet-replaced"][0], {**given, **other})["eps"], rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_a_dynamic_graph_runs_at_any_extent(exported: Path) -> None:
    """Batch, height and width; the sizes of skips are linked, and the graph says so."""
    path, graph = graphs(exported, ("up",), DYNAMIC)["up"]
    for extent in (Extent(64, 64), Extent(128, 64, 2), Extent(128, 128)):
        given = example(reference(), "up", extent, seed=6)
        with torch.no_grad():
            eps = part_of(golden(), golden().unet, "up")(*given.values())
        torch.testing.assert_close(run(path, given)["eps"], eps, rtol=1e-4, atol=1e-4)
    model = onnx.load(str(path), load_external_data=False)
    axes = {
        one.name: [axis.dim_param or axis.dim_value for axis in one.type.tensor_type.shape.dim]
        for one in model.graph.input
    }
    assert axes["bottleneck"][2:] == ["high", "wide"]
    assert axes["skip_0"][2:] == ["8*high", "8*wide"]
    report = kept_graph(exported, graph)
    assert report is not None
    assert len(report["check"]["extents"]) >= 3


def test_stable_diffusion_2x(tmp_path: Path) -> None:
    """Linear projections, and the prediction of v. (The embedded model: test_export_command.py.)"""
    model = model_for_export(sd2(tmp_path / "sd2"), "fp32")
    path, report = export_graph(model, "middle", SMALL, tmp_path)
    assert report["check"]["worst"] < 1e-5
    graph = onnx.load(str(path), load_external_data=False)
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    assert metadata["dragnoise.prediction"] == "v_prediction"


def test_a_merged_adapter_is_in_the_weights(exported: Path, tmp_path: Path) -> None:
    name = next(
        name
        for name, _ in golden().unet.network.mid_block.named_modules()
        if name.endswith("attn1.to_q")
    )
    layer = golden().unet.network.mid_block.get_submodule(name)
    width, out = layer.in_features, layer.out_features
    matrices = (f"mid_block.{name}", noise(2, width), noise(out, 2, seed=1))
    file = Adapter((matrices,)).save(tmp_path / "adapter.safetensors")
    model = model_for_export(MODEL, "fp32", adapter=file, adapter_scale=0.5)
    path, report = export_graph(model, "middle", SMALL, tmp_path)
    assert report["graph"]["adapter"]
    plain = load(MODEL, device="cpu")
    given = example(reference(), "middle", SMALL.usual)
    with torch.no_grad():
        before = plain.unet.part_middle(*given.values())
        with Adapters(plain).active(AdapterUse(Adapter.load(file), 0.5)):
            after = plain.unet.part_middle(*given.values())
    found = run(path, given)["bottleneck"]
    torch.testing.assert_close(found, after, rtol=1e-4, atol=1e-4)
    assert (after - before).abs().max() > 1e-2


def test_half_of_a_model_is_the_half_that_is_loaded() -> None:
    """What is exported for a GPU on a CPU has the digest that the editor's model has there."""
    bf16 = load(MODEL, device="cpu", dtype="bfloat16")
    assert (
        in_precision(load(MODEL, device="cpu"), torch.bfloat16).weights.digest
        == bf16.weights.digest
    )
    fp16 = model_for_export(MODEL, "fp16")
    assert (fp16.dtype, fp16.vae.dtype) == (torch.float16, torch.float32)
    wide = in_float32(fp16)
    assert (wide.dtype, wide.vae.dtype) == (torch.float32, torch.float32)
    assert wide.weights.digest == fp16.weights.digest
    weight, wider = (one.unet.network.conv_in.weight for one in (fp16, wide))
    assert torch.equal(weight.float(), wider)


# A graph that is not right.


def test_a_wrong_graph_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is with PyTorch's own operators, not with those that the graph is made of."""
    from dragnoise.engine.exported import spelling as operators

    class Wrong(operators._Norm):
        def __call__(self, hidden: Tensor) -> Tensor:
            return super().__call__(hidden) * 1.01

    monkeypatch.setattr(
        "dragnoise.export.onnx.SPELLED", dataclasses.replace(operators.SPELLED, norm=Wrong)
    )
    with pytest.raises(
        ExportError,
        match=r"the graph of middle is not kept: "
        r"its output bottleneck is .* off PyTorch's at 128x64-b1",
    ):
        export_graph(golden(), "middle", SMALL, tmp_path, reference=reference())
    assert not list(tmp_path.iterdir())


def test_a_graph_that_does_not_run_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dragnoise.export import onnx as module

    write = module._write

    def broken(model: Any, graph: Any, reference: Any, path: Path) -> None:
        write(model, graph, reference, path)
        path.write_bytes(path.read_bytes()[:-200])

    monkeypatch.setattr(module, "_write", broken)
    with pytest.raises(ExportError, match="cannot be run"):
        export_graph(golden(), "middle", SMALL, tmp_path, reference=reference())
    assert not list(tmp_path.iterdir())


def test_nan_is_a_difference(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, graph = graphs(exported, ("middle",), SMALL)["middle"]
    session = check_module._session

    def poisoned(path: Path) -> Any:
        real = session(path)

        class Session:
            def run(self, names: list[str], given: Any) -> list[Any]:
                return [array * np.nan for array in real.run(names, given)]

        return Session()

    monkeypatch.setattr(check_module, "_session", poisoned)
    with pytest.raises(ExportError, match="bottleneck is inf off"):
        check(path, graph, reference())


def test_what_is_there_is_not_made_again(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, graph = graphs(exported, ("middle",), SMALL)["middle"]
    monkeypatch.setattr(
        "dragnoise.export.onnx._write", lambda *given: pytest.fail("it was made again")
    )
    assert export_graph(golden(), "middle", SMALL, exported)[0] == path
    assert kept_graph(exported, dataclasses.replace(graph, code="f" * 64)) is None


def test_half_a_graph_is_made_again(exported: Path, tmp_path: Path) -> None:
    import shutil

    _, graph = graphs(exported, ("middle",), SMALL)["middle"]
    for file in exported.glob(f"{graph.stem}*"):
        shutil.copy(file, tmp_path)
    data = tmp_path / f"{graph.file}.data"
    data.write_bytes(data.read_bytes()[:-1])
    assert kept_graph(tmp_path, graph) is None
    export_graph(golden(), "middle", SMALL, tmp_path, reference=reference())
    assert kept_graph(tmp_path, graph) is not None
    assert data.read_bytes() == (exported / f"{graph.file}.data").read_bytes()


def test_what_pytorch_cannot_export_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexportable(*given: Tensor) -> Tensor:
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr("dragnoise.export.onnx.part_of", lambda *given: unexportable)
    with pytest.raises(
        ExportError, match=r"PyTorch .* cannot export middle \(.*no such operator.*\)"
    ):
        export_graph(golden(), "middle", SMALL, tmp_path, reference=reference())
    assert not list(tmp_path.iterdir())


def test_without_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ExportError,
        match=r"onnx, onnxscript, onnxruntime is not installed; pip install 'dragnoise\[onnx\]'",
    ):
        export_graph(golden(), "middle", SMALL, tmp_path)
