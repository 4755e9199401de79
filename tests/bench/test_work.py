"""Hold the work of an edit.

Counts do not depend on the machine, so a change that executes more than before fails here and says
where.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, reduce
from operator import add

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dragnoise.bench.work import cli as work_cli
from dragnoise.bench.work.architectures import ARCHITECTURES, Architecture
from dragnoise.bench.work.ceilings import CEILINGS, forecast
from dragnoise.bench.work.counts import Counts
from dragnoise.bench.work.work import Case, Trace, UnsteadyError, Work, count, trace
from dragnoise.engine import PRESETS, DragConfig, Editor
from dragnoise.engine.errors import ConfigError, ModelError
from dragnoise.engine.methods import METHODS
from golden_cases import MODEL

TFLOP = 1e12
GROWTH = 1.002
"""The factor by which a count may exceed its record."""

MOST: dict[str, dict[str, float]] = {
    "encode": {
        "flops": 1.117e12,
        "weight_bytes": 1.367e08,
        "activation_bytes_read": 5.064e09,
        "activation_bytes_written": 4.582e09,
        "operators": 147,
        "launches": 111,
        "peak_bytes": 3.178e09,
    },
    "condition": {
        "flops": 5.737e09,
        "weight_bytes": 9.413e07,
        "activation_bytes_read": 1.518e07,
        "activation_bytes_written": 1.454e07,
        "operators": 218,
        "launches": 94,
        "peak_bytes": 2.516e09,
    },
    "invert": {
        "flops": 2.801e13,
        "weight_bytes": 5.687e10,
        "activation_bytes_read": 3.415e10,
        "activation_bytes_written": 3.354e10,
        "operators": 44870,
        "launches": 14070,
        "peak_bytes": 2.576e09,
    },
    "start": {
        "flops": 3.321e11,
        "weight_bytes": 8.560e08,
        "activation_bytes_read": 4.029e08,
        "activation_bytes_written": 4.005e08,
        "operators": 621,
        "launches": 211,
        "peak_bytes": 2.560e09,
    },
    "drag": {
        "flops": 8.083e13,
        "weight_bytes": 1.230e11,
        "activation_bytes_read": 1.214e11,
        "activation_bytes_written": 9.003e10,
        "operators": 118861,
        "launches": 37618,
        "peak_bytes": 2.929e09,
    },
    "propagate": {
        "flops": 2.735e13,
        "weight_bytes": 4.998e10,
        "activation_bytes_read": 3.354e10,
        "activation_bytes_written": 3.293e10,
        "operators": 41464,
        "launches": 13017,
        # The optimum owns a copy of its reference: the loop may serve the next drag.
        "peak_bytes": 2.627e09,
    },
    "decode": {
        "flops": 2.515e12,
        "weight_bytes": 1.980e08,
        "activation_bytes_read": 8.825e09,
        "activation_bytes_written": 7.855e09,
        "operators": 176,
        "launches": 141,
        "peak_bytes": 3.364e09,
    },
}
"""The most that every stage executes.

