"""`python -m dragnoise.export`: what it makes, what it says, how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragnoise.engine.backends.tensorrt import library, objections_to_tensorrt
from dragnoise.engine.diffusion.load import EMBEDDED, load
from dragnoise.engine.exported import Extent, Profile, graph_id, multiple_px, read_plan
from dragnoise.export.__main__ import main
from dragnoise.export.files import PartFiles
from dragnoise.export.plans import plan_id
from dragnoise.export.sizes import profile_for
from exported_parts import at, golden
from golden_cases import MODEL


@pytest.mark.slow
def test_a_newcomer_exports_and_builds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The embedded model: two commands."""
    assert main(["onnx", "-o", str(tmp_path)]) == 0
    assert "vae-decoder" in capsys.readouterr().out
    assert main(["plan", "-o", str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [one["part"] for one in printed["files"]] == [
        "down",
        "middle",
        "up",
        "vae-encoder",
        "vae-decoder",
    ]
    model = load(EMBEDDED, device="cpu")
    rtx = library("tensorrt_rtx")
    for one in printed["files"]:
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
    ("arguments", "message"),
    [
        ("onnx nowhere", "no model at 'nowhere'"),
        ("onnx {model} --size 100x100", "are multiples of 8 pixels, got 100x100"),
        (
            "onnx {model} --dynamic 64x64",
            "not a size; write it as WxH, for example 512x768; write it as 256x256..768x768",
        ),
        (
            "onnx {model} --dynamic 64x64..96x96 --size 64x64",
            "dynamic sizes of this model are multiples of 64",
        ),
        ("onnx {model} --batch 0 --size 64x64", "batch must be 1 or more"),
        (
            "onnx {model} --adapter none.safetensors --size 64x64",
            "no adapter can be read from 'none.safetensors'",
        ),
        ("plan {model} --flavour tensorrt", "tensorrt cannot be imported"),
        ("onnx {model} --part up --features 7 --size 64x64", "blocks 0 to 3"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments.format(model=MODEL).split()
    if words[-1] == "tensorrt" and not objections_to_tensorrt("tensorrt"):
        pytest.skip("it is installed here")
    assert main([*words, "-o", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("dragnoise.export: error: ")
    assert message in printed
    assert len(printed.splitlines()) == 1
    assert not list(tmp_path.rglob("*.onnx"))


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_unfinished(tmp_path: Path) -> None:
    """A build that is stopped: exit code 130, what was finished stays, nothing else is there."""
    for number in range(3):  # on a busy machine a build may end before it is seen to have begun
        folder = tmp_path / str(number)
        folder.mkdir()
        code, printed = _interrupted_build(folder)
        if code != 0:
            break
    assert code == 130, printed
    assert "interrupted" in printed
    left = [one.name for one in folder.iterdir()]
    assert not [name for name in left if name.startswith(".") or name.endswith(".plan")]
    assert len([name for name in left if name.endswith(".onnx")]) == 1


def _interrupted_build(folder: Path) -> tuple[int, str]:
    """Interrupt a build once its graph is there; return its exit code and what it said."""
    command = [sys.executable, "-m", "dragnoise.export", "plan", "--part", "up", "--dynamic"]
    command += ["-o", str(folder)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 240
    while not list(folder.glob("*.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=120)
    return process.returncode, printed


@pytest.mark.parametrize(
    ("figures", "cells"),
    [
        (None, []),
        ({"bytes": 2_000_000, "seconds": 1.5, "peak_bytes": 3e9}, ["2.0", "1.5", "3.00"]),
        ({"bytes": 2_000_000, "seconds": 1.5, "refitted_from": "b.plan"}, ["2.0", "1.5", ""]),
    ],
)
def test_figures_of_a_part(figures: dict[str, object] | None, cells: list[str]) -> None:
    """A refitted plan has no peak to show."""
    files = PartFiles(
        part="up",
        onnx="up.onnx",
        onnx_bytes=1_000_000,
        export_s=2.0,
        error=1e-6,
        plan=None if figures is None else "up.plan",
        plan_figures=figures or {},
    )
    assert files.row() == ["up", "1.0", "2.0", "1.0e-06", *cells]
    document = files.to_dict()
    assert (document["part"], document["onnx_bytes"]) == ("up", 1_000_000)
    assert [name for name in document if name.startswith("plan")] == (
        [] if figures is None else ["plan", *(f"plan_{name}" for name in figures)]
    )


# The sizes.


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 2))
def test_a_range_surrounds_its_usual_size(high: int, wide: int, batch: int) -> None:
    multiple = multiple_px(golden())
    size = (high * multiple, wide * multiple)
    profile = profile_for(golden(), size, batch, dynamic=True)
    assert profile.usual == Extent(*size, batch)
    assert profile.covers(profile.usual)
    assert (profile.least.batch, profile.most.batch) == (1, batch)
    for least, usual, most in zip(
        (profile.least.height, profile.least.width),
        size,
        (profile.most.height, profile.most.width),
        strict=True,
    ):
        assert least % multiple == most % multiple == 0
        assert 0 < least <= usual <= most
        assert least <= max(usual / 2, multiple)
        assert most <= 1.5 * usual


def test_sizes_that_were_given_stand() -> None:
    ends = ((64, 64), (192, 256))
    expected = Profile(Extent(64, 64), Extent(64, 128, 2), Extent(192, 256, 2))
    assert profile_for(golden(), (64, 128), 2, dynamic=True, ends=ends) == expected
    assert profile_for(golden(), (64, 128)) == at(64, 128)
    side = golden().unet.network.config["sample_size"] * golden().factor
    assert profile_for(golden()) == at(side, side)
