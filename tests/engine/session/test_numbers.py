"""NaN and infinity are an error that names where they began, and nothing of them is kept."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dragnoise.engine import (
    DragConfig,
    Editor,
    EditResult,
    Image,
    Mask,
    NumbersError,
    Store,
    errors,
)
from dragnoise.engine.methods import METHODS
from dragnoise.engine.pipelines.diffusion import DIFFUSION
from dragnoise.engine.session.stream import Event
from dragnoise.engine.training.lora import LoraTraining
from golden_cases import MODEL
from sessions import MASK, PICTURE, POINTS, QUICK, assert_same, editor, opened, same


def beyond_its_range(config: DragConfig, **wild: float) -> DragConfig:
    """Return settings that their own check refuses: other ways out of the numbers are rarer."""
    copied = copy.copy(config)
    for name, value in wild.items():
        object.__setattr__(copied, name, value)
    return copied


@pytest.mark.parametrize(
    "wild", [{"lr": 1e30}, {"lr": 1e308}, {"lam": 1e308}, {"lr": 1e308, "iterations": 1}]
)
def test_a_drag_that_leaves_the_numbers_names_the_drag(wild: dict[str, float]) -> None:
    session = opened()
    before = session.drag(POINTS, mask=MASK)
    config = beyond_its_range(QUICK, **wild)
    with pytest.raises(NumbersError, match=r"'drag' .*(smaller lr|lam)") as raised:
        session.drag(POINTS, mask=MASK, config=config)
    assert "\n" not in str(raised.value)
    seen: list[Event] = []
    stream = session.drag_stream(POINTS, mask=MASK, config=config, previews=1)
    with pytest.raises(NumbersError, match="drag"):
        seen.extend(stream)
    assert np.isfinite([event.loss for event in seen]).all()
    assert same(session.image, before.image)
    assert_same(session.drag(POINTS, mask=MASK), before)


@pytest.mark.parametrize(
    ("stage", "part", "name", "value"),
    [
        ("embed", "text_encoder", "final_layer_norm.weight", torch.nan),
        ("encode", "vae", "encoder.conv_in.weight", torch.nan),
        ("condition", "unet", "time_embedding.linear_1.weight", torch.inf),
        ("invert", "unet", "conv_out.weight", torch.nan),
        ("decode", "vae", "decoder.conv_out.bias", torch.inf),
    ],
)
def test_a_broken_weight_names_the_stage_and_is_not_kept(
    stage: str, part: str, name: str, value: float, tmp_path: Path
) -> None:
    broken = Editor.from_pretrained(MODEL, device="cpu", cache=Store(folder=tmp_path))
    network = broken.model.unet.network if part == "unet" else getattr(broken.model, part)
    (weight,) = (weight for key, weight in network.named_parameters() if key.endswith(name))
    with torch.no_grad():
        weight.view(-1)[0] = value
    for _ in range(2):
        with pytest.raises(NumbersError, match=f"the stage '{stage}' is the first"):
            broken.edit(PICTURE, POINTS, config=QUICK)
    if stage != "encode":
        with pytest.raises(NumbersError):
            broken.generate("a face", config=QUICK, size=(64, 64))


def test_a_training_that_leaves_the_numbers_keeps_nothing(tmp_path: Path) -> None:
    session = opened()
    with pytest.MonkeyPatch.context() as patch:
        advance = LoraTraining.advance
        patch.setattr(LoraTraining, "advance", lambda self: advance(self) * float("inf"))
        with pytest.raises(NumbersError, match="'personalise' is inf at iteration 0"):
            session.personalise(steps=3, rank=2)
    assert session.save_learning(tmp_path / "learning.safetensors") is None
    assert session.adapter is None
    again = session.personalise(steps=2, rank=2)
    assert again.digest == opened().personalise(steps=2, rank=2).digest


@pytest.mark.parametrize(
    "method", [name for name, row in METHODS.items() if row.pipeline is DIFFUSION]
)
@pytest.mark.parametrize("way", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy])  # noqa: S301
def test_a_recorded_result_can_be_sent_and_copied(
    method: str, way: Callable[[EditResult], EditResult]
) -> None:
    settings = METHODS[method].settings(steps=4, strength=0.5, iterations=1)
    result = editor().edit(PICTURE, POINTS, mask=MASK, method=method, config=settings, record=True)
    came = way(result)
    assert_same(came, result)
    assert came.to_dict() == result.to_dict()
    assert not came.image.pixels.flags.writeable
    assert result.record is not None
    assert came.record is not None
    assert torch.equal(came.record.bottleneck, result.record.bottleneck)
    place = came.record.scene.place
    assert place is (result.record.scene.place if way is copy.deepcopy else None)


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_can_be_sent(name: str) -> None:
    error = getattr(errors, name)("seen 3, give 4")
    came = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(came), str(came)) == (type(error), str(error))


def test_what_is_handed_in_can_be_sent() -> None:
    picture, mask, config = pickle.loads(  # noqa: S301
        pickle.dumps((PICTURE, Mask(MASK), DragConfig(steps=7)))
    )
    assert same(picture, PICTURE)
    assert (mask.editable == MASK).all()
    assert config == DragConfig(steps=7)
    for array in (picture.pixels, mask.editable, copy.deepcopy(Image(PICTURE.pixels)).pixels):
        assert not array.flags.writeable