Stable Diffusion 1.5, 512 x 512, mask, float16, 35 of 50 steps, 80 iterations, polled every 8th.
Lower a figure when less is executed; `python -m dragnoise.bench work --dtype float16 --json`
counts. Layers are those of CUDA without a compiler.
"""

MIDDLE, FIRST = "unet.mid_block.resnets.0.conv1.weight", "unet.conv_in.weight"
DECODER = {
    "first": "unet.up_blocks.0.resnets.0.conv2.weight",
    "last": "unet.up_blocks.3.resnets.2.conv2.weight",
}


@cache
def traced(mask: bool = True, method: str = "dragnoise") -> Trace:
    return trace(Case(mask=mask, method=method))


@pytest.fixture(scope="module")
def edit() -> Work:
    return traced().work(80)


@pytest.mark.parametrize(
    ("iterations", "successive", "most"),
    [(40, False, 101), (80, False, 141), (40, True, 71), (80, True, 111)],
)
def test_an_edit_costs_at_most(iterations: int, successive: bool, most: float) -> None:
    assert traced().work(iterations, successive=successive).total.flops <= most * TFLOP


@pytest.mark.parametrize(
    "stage", ["encode", "condition", "invert", "start", "drag", "propagate", "decode"]
)
def test_no_stage_executes_more_than_recorded(
    edit: Work, stage: str, record_property: Callable[[str, object], None]
) -> None:
    found, most = edit.stages[stage].numbers(), MOST[stage]
    grown = {
        name: f"{found[name]:,} > {limit:,.0f}"
        for name, limit in most.items()
        if found[name] > limit * GROWTH
    }
    assert not grown, f"the stage {stage} executes more than it did: {grown}"
    less = {
        name: found[name] / limit for name, limit in most.items() if found[name] < limit / GROWTH
    }
    record_property(f"{stage}: less than recorded", less)


def test_every_stage_has_a_record(edit: Work) -> None:
    assert set(MOST) == set(edit.stages)


def test_an_iteration(edit: Work) -> None:
    """With a mask it runs to the noise output, without one to the features alone.

    The published code's is 2383 GFLOP.
    """
    with_mask, without = (
        traced(mask).work(81).total.flops - traced(mask).work(80).total.flops
        for mask in (True, False)
    )
    assert with_mask == pytest.approx(1.010 * TFLOP, rel=0.002)
    assert without == pytest.approx(0.600 * TFLOP, rel=0.002)


def test_the_host_waits_only_for_the_poll(edit: Work) -> None:
    """It waits every eighth iteration, and twice at the end.

    Beside the poll it waits for the pixels and the timesteps on their way to the device.
    """
    waits = {name: counts.synchronisations for name, counts in edit.stages.items()}
    assert waits == {
        "encode": 1,
        "condition": 1,
        "invert": 0,
        "start": 0,
        "drag": 80 // 8 + 2,
        "propagate": 0,
        "decode": 0,
    }
    assert traced().work(41).stages["drag"].synchronisations == 6 + 2
    assert traced().work(41, poll_every=1).stages["drag"].synchronisations == 41 + 2
    assert sorted(turn.synchronisations for turn in traced().segments["drag"][1:3]) == [0, 1]


def test_no_weight_has_a_gradient(edit: Work) -> None:
    assert {
        name: counts.weight_gradients
        for name, counts in edit.stages.items()
        if counts.weight_gradients
    } == {}


@pytest.mark.parametrize(
    ("stage", "encoder", "middle", "decoder"),
    [
        ("invert", 35, 35, 35),
        ("start", 1, 1, 0),
        ("drag", 0, 0, 2 * 80),
        ("propagate", 34, 0, 35),
    ],
)
def test_what_runs_how_often(
    edit: Work, stage: str, encoder: int, middle: int, decoder: int
) -> None:
    """The encoder half and the middle block run once before the drag.

    Denoising takes its first step's skips from there, and no middle block.
    """
    reads = edit.stages[stage].reads
    assert (reads[FIRST], reads[MIDDLE], reads[DECODER["first"]]) == (encoder, middle, decoder)


def test_without_a_mask_the_last_up_block_is_not_in_the_drag(edit: Work) -> None:
    assert edit.stages["drag"].reads[DECODER["last"]] == 2 * 80
    assert traced(mask=False).work(80).stages["drag"].reads[DECODER["last"]] == 0


def test_a_successive_drag_starts_at_the_drag() -> None:
    assert list(traced().work(40, successive=True).stages) == ["drag", "propagate", "decode"]


def test_fast_costs_at_most() -> None:
    """With its own settings, and 12 steps: issue 16 allows 35 for a first edit, 20 for the next."""
    fast, settings = traced(method="fast"), METHODS["fast"].settings()
    first, again = (
        fast.work(settings.iterations, active_steps=settings.active_steps, successive=successive)
        for successive in (False, True)
    )
    assert first.total.flops <= 14 * TFLOP
    assert again.total.flops <= 9 * TFLOP
    assert fast.work(10, active_steps=12).total.flops <= 30 * TFLOP
    assert again.stages["aim"].synchronisations == 0
    assert again.stages["drag"].reads[DECODER["last"]] == 0
    assert list(again.stages) == ["aim", "drag", "propagate", "decode"]


def test_a_live_frame_costs_at_most() -> None:
    """Issue 16 allows 6 with the model's own decoder and 3.5 with a small one (TAESD's size)."""
    changes = PRESETS["live"].changes
    settings = METHODS["fast"].settings().replace(**changes)
    work = traced(method="fast").work(0, active_steps=settings.active_steps, successive=True)
    frame = reduce(add, (work.stages[stage] for stage in ("aim", "propagate", "decode")))
    assert frame.flops <= 6 * TFLOP
    assert frame.synchronisations == 0
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        small = AutoencoderTiny()
        small.decode(torch.zeros(1, 4, 64, 64, dtype=torch.float32))
    rest = frame.flops - work.stages["decode"].flops
    assert rest + counter.get_total_flops() <= 3.5 * TFLOP


def test_more_work_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that runs the encoder half in every iteration exceeds the record of the drag.

    It exceeds the record of no other stage.
    """
    row = METHODS["dragnoise"]

    def features(scene, constants, bottleneck):  # type: ignore[no-untyped-def]
        place = scene.place
        place.model.unet.down(place.latent, place.step)
        return row.features(scene, constants, bottleneck)

    monkeypatch.setitem(
        METHODS, "slower", dataclasses.replace(row, name="slower", features=features)
    )
    found = traced(method="slower").work(80)
    grown = [
        name for name, counts in found.stages.items() if counts.flops > MOST[name]["flops"] * GROWTH
    ]
    assert grown == ["drag"]
    assert found.stages["drag"].reads[FIRST] == 80


