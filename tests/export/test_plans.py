"""Plans, built by TensorRT for RTX as it is on a machine without a GPU."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dragnoise.engine import ExportError
from dragnoise.engine.backends.tensorrt import library, objections_to_tensorrt
from dragnoise.engine.diffusion.load import EMBEDDED, load
from dragnoise.engine.errors import CancelledError
from dragnoise.engine.exported import EXPORTABLE, Extent, Profile, about_plan, graph_id, read_plan
from dragnoise.export.__main__ import main
from dragnoise.export.plans import build_plan, kept_plan, plan_id
from exported_parts import HEIGHT, WIDTH, at, golden, graphs, plans
from golden_cases import MODEL

SMALL = at(HEIGHT, WIDTH)
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.mark.parametrize("part", EXPORTABLE)
def test_every_part_builds(exported: Path, part: str) -> None:
    path, built = plans(exported, (part,), SMALL)[part]
    found, made = about_plan(path)
    assert found == built
    assert (built.flavour, built.target) == ("tensorrt_rtx", "any")
    assert made["bytes"] == len(read_plan(path, built)) > 10_000
    assert made["seconds"] > 0
    assert made["peak_bytes"] > made["bytes"]


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_builds(exported: Path, dtype: str) -> None:
    path, built = plans(exported, ("down",), SMALL, dtype)["down"]
    assert built.graph.dtype == dtype
    assert len(read_plan(path, built)) > 10_000


@pytest.mark.slow
def test_a_dynamic_plan_builds(exported: Path) -> None:
    """Skips of linked sizes; TensorRT is told least, usual and most of each, together."""
    profile = Profile(Extent(64, 64), Extent(64, 128), Extent(192, 192, 2))
    path, built = plans(exported, ("up",), profile)["up"]
    assert built.graph.profile == profile
    assert "64x64-b1_to_192x192-b2" in path.name


def test_the_same_graph_gives_the_same_plan(exported: Path, tmp_path: Path) -> None:
    graph, _ = graphs(exported, ("middle",), SMALL)["middle"]
    _, built = plans(exported, ("middle",), SMALL)["middle"]
    path, _ = build_plan(golden(), graph, built, tmp_path, library("tensorrt_rtx"))
    mine, theirs = read_plan(path, built), read_plan(exported / built.file, built)
    assert len(mine) == len(theirs)
    assert mine == theirs


def test_a_plan_for_one_card(exported: Path, tmp_path: Path) -> None:
    """Named, it is another plan; smaller than one for all cards."""
    graph, identity = graphs(exported, ("middle",), SMALL)["middle"]
    _, usual = plans(exported, ("middle",), SMALL)["middle"]
    rtx = library("tensorrt_rtx")
    built = plan_id(identity, rtx, target="sm89")
    path, made = build_plan(golden(), graph, built, tmp_path, rtx)
    assert path.name.endswith(".sm89.plan")
    assert read_plan(path, built) != read_plan(exported / usual.file, usual)
    assert made["bytes"] > 10_000
    with pytest.raises(ExportError, match="does not build for 'sm90' here; use any, sm75, sm80"):
        plan_id(identity, rtx, target="sm90")


def test_progress_and_cancelling(exported: Path, tmp_path: Path) -> None:
    graph, _ = graphs(exported, ("middle",), SMALL)["middle"]
    rtx = library("tensorrt_rtx")
    built = plan_id(graph_id(golden(), "middle", SMALL), rtx)
    seen: list[tuple[str, int, int]] = []

    def step(phase: str, done: int, count: int) -> bool:
        seen.append((phase, done, count))
        return True

    build_plan(golden(), graph, built, tmp_path, rtx, step)
    assert len({phase for phase, _, _ in seen}) > 3
    assert all(0 <= done <= count for _, done, count in seen)
    (tmp_path / built.file).unlink()
    seen.clear()

    def stop(phase: str, done: int, count: int) -> bool:
        seen.append((phase, done, count))
        return len(seen) < 5

    with pytest.raises(CancelledError, match="was cancelled; nothing was written"):
        build_plan(golden(), graph, built, tmp_path, rtx, stop)
    assert len(seen) < 20
    assert not list(tmp_path.iterdir())


def test_a_graph_that_tensorrt_refuses(exported: Path, tmp_path: Path) -> None:
    rtx = library("tensorrt_rtx")
    built = plan_id(graph_id(golden(), "middle", SMALL), rtx)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"tensorrt_rtx .* refuses the graph broken.onnx: "):
        build_plan(golden(), broken, built, tmp_path, rtx)
    assert [one.name for one in tmp_path.iterdir()] == ["broken.onnx"]


@without_gpu
def test_what_needs_a_gpu_says_so(exported: Path, tmp_path: Path) -> None:
    """Weights that can be replaced cannot be built without one; neither can TensorRT's own plans."""
    graph, _ = graphs(exported, ("middle",), SMALL)["middle"]
    rtx = library("tensorrt_rtx")
    built = plan_id(graph_id(golden(), "middle", SMALL), rtx, refittable=True)
    assert ".refittable." in built.file
    with pytest.raises(ExportError, match=r"tensorrt_rtx .* cannot build middle: .+"):
        build_plan(golden(), graph, built, tmp_path, rtx)
    other = dataclasses.replace(rtx, flavour="tensorrt")
    with pytest.raises(
        ExportError, match="builds on the device that a plan is for, and there is none here"
    ):
        build_plan(golden(), graph, plan_id(built.graph, other), tmp_path, other)
    assert not list(tmp_path.iterdir())


