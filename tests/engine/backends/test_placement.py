"""Edits through exported parts are PyTorch's; what is missing or wrong is said before use."""

import dataclasses
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dragnoise.engine import Adapter, BackendError, Editor, PlanError
from dragnoise.engine.backends import Artefacts, Placement, choose
from dragnoise.engine.backends.assemble import CapturedWhile
from dragnoise.engine.backends.exported_parts import ExportedParts
from dragnoise.engine.backends.verdicts import Verdicts
from dragnoise.engine.diffusion.load import load
from dragnoise.engine.diffusion.model import LoadedFrom, Model
from dragnoise.engine.diffusion.parts import MIDDLE, UP, VAE_DECODER
from dragnoise.engine.exported import OF_AN_EDIT, Extent, graph_id
from dragnoise.engine.system.cuda_graphs import NullGraph
from dragnoise.export.__main__ import main
from exported_parts import (
    DYNAMIC,
    HEIGHT,
    QUICK,
    WIDTH,
    assert_same_edit,
    at,
    by_pytorch,
    edited,
    golden,
    graphs,
    model,
    noise,
    picture,
)
from golden_cases import MODEL

# Whole edits.


@pytest.fixture(scope="module")
def folder(exported: Path) -> Path:
    graphs(exported, OF_AN_EDIT, at(HEIGHT, WIDTH))
    return exported


def test_an_edit_through_exported_graphs(folder: Path) -> None:
    editor = Editor(model(), backend="onnxruntime", exported=folder)
    result = edited(editor)
    assert_same_edit(result, by_pytorch())
    drag = editor.running.placement.drag
    assert (
        editor.running.backend
        == f"drag={drag},down=onnxruntime,middle=onnxruntime,up=onnxruntime,vae=onnxruntime"
    )
    opened = result.settings["exported"]["onnxruntime"]
    assert sorted(one["file"].split(".")[0] for one in opened) == sorted(OF_AN_EDIT)
    assert all(one["bytes"] > 1000 for one in opened)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("drag=eager,down=onnxruntime", {"down"}),
        ("drag=eager,middle=onnxruntime", {"middle"}),
        ("drag=eager,up=onnxruntime", {"up"}),
        ("drag=eager,vae=onnxruntime", {"vae-encoder", "vae-decoder"}),
        ("drag=eager,down=packed,up=onnxruntime", {"up"}),
    ],
)
def test_any_part_of_an_edit(folder: Path, text: str, parts: set[str]) -> None:
    result = edited(Editor(model(), backend=text, exported=folder))
    assert_same_edit(result, by_pytorch())
    assert {
        one["file"].split(".")[0] for one in result.settings["exported"]["onnxruntime"]
    } == parts


def test_whole_passes_as_one_part_each(folder: Path) -> None:
    graphs(folder, ("unet", "unet-replaced"), at(HEIGHT, WIDTH))
    result = edited(
        Editor(model(), backend=Placement(drag="eager", unet="onnxruntime"), exported=folder)
    )
    assert_same_edit(result, by_pytorch())
    files = {one["file"].split(".")[0] for one in result.settings["exported"]["onnxruntime"]}
    assert files == {"unet", "unet-replaced"}


def test_a_guided_edit_runs_batches_of_two(folder: Path) -> None:
    graphs(folder, ("middle",), at(HEIGHT, WIDTH, 2))  # other parts: the dynamic files' test
    editor = Editor(model(), backend="drag=eager,middle=onnxruntime", exported=folder)
    guided = edited(editor, QUICK.replace(guidance=3.0), negative_prompt="a disc")
    assert_same_edit(guided, by_pytorch(3.0))
    assert all("-b2." in one["file"] for one in guided.settings["exported"]["onnxruntime"])


