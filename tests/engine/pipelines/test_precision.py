"""Where and how exactly the networks compute: what is refused, and what a lower precision costs."""

from functools import cache
from typing import Any

import pytest
import torch

from dragnoise.engine import DeviceError, DragConfig, Editor, EditResult, Record
from dragnoise.engine.diffusion.load import load
from dragnoise.engine.system.device import choose_dtype
from golden_cases import MODEL, Case

CASE = Case("dn01_short_early_stop")
QUICK = DragConfig(steps=10, strength=0.3, iterations=3)

FEATURES = {torch.float32: 1e-2, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""Largest relative L2 distance of one pass's features from float32's on the CPU (bfloat16 there:
1.3e-2); CUDA's float32 convolutions use TF32.
"""

no_cuda = pytest.mark.skipif(
    torch.cuda.is_available(), reason="is about a machine without a CUDA device"
)


def edit(editor: Editor) -> EditResult:
    said: dict[str, Any] = CASE.edit_inputs() | {"config": QUICK}
    return editor.edit(**said)


@cache
def in_float32() -> Record:
    record = edit(Editor.from_pretrained(MODEL, device="cpu", check_pictures=False)).record
    assert record is not None
    return record


def check_edit(device: str, dtype: torch.dtype) -> None:
    """An edit in another precision keeps its latents and its bottleneck in float32, and sees nearly
    the features that float32 sees.
    """
    editor, exact = (
        Editor.from_pretrained(MODEL, device=device, check_pictures=False, dtype=dtype),
        in_float32(),
    )
    result = edit(editor)
    record = result.record
    assert record is not None
    assert record.reference_features is not None
    assert result.settings["dtype"] == str(dtype).removeprefix("torch.")
    assert editor.model.dtype == dtype
    assert record.reference_features.dtype == editor.model.unet.compares_in
    for kept in (
        record.bottleneck,
        record.bottleneck_start,
        record.final_latent,
        *record.trajectory,
    ):
        assert kept.dtype == torch.float32
        assert kept.device.type == device
        assert kept.isfinite().all()
    moved = (record.bottleneck - record.bottleneck_start).abs()
    assert 0 < float(moved.max()) <= 1.1 * QUICK.lr * QUICK.iterations, (
        "Adam moves by about its learning rate an update"
    )
    held = torch.equal(record.bottleneck.to(dtype).float(), record.bottleneck)
    assert held == (dtype == torch.float32), (
        "the optimised bottleneck holds more than the networks' precision can"
    )
    assert len(result.history.losses) == QUICK.iterations

    unet, text = editor.model.unet, exact.text.to(device, dtype)
    down = unet.down(exact.inverted.to(device), unet.step(exact.scene.place.timestep, text))
    features = unet.up(down, unet.middle(down), 2).features
    assert features is not None
    assert exact.reference_features is not None
    distance = (
        features.cpu().float() - exact.reference_features
    ).norm() / exact.reference_features.norm()
    assert float(distance) < FEATURES[dtype]


def test_bfloat16_on_the_cpu() -> None:
    check_edit("cpu", torch.bfloat16)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", FEATURES, ids=str)
def test_on_cuda(dtype: torch.dtype) -> None:
    check_edit("cuda", dtype)


@pytest.mark.gpu
def test_the_vae_stays_in_float32_beside_a_float16_unet() -> None:
    model = load(MODEL, device="cuda", dtype="float16")
    assert (model.unet.dtype, model.vae.dtype) == (torch.float16, torch.float32)


@no_cuda
def test_auto_is_the_cpu_where_there_is_nothing_else() -> None:
    assert load(MODEL).device == torch.device("cpu")


@no_cuda
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")], ids=str)
def test_cuda_that_is_not_there(device: str | torch.device) -> None:
    with pytest.raises(
        DeviceError,
        match=rf"device '{device}' was asked for, but PyTorch .* sees 0 CUDA devices; use cpu",
    ):
        load(MODEL, device=device)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("mps", "'mps' is not supported; use cpu or cuda"),
        ("meta", "'meta' is not supported; use cpu or cuda"),
        ("gpu", "'gpu' is not a device; use auto, cpu, cuda"),
        ("", "'' is not a device; use auto, cpu, cuda"),
        ("cuda:99", "'cuda:99' was asked for, but PyTorch"),
    ],
)
def test_devices_that_are_refused(device: str, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        load(MODEL, device=device)


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("float16", "float16 is not supported on the CPU .*; use float32 or bfloat16"),
        (torch.float16, "float16 is not supported on the CPU"),
        ("half", "precision 'half' is not supported; use auto, float32, bfloat16, float16"),
        (torch.float64, "precision torch.float64 is not supported"),
        (torch.int8, "precision torch.int8 is not supported"),
    ],
    ids=str,
)
def test_precisions_that_are_refused(dtype: str | torch.dtype, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        load(MODEL, device="cpu", dtype=dtype)


def test_a_precision_by_name_or_by_itself() -> None:
    for dtype in ("bfloat16", torch.bfloat16):
        model = load(MODEL, device="cpu", dtype=dtype)
        for network in (model.unet.network, model.vae, model.text_encoder):
            assert {weight.dtype for weight in network.parameters()} == {torch.bfloat16}


def test_the_precision_that_suits_a_device() -> None:
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    assert choose_dtype("auto", torch.device("cuda")) == torch.float16
    assert load(MODEL, device="cpu").dtype == torch.float32