def test_what_tensorrt_has_timed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Per device and version (with a stand-in for the builder's configuration: TensorRT is not here)."""
    from dragnoise.export import plans as module

    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H100")
    given: list[bytes] = []
    config = SimpleNamespace(
        create_timing_cache=given.append, set_timing_cache=lambda cache, ignore_mismatch: None
    )
    trt = SimpleNamespace(flavour="tensorrt", version="10.13")
    path = module._timing_cache(trt, config, tmp_path)  # type: ignore[arg-type]
    assert path == tmp_path / "timings.nvidia-h100.tensorrt-10.13.cache"
    path.write_bytes(b"timed")
    module._timing_cache(trt, config, tmp_path)  # type: ignore[arg-type]
    assert given == [b"", b"timed"]
    rtx = SimpleNamespace(flavour="tensorrt_rtx", version="1.7")
    assert module._timing_cache(rtx, config, tmp_path) is None  # type: ignore[arg-type]


# The command line.


@pytest.mark.slow
def test_a_newcomer_exports_and_builds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The embedded model: two commands."""
    assert main(["onnx", "-o", str(tmp_path)]) == 0
    assert "vae-decoder" in capsys.readouterr().out
    assert main(["plan", "-o", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["part"] for one in said["files"]] == [
        "down",
        "middle",
        "up",
        "vae-encoder",
        "vae-decoder",
    ]
    model = load(EMBEDDED, device="cpu")
    rtx = library("tensorrt_rtx")
    for one in said["files"]:
        built = plan_id(graph_id(model, one["part"], at(128, 128)), rtx)
        assert one["plan"] == built.file
        assert len(read_plan(tmp_path / built.file, built)) == one["plan_bytes"]
        assert one["error"] < 1e-5
    assert main(["plan", "-o", str(tmp_path)]) == 0  # all there: at once
    capsys.readouterr()
    assert main(["ls", "-o", str(tmp_path)]) == 0
    assert "10 files in" in capsys.readouterr().out
    next(tmp_path.glob("down*.plan")).write_bytes(b"DRAGNOISE PLAN 1\n")
    next(tmp_path.glob("up*.json")).unlink()
    assert main(["ls", "-o", str(tmp_path), "--json"]) == 1
    broken = [
        one for one in json.loads(capsys.readouterr().out)["files"] if one["state"] == "broken"
    ]
    assert sorted(one["file"][:2] for one in broken) == ["do", "up"]
    assert all(one["reason"] for one in broken)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["onnx", "nowhere"], "no model at 'nowhere'"),
        (["onnx", str(MODEL), "--size", "100x100"], "sizes of this model are multiples of 8 pixels, got 100x100"),
        (["onnx", str(MODEL), "--dynamic", "64x64"], "not a size; write it as WxH, for example 512x768; write it as 256x256..768x768"),
        (["onnx", str(MODEL), "--dynamic", "64x64..96x96", "--size", "64x64"], "dynamic sizes of this model are multiples of 64"),
        (["onnx", str(MODEL), "--batch", "0", "--size", "64x64"], "batch must be 1 or more"),
        (["onnx", str(MODEL), "--adapter", "none.safetensors", "--size", "64x64"], "no adapter can be read from 'none.safetensors'"),
        (["plan", str(MODEL), "--flavour", "tensorrt"], "tensorrt cannot be imported"),
        (["onnx", str(MODEL), "--part", "up", "--features", "7", "--size", "64x64"], "blocks 0 to 3"),
    ],
)  # fmt: skip
def test_bad_arguments_are_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[-1] == "tensorrt" and not objections_to_tensorrt("tensorrt"):
        pytest.skip("it is installed here")
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("dragnoise.export: error: ")
    assert words in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.rglob("*.onnx"))


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_unfinished(tmp_path: Path) -> None:
    """A build that is stopped: exit code 130, what was finished stays, nothing else is there."""
    command = [
        sys.executable,
        "-m",
        "dragnoise.export",
        "plan",
        "--part",
        "up",
        "--dynamic",
        "-o",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("*.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "interrupted" in said
    left = [one.name for one in tmp_path.iterdir()]
    assert not [name for name in left if name.startswith(".") or name.endswith(".plan")]
    assert len([name for name in left if name.endswith(".onnx")]) == 1


# Full size.


@pytest.mark.full_size
def test_stable_diffusion_15_at_full_size(tmp_path: Path) -> None:
    """Random weights, float16, 512 x 512: minutes and 10 GB. Run by name: `pytest -m full_size`."""
    from dragnoise.bench.measure.models import model
    from dragnoise.export.models import in_float32, in_precision
    from dragnoise.export.onnx import export_graph

    sd15 = in_precision(model("sd15", "cpu", "float32"), torch.float16)
    wide, rtx, profile = in_float32(sd15), library("tensorrt_rtx"), at(512, 512)
    for part in EXPORTABLE:
        path, report = export_graph(sd15, part, profile, tmp_path, reference=wide)
        assert report["check"]["worst"] < 1e-2
        built = plan_id(graph_id(sd15, part, profile), rtx)
        _, made = build_plan(sd15, path, built, tmp_path, rtx)
        assert kept_plan(tmp_path, built) == made
        for file in tmp_path.iterdir():
            file.unlink()


def test_a_refitted_plan_has_no_peak_to_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dragnoise.export import __main__ as command_line

    made = {
        "plan": "a.plan",
        "plan_bytes": 2_000_000,
        "plan_seconds": 1.5,
        "plan_refitted_from": "b.plan",
    }
    command_line._print(
        [{"part": "up", "onnx_bytes": 1_000_000, "export_s": 2.0, "error": 1e-6, **made}], tmp_path
    )
    assert ["up", "1.0", "2.0", "1.0e-06", "2.0", "1.5"] in [
        line.split() for line in capsys.readouterr().out.splitlines()
    ]