@pytest.mark.slow
def test_one_dynamic_file_serves_every_size(exported: Path, tmp_path: Path) -> None:
    for path, graph in graphs(exported, OF_AN_EDIT, DYNAMIC).values():
        for ending in (".onnx", ".onnx.data", ".json"):
            shutil.copy(path.parent / f"{graph.stem}{ending}", tmp_path)
    editor = Editor(model(), backend="onnxruntime", exported=tmp_path)
    assert_same_edit(edited(editor), by_pytorch())
    guided = edited(editor, QUICK.replace(guidance=3.0), negative_prompt="a disc")
    assert_same_edit(guided, by_pytorch(3.0))
    plain = Editor(model(), backend="eager")
    for size in ((128, 64), (128, 128)):
        mine, theirs = (
            one.edit(picture(*size), "50,30:40,40", config=QUICK, record=True)
            for one in (editor, plain)
        )
        assert_same_edit(mine, theirs)
    for height, width in (
        (64, 192),
        (72, 104),
    ):  # outside the range; maps that do not halve without a remainder
        with pytest.raises(PlanError, match=f"no onnx of vae-encoder for {width}x{height}-b1"):
            editor.edit(picture(height, width), "50,30:40,40", config=QUICK)


def test_odd_sizes_have_files_of_their_own(exported: Path) -> None:
    """Where maps do not halve evenly, the middle block's file is that of the next full size."""
    graphs(exported, OF_AN_EDIT, at(72, 104))
    pair = [Editor(model(), backend=name, exported=exported) for name in ("onnxruntime", "eager")]
    mine, theirs = (
        one.edit(picture(70, 101), "50,30:40,40", config=QUICK, record=True) for one in pair
    )
    assert_same_edit(mine, theirs)


def test_a_gradient_is_pytorchs(folder: Path) -> None:
    """Exported parts have none: who asks for one, of any part, is served by the drag's backend."""
    served = Editor(model(), backend="onnxruntime", exported=folder).model
    unet, plain = served.unet, model().unet
    text = noise(1, 77, plain.network.config["cross_attention_dim"])
    step, latent = plain.step(481, text), noise(1, 4, HEIGHT // 8, WIDTH // 8)
    mine, theirs = latent.clone().requires_grad_(), latent.clone().requires_grad_()
    for leaf, network in ((mine, unet), (theirs, plain)):
        (network(leaf, step) ** 2).sum().backward()
    assert mine.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4)
    down = unet.down(latent, step)
    features = unet.up(down, unet.middle(down), feature_block=2).features
    expected = plain.up(
        plain.down(latent, step), plain.middle(plain.down(latent, step)), feature_block=2
    ).features
    assert features is not None
    assert expected is not None
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