@pytest.mark.parametrize(("iterations", "expected"), [(40, 187), (80, 282)])
def test_the_published_algorithm(iterations: int, expected: float) -> None:
    found = traced(method="baseline").work(iterations)
    assert found.total.flops == pytest.approx(expected * TFLOP, rel=0.015)
    assert found.stages["drag"].weight_gradients > iterations


SMALL = Case(str(MODEL), (72, 64), dtype=torch.float32)


def test_what_follows_from_a_few_repeats_is_what_is_executed() -> None:
    """Every count of an edit of which every repeat was run, polled every third iteration."""
    whole = trace(SMALL, steps=4, iterations=8, poll_every=3)
    assert len(whole.segments["drag"]) == 9
    executed = {name: reduce(add, parts) for name, parts in whole.segments.items()}
    derived = trace(SMALL).work(8, active_steps=4, poll_every=3)
    assert derived.run_iterations == 4
    for name, counts in executed.items():
        unlike = derived.stages[name].differences(counts)
        if name == "drag":
            # An iteration's loss and points are written into buffers as long as the drag.
            assert set(unlike) <= {"activation_bytes_read", "activation_bytes_written", "kernels"}
            for which in unlike[:2]:
                assert getattr(derived.stages[name], which) == pytest.approx(
                    getattr(counts, which), rel=1e-3
                )
        else:
            assert unlike == []
        assert derived.stages[name].peak_bytes == pytest.approx(counts.peak_bytes, rel=1e-3)


