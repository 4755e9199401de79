"""Plans, built by TensorRT for RTX as it is on a machine without a GPU."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dragnoise.engine import ExportError
from dragnoise.engine.backends.tensorrt import library
from dragnoise.engine.errors import CancelledError
from dragnoise.engine.exported import EXPORTABLE, about_plan, graph_id, read_plan
from dragnoise.export.plans import build_plan, kept_plan, plan_id
from exported_parts import DYNAMIC, HEIGHT, WIDTH, at, golden, graphs, plans

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


@pytest.mark.parametrize(("dtype", "part"), [("fp16", "middle"), ("bf16", "down")])
def test_half_precision_builds(exported: Path, dtype: str, part: str) -> None:
    path, built = plans(exported, (part,), SMALL, dtype)[part]
    assert built.graph.dtype == dtype
    assert len(read_plan(path, built)) > 10_000


@pytest.mark.slow
def test_a_dynamic_plan_builds(exported: Path) -> None:
    """Skips of linked sizes; TensorRT is told least, usual and most of each, together."""
    path, built = plans(exported, ("up",), DYNAMIC)["up"]
    assert built.graph.profile == DYNAMIC
    assert "64x64-b1_to_128x128-b2" in path.name


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
    """Refittable plans cannot be built without one; neither can TensorRT's own plans."""
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
    """By device and version; the builder's configuration is a stand-in, as TensorRT is not here."""
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