def test_results_belong_to_the_caller(folder: Path) -> None:
    """A second call writes nowhere near the first one's outputs."""
    parts = Editor(model(), backend="onnxruntime", exported=folder).running.exported["onnxruntime"]
    decoder = parts.function(VAE_DECODER)
    one = decoder(noise(1, 4, HEIGHT // 8, WIDTH // 8))
    kept = one.clone()
    decoder(noise(1, 4, HEIGHT // 8, WIDTH // 8, seed=1))
    assert torch.equal(one, kept)
    one.zero_()
    assert torch.equal(decoder(noise(1, 4, HEIGHT // 8, WIDTH // 8)), kept)


# An adapter.


def adapter_of(file: Path, seed: int = 0) -> Path:
    network = model().unet.network
    matrices = []
    for name, module in network.named_modules():
        if name.endswith(("attn1.to_q", "attn2.to_v")):
            down, up = (
                noise(2, module.in_features, seed=seed),
                noise(module.out_features, 2, seed=seed + 1),
            )
            matrices.append((name, down * 0.2, up * 0.2))
    return Adapter(tuple(sorted(matrices))).save(file)


@pytest.mark.slow
def test_an_adapter_has_files_of_its_own(folder: Path, tmp_path: Path) -> None:
    """No file of one adapter ever serves another.

    What is missing is made by the command in the message, with the adapter.
    """
    shutil.copytree(folder, tmp_path / "exported", ignore=shutil.ignore_patterns("*.lock"))
    file = adapter_of(tmp_path / "ring.safetensors")
    editor = Editor(
        load(MODEL, device="cpu"),
        backend="drag=eager,middle=onnxruntime",
        exported=tmp_path / "exported",
    )
    assert_same_edit(edited(editor), by_pytorch())
    with pytest.raises(PlanError, match="make it with: ") as missing:
        edited(editor, adapter=file, adapter_scale=0.5)
    command = shlex.split(str(missing.value).split("make it with: ")[1])
    assert command[1:3] == ["-m", "dragnoise.export"]
    assert main([*command[3:], "--part", "middle"]) == 0
    expected = edited(
        Editor(load(MODEL, device="cpu"), backend="eager"), adapter=file, adapter_scale=0.5
    )
    found = edited(editor, adapter=file, adapter_scale=0.5)
    assert_same_edit(found, expected)
    assert (
        np.abs(expected.image.pixels.astype(int) - by_pytorch().image.pixels.astype(int)).max() > 2
    )
    assert_same_edit(edited(editor), by_pytorch())
    with pytest.raises(
        PlanError, match=r"lies in no file to make it of: save it with Adapter.save"
    ):
        edited(editor, adapter=dataclasses.replace(Adapter.load(file), file=""), adapter_scale=0.25)


# What is missing, and what is wrong.


def test_what_is_missing_is_said_with_its_command(tmp_path: Path) -> None:
    editor = Editor(model(), backend="onnxruntime", exported=tmp_path / "none")
    with pytest.raises(PlanError, match="no onnx of vae-encoder for 128x64-b1 lies in") as missing:
        edited(editor)
    command = shlex.split(str(missing.value).split("make it with: ")[1])
    assert command[3:] == [
        "onnx",
        str(MODEL),
        *["--size", "128x64", "--batch", "1", "--dtype", "fp32", "-o"],
        str(tmp_path / "none"),
    ]


def test_the_command_loads_the_same_model(tmp_path: Path) -> None:
    """A configuration beside a checkpoint, a variant, a pickle: none is left out."""
    shutil.copytree(MODEL, tmp_path / "model")
    for file in (tmp_path / "model").rglob("*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    loaded = load(tmp_path / "model", device="cpu", variant="fp16", allow_pickle=True)
    with pytest.raises(PlanError, match="make it with: ") as missing:
        edited(Editor(loaded, backend="onnxruntime", exported=tmp_path / "none"))
    command = shlex.split(str(missing.value).split("make it with: ")[1])
    assert command[3:8] == ["onnx", str(tmp_path / "model"), "--variant", "fp16", "--allow-pickle"]
    assert main([*command[3:], "--part", "middle"]) == 0
    assert list((tmp_path / "none").glob("middle*.onnx"))
    there = load(tmp_path / "model", device="cpu", variant="fp16", config="there")
    assert there.loaded_from == LoadedFrom(tmp_path / "model", "there", "fp16")
    graph = graph_id(there, "down", at(64, 64))
    command = Artefacts(tmp_path).command("onnx", there, graph)
    assert command[4:7] == [str(tmp_path / "model"), "--model-config", "there"]


@pytest.mark.slow
def test_what_is_missing_is_made(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The VAE's halves are, by a process of its own; the other parts are there and left alone."""
    for path, graph in graphs(folder, ("down", "middle", "up"), at(HEIGHT, WIDTH)).values():
        for ending in (".onnx", ".onnx.data", ".json"):
            shutil.copy(path.parent / f"{graph.stem}{ending}", tmp_path)
    editor = Editor(
        model(), backend="drag=eager,vae=onnxruntime", exported=tmp_path, build_missing=True
    )
    assert_same_edit(edited(editor), by_pytorch())
    assert "is missing and is made now" in caplog.text
    assert len(list(tmp_path.glob("*.onnx"))) == len(OF_AN_EDIT)


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path, build_missing=True)
    with pytest.raises(PlanError, match=r"failed: dragnoise.export: error: "):
        artefacts.graph(
            dataclasses.replace(model(), loaded_from=LoadedFrom(tmp_path)), "down", Extent(64, 64)
        )
    with pytest.raises(
        PlanError, match="a pipeline lies in no folder to make it of: save it with save_pretrained"
    ):
        artefacts.graph(
            dataclasses.replace(model(), name="a pipeline", loaded_from=None),
            "down",
            Extent(64, 64),
        )


def test_files_of_another_are_refused(folder: Path, tmp_path: Path) -> None:
    """A file that was given this one's name; and one that is no graph."""
    mine = graphs(folder, ("vae-encoder",), at(HEIGHT, WIDTH))["vae-encoder"][0]
    other = graphs(folder, ("vae-decoder",), at(HEIGHT, WIDTH))["vae-decoder"][0]
    for ending in (".onnx", ".onnx.data", ".json"):
        shutil.copy(
            f"{other.with_suffix('')}{ending}", f"{(tmp_path / mine.name).with_suffix('')}{ending}"
        )
    editor = Editor(model(), backend="drag=eager,vae=onnxruntime", exported=tmp_path)
    with pytest.raises(
        PlanError, match="is another's: part is 'vae-decoder', wanted is 'vae-encoder'"
    ):
        edited(editor)
    for ending in (".onnx", ".onnx.data", ".json"):
        shutil.copy(f"{mine.with_suffix('')}{ending}", tmp_path)
        shutil.copy(f"{other.with_suffix('')}{ending}", tmp_path)
    data = tmp_path / f"{mine.name}.data"
    raw = data.read_bytes()
    data.write_bytes(raw[:-1])
    with pytest.raises(PlanError, match=r"is cut off: it has .* bytes of .*; export it again"):
        edited(editor)
    data.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(PlanError, match="is corrupt: its digest does not match; export it again"):
        edited(editor)
    mine_report = (tmp_path / mine.name).with_suffix(".json")
    mine_report.write_text("{}")
    with pytest.raises(PlanError, match=r"the report .* cannot be read"):
        edited(editor)
    data.write_bytes(raw)
    shutil.copy(mine.with_suffix(".json"), mine_report)
    edited(editor)


# Placements as data.


def test_a_placement_is_text_and_back() -> None:
    text = "drag=compiled,down=tensorrt,up=tensorrt,vae=tensorrt"
    placement = Placement(down="tensorrt", up="tensorrt", drag="compiled", vae="tensorrt")
    assert Placement.of(text) == placement
    assert str(placement) == text
    assert Placement.of("packed") == Placement(drag="packed")
    assert str(Placement.of("packed")) == "packed"


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("up=", "up= places nothing; write part=backend"),
        ("left=eager", "part one of drag, down, middle, up, unet, vae"),
        ("up=eager,up=packed", "places a part twice"),
        ("up=fast", "no backend 'fast'; known: packed, compiled, eager, tensorrt, onnxruntime"),
        ("drag=onnxruntime,up=eager", "onnxruntime gives no gradients, and a drag needs them"),
        ("drag=eager,vae=packed", "packed does not run the VAE"),
        ("drag=eager,unet=packed", "unet=packed is no exported part"),
        ("tensorrt", "tensorrt: .*TensorRT runs on CUDA, the model is on cpu"),
        ("drag=eager,up=tensorrt", "TensorRT runs on CUDA"),
    ],
)
def test_placements_that_cannot_be(backend: str, words: str) -> None:
    with pytest.raises(BackendError, match=words):
        choose(model(), backend)


def test_onnxruntime_says_why_not() -> None:
    with pytest.raises(
        BackendError, match=r"onnxruntime runs float32 here, the model is torch.bfloat16"
    ):
        choose(load(MODEL, device="cpu", dtype="bfloat16"), "onnxruntime")


def test_shapes_that_do_not_belong_together_are_ours_to_tell(folder: Path) -> None:
    """Skips of another size, and times of several steps are refused by name."""
    parts = Editor(model(), backend="onnxruntime", exported=folder).running.exported["onnxruntime"]
    step = model().unet.step(481, noise(1, 77, model().unet.network.config["cross_attention_dim"]))
    down = model().unet.down(noise(1, 4, HEIGHT // 8, WIDTH // 8), step)
    wrong = (*down.skips[:3], down.skips[3][:, :, 1:], *down.skips[4:])
    with pytest.raises(BackendError, match=r"up takes skip_3 of shape \[1, .*\] at 128x64-b1, got"):
        parts.run(UP, down.bottom, wrong, step.times, step.text)
    with pytest.raises(BackendError, match="takes times of shape"):
        parts.run(MIDDLE, down.bottom, step.times[None], step.text)


# Open files, and captured passes that depend on them.


class _Fake:
    def __call__(self, inputs: Any) -> dict[str, Tensor]:
        return {"pixels": torch.zeros(1), "latent": torch.zeros(1)}

    def to_dict(self) -> dict[str, Any]:
        return {}


def test_the_last_files_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Extent] = []

    def load(path: Path, wanted: int, part: str, extent: Extent) -> _Fake:
        opened.append(extent)
        return _Fake()

    monkeypatch.setattr(ExportedParts, "KEPT", 2)
    server = ExportedParts(golden(), lambda part, extent: (Path(str(extent)), 0), load)
    for height in (8, 16, 8, 24, 8, 16):
        server.run(VAE_DECODER, torch.zeros(1, 4, height // 8, 1))
    assert [extent.height for extent in opened] == [8, 16, 24, 16]
    assert server.closed == 2
    assert len(server.files()) == 2


def test_a_captured_pass_is_forgotten_with_what_it_was_captured_of() -> None:
    """A graph replays addresses, which are wrong for another adapter's plan or a closed one."""
    valid, runs = ["one"], []

    class Replays:
        """Like a CUDA graph: it writes what was computed when it was captured."""

        def __init__(self, work: Any) -> None:
            work()

        def __call__(self) -> None: ...

    def run(given: Tensor) -> Tensor:
        runs.append(valid[0])
        return given * 2

    captured = CapturedWhile(run, Replays, lambda: valid[0])
    for _ in range(3):
        captured(torch.ones(2))
    assert runs == ["one", "one"]
    valid[0] = "two"
    for _ in range(3):
        captured(torch.ones(2))
    assert runs == ["one", "one", "two", "two"]
    assert torch.equal(
        CapturedWhile(run, NullGraph, lambda: None)(torch.ones(2)), torch.full((2,), 2.0)
    )


# Chosen by the clock.


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The golden model, made for pictures of 64 pixels: quick to time."""
    shutil.copytree(MODEL, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "unet" / "config.json").read_text())
    (tmp_path / "model" / "unet" / "config.json").write_text(
        json.dumps(config | {"sample_size": 8})
    )
    return tmp_path / "model"


def test_auto_measures_once(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dragnoise.engine.backends import fastest

    timed: list[float] = []
    took = iter([3.0, 5.0, *(4.0,) * 100])

    def ms(model: Model, work: Any) -> float:
        timed.append(next(took))
        work()
        return timed[-1]

    monkeypatch.setattr(fastest, "_ms", ms)
    first = Editor.from_pretrained(
        small, device="cpu", backend="auto", exported=tmp_path / "exported"
    )
    assert set(first.running.measured_ms) == {"drag", "down", "middle", "up", "vae"}
    count = len(timed)
    assert count
    again = Editor.from_pretrained(
        small, device="cpu", backend="auto", exported=tmp_path / "exported"
    )
    assert len(timed) == count
    assert again.running.measured_ms == first.running.measured_ms
    drags = first.running.measured_ms["drag"]
    assert (
        again.running.backend == first.running.backend == min(drags, key=lambda name: drags[name])
    )
    (kept,) = (tmp_path / "exported" / "measured").iterdir()
    kept.write_text("{}")
    Editor.from_pretrained(small, device="cpu", backend="auto", exported=tmp_path / "exported")
    assert len(timed) == 2 * count


def test_auto_takes_each_part_from_the_fastest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dragnoise.engine.backends import fastest

    times = {
        "drag": {"eager": 2.0},
        "down": {"eager": 2.0, "onnxruntime": 1.0},
        "middle": {"eager": 1.0, "onnxruntime": 2.0},
        "up": {"eager": 2.0},
        "vae": {"eager": 2.0, "onnxruntime": 1.0},
    }
    monkeypatch.setattr(fastest, "_measure", lambda *given: times)
    monkeypatch.setattr(Verdicts, "keep", lambda *given: None)
    editor = Editor(model(), backend="auto", exported=folder)
    assert editor.running.placement == Placement(
        drag="eager", down="onnxruntime", vae="onnxruntime"
    )
    result = edited(editor)
    assert_same_edit(result, by_pytorch())
    assert result.settings["measured_ms"] == times