@pytest.mark.parametrize(("iterations", "active_steps"), [(1, 1), (3, 2), (4, 3), (5, 3)])
def test_few_repeats_are_all_run(iterations: int, active_steps: int) -> None:
    found = count(
        str(MODEL),
        (64, 64),
        iterations,
        active_steps=active_steps,
        poll_every=3,
        dtype=torch.float32,
    )
    assert found.stages["invert"].reads[FIRST] == active_steps
    assert found.stages["drag"].synchronisations == -(-iterations // 3) + 2


def test_repeats_that_differ_are_refused() -> None:
    repeats = [Counts(flops=flops) for flops in (1, 2, 2, 3, 0)]
    different = Trace(Case(), 3, 4, 2, {"invert": repeats})
    assert different.work(4, active_steps=3, poll_every=2).total.flops == 8
    with pytest.raises(UnsteadyError, match="repeats of invert are not alike in flops"):
        different.work(4, active_steps=4)


def test_the_meta_device_runs_what_a_cpu_runs() -> None:
    """FLOPs by stage of a real edit, counted by PyTorch's own counter, are those of the trace."""
    flops: dict[str, int] = {}

    @contextmanager
    def counting(stage: str) -> Iterator[None]:
        with FlopCounterMode(display=False) as counter:
            yield
        flops[stage] = flops.get(stage, 0) + counter.get_total_flops()

    picture = np.random.default_rng(0).integers(0, 255, (72, 64, 3), dtype=np.uint8)
    mask = np.arange(72 * 64).reshape(72, 64) > 2000
    editor = Editor.from_pretrained(
        MODEL, device="cpu", check_pictures=False, backend="eager", observers=[counting]
    )
    with sdpa_kernel(SDPBackend.MATH):
        result = editor.edit(
            picture,
            [((20, 20), (60, 60))],
            mask=mask,
            config=DragConfig(strength=0.06, iterations=3, lam=1.0),
        )
    assert len(result.history.losses) == 3
    found = count(str(MODEL), (72, 64), 3, active_steps=3, dtype=torch.float32)
    assert flops.keys() - {"embed"} == found.stages.keys()
    for name, counts in found.stages.items():
        rel = 0.005 if name == "drag" else 0  # points are tracked by another operator there
        assert counts.flops == pytest.approx(flops[name], rel=rel), name


def test_a_picture_is_padded_as_the_editor_pads_it() -> None:
    odd, even = (
        count(str(MODEL), size, 1, active_steps=1, dtype=torch.float32)
        for size in ((65, 64), (72, 64))
    )
    assert odd.total.flops == even.total.flops


@pytest.mark.parametrize(
    "wrong", [{"iterations": 0}, {"active_steps": 0}, {"poll_every": 0}, {"method": "drag-it"}]
)
def test_what_cannot_be_counted(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        count(**wrong)  # type: ignore[arg-type]


def test_architectures() -> None:
    """Parameters in millions, as published."""
    for name, unet, vae in (("sd15", 859.521, 83.653), ("sd21", 865.911, 83.653)):
        networks = Architecture.of(name).networks(torch.device("meta"), torch.float16)
        sizes = [
            sum(weight.numel() for weight in network.parameters()) / 1e6 for network in networks
        ]
        assert sizes == pytest.approx([unet, vae], abs=1e-3)
        assert [network.dtype for network in networks] == [torch.float16, torch.float32]
    assert [row.prediction for row in ARCHITECTURES.values()] == ["epsilon", "v_prediction"]
    assert Architecture.of(MODEL).unet["cross_attention_dim"] == 32
    with pytest.raises(ModelError):
        Architecture.of("sd3")


@pytest.mark.parametrize(
    ("iterations", "successive", "expected"),
    [(40, False, 165), (80, False, 237), (40, True, 117), (80, True, 189)],
)
def test_floors_on_an_h100(iterations: int, successive: bool, expected: float) -> None:
    """Milliseconds at 800 TFLOP/s and 3.0 TB/s with everything else fused away, in bfloat16.

    Our targets were set before bfloat16 was computed by anchors (152, 212, 105 and 165), which
    needs maps and attention in float32.
    """
    found = _bfloat16().work(iterations, successive=successive)
    row = forecast(found.total, CEILINGS["h100"])
    assert row.fused_ms == pytest.approx(expected, rel=0.02)
    assert row.dispatched_ms > row.fused_ms


@cache
def _bfloat16() -> Trace:
    return trace(Case(dtype=torch.bfloat16))


@pytest.mark.parametrize("alone", [True, False])
def test_command_line(alone: bool, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    work_cli.add_options(parser)
    asked = [
        "--arch",
        str(MODEL),
        "--size",
        "64x72",
        "--iterations",
        "5",
        "--no-mask",
        "--dtype",
        "float16",
    ]
    assert work_cli.run(parser.parse_args(asked + ["--json"] * alone)) == 0
    *table, last = capsys.readouterr().out.splitlines()
    document = json.loads(last)
    assert document["size"] == [72, 64]
    assert document["stages"]["total"]["flops"] > 0
    assert [row["name"] for row in document["forecast"]] == list(CEILINGS)
    assert alone == (not table)
    assert alone or any("forecast" in line for line in table)


@pytest.mark.parametrize("size", ["512", "512x", "0x8", "ax8", "8x8x8"])
def test_command_line_refuses(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    work_cli.add_options(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--size", size])
    assert "write it as WxH" in capsys.readouterr().err
