"""Methods on the noisy latent: what they share, where they stop, what is kept between drags."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dragnoise.engine import (
    ConfigError,
    DragDiffusionConfig,
    Editor,
    FreeDragConfig,
    GoodDragConfig,
    SessionError,
)
from dragnoise.engine.cli.animation import DragAnimation
from dragnoise.engine.methods import METHODS
from dragnoise.engine.methods.gooddrag import _rounds
from dragnoise.engine.pipelines.work import counted_work
from golden_cases import GOLDEN, MODEL
from latent_cases import NAMES, LatentCase
from sessions import MASK, OTHERS, PICTURE, POINTS

SHORT: dict[str, Any] = {"steps": 10, "strength": 0.3, "lr": 0.02, "start_layer": 10}
QUICK: dict[str, Any] = {
    "dragdiffusion": DragDiffusionConfig(iterations=4, **SHORT),
    "freedrag": FreeDragConfig(iterations=7, inner_steps=2, l_expected=0.1, **SHORT),
    "gooddrag": GoodDragConfig(iterations=7, motion_steps=2, drags_per_step=2, **SHORT),
}
every_method = pytest.mark.parametrize("name", QUICK)


@cache
def editor() -> Editor:
    return Editor.from_pretrained(MODEL, device="cpu", check_pictures=False)


@every_method
def test_the_same_input_gives_the_same_bits(name: str) -> None:
    given = {"method": name, "config": QUICK[name], "mask": MASK, "prompt": "a face"}
    one = editor().edit(PICTURE, POINTS, **given)
    again = editor().edit(PICTURE, POINTS, **given)
    assert (one.image.pixels == again.image.pixels).all()
    assert one.history.losses.tolist() == again.history.losses.tolist()
    assert np.isfinite(one.history.losses).all()
    assert len(one.history.losses) == QUICK[name].iterations


@every_method
def test_the_unedited_picture_is_denoised_once_for_all_drags(name: str) -> None:
    """Of whatever method, as long as it reads the same layers from the same place."""
    session = editor().open(PICTURE, prompt="a face")
    first = session.drag(POINTS, method=name, config=QUICK[name])
    assert "show" in first.timings_ms
    second = session.drag(OTHERS, method=name, config=QUICK[name])
    assert "show" not in second.timings_ms
    assert "start" not in second.timings_ms
    if name == "dragdiffusion":
        other = session.drag(OTHERS, method="freedrag", config=QUICK["freedrag"])
        assert "show" not in other.timings_ms
        fewer = QUICK[name].replace(start_layer=12)
        assert "show" in session.drag(OTHERS, method=name, config=fewer).timings_ms


def test_inversions_are_shared_between_methods() -> None:
    session = editor().open(PICTURE, prompt="a face")
    config = QUICK["dragdiffusion"]
    ran = session.drag(POINTS, method="dragdiffusion", config=config).timings_ms
    assert "invert" in ran
    more = session.drag(POINTS, method="freedrag", config=QUICK["freedrag"]).timings_ms
    assert {"encode", "invert"}.isdisjoint(more)


@every_method
def test_no_updates_give_the_reconstruction(name: str) -> None:
    """The picture's own keys and values, read by its own denoising, change nothing."""
    config = QUICK[name].replace(iterations=0)
    result = editor().edit(PICTURE, POINTS, method=name, config=config, prompt="a face")
    plain = editor().edit(
        PICTURE, POINTS, config=_dragnoise(config), method="dragnoise", prompt="a face"
    )
    assert np.abs(result.image.pixels.astype(int) - plain.image.pixels.astype(int)).max() <= 1


def _dragnoise(config: Any) -> Any:
    settings = METHODS["dragnoise"].settings
    return settings(steps=config.steps, strength=config.strength, iterations=0, end_step=10)


@every_method
def test_previews_show_the_latent_that_is_dragged(name: str) -> None:
    session = editor().open(PICTURE, prompt="a face")
    config = QUICK[name]
    events = list(session.drag_stream(POINTS, method=name, config=config, previews=1))
    previews = [event.preview for event in events if event.preview is not None]
    assert len(previews) == config.iterations
    numbers = [event.iteration for event in events[:-1]]
    assert numbers == list(range(config.iterations))
    assert (previews[0].pixels != previews[-1].pixels).any()


def test_a_drag_goes_on_where_the_last_one_ended() -> None:
    for name in ("dragdiffusion", "freedrag"):
        session = editor().open(PICTURE, prompt="a face")
        first = session.drag(POINTS, method=name, config=QUICK[name])
        went_on = session.drag(POINTS, method=name, config=QUICK[name], base="last")
        assert (went_on.image.pixels != first.image.pixels).any()
        session.undo()
        assert (session.image.pixels == first.image.pixels).all()


def test_gooddrag_ends_at_another_step_than_it_begins() -> None:
    session = editor().open(PICTURE, prompt="a face")
    first = session.drag(POINTS, method="gooddrag", config=QUICK["gooddrag"], record=True)
    assert first.record is not None
    assert first.record.scene.place.active_steps == 3 - 1  # 4 updates, a step, 3 updates
    assert "denoise" in first.timings_ms
    with pytest.raises(SessionError, match="gooddrag ends elsewhere than it begins"):
        session.drag(POINTS, method="gooddrag", config=QUICK["gooddrag"], base="last")
    session.drag(OTHERS, method="gooddrag", config=QUICK["gooddrag"], base="result")


def test_gooddrag_follows_its_handles_after_its_updates_alone() -> None:
    result = editor().edit(
        PICTURE, POINTS, method="gooddrag", config=QUICK["gooddrag"], prompt="a face", record=True
    )
    assert result.record is not None
    handles = result.record.handles.tolist()
    assert handles[0] == handles[1] == result.record.scene.handles.tolist()
    assert handles[2] == handles[3]
    assert handles[4] == handles[5]


def test_rounds_are_all_updates() -> None:
    config = GoodDragConfig()
    assert _rounds(config) == (30,) * 7
    assert _rounds(config.replace(iterations=31)) == (30, 1)
    assert _rounds(config.replace(iterations=0)) == (0,)
    with pytest.raises(ConfigError, match="2000 iterations, 30 a denoising step, take 67 of the"):
        config.replace(iterations=2000)


@pytest.mark.parametrize("name", ["freedrag", "dragdiffusion"])
def test_borders_where_the_published_code_fails(name: str) -> None:
    """Twelve runs at the border: all of ours end, inside the map and finite."""
    cases = json.loads((GOLDEN / name / "border_behaviour.json").read_text())["cases"]
    assert len(cases) == 12
    config = METHODS[name].settings(strength=0.04, iterations=3, lr=0.02, parity=True)
    session = editor().open(GOLDEN / "images" / "discs_256x256.png")
    mask = np.ones((256, 256))
    for case in cases.values():
        result = session.drag(case["points_xy"], mask=mask, config=config, method=name, record=True)
        record = result.record
        assert record is not None
        assert record.scene.handles.tolist() == [[min(cell, 127) for cell in case["handle_yx_sup"]]]
        assert ((record.handles >= 0) & (record.handles <= 128)).all()
        assert np.isfinite(result.history.losses).all()


def test_a_freedrag_without_tracking_holds_done_points() -> None:
    """A point that is done stays, and its template is what is there: its loss is zero."""
    name = next(name for name in NAMES if "fd02" in name)
    case = LatentCase(name)
    record = editor().edit(**case.edit_inputs()).record
    assert record is not None
    begun = case.data["outer_step"].tolist()
    second = record.handles[begun[2] :, 1]
    assert torch.equal(second, second[:1].expand_as(second))


@pytest.mark.parametrize(("name", "how"), [(NAMES[0], "-baseline"), (NAMES[-2], "-baseline-plain")])
def test_the_restated_baselines_give_the_published_numbers(name: str, how: str) -> None:
    case = LatentCase(name)
    given = case.edit_inputs()
    given["method"] += how
    result = editor().edit(**given)
    record = result.record
    assert record is not None
    data = case.data
    np.testing.assert_allclose(result.history.losses, data["step_loss"].numpy(), rtol=5e-3)
    assert float((record.variable - data["updated_latent"]).abs().max()) < 1e-4
    assert float((record.final_latent[0] - data["final_latents"][1]).abs().max()) < 5e-2


def test_settings_of_another_method_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="freedrag takes a FreeDragConfig as config, got Drag"):
        editor().edit(PICTURE, POINTS, method="freedrag", config=DragDiffusionConfig())
    for wrong in ({"l_expected": 0}, {"d_max": -1}, {"inner_steps": 0}, {"start_layer": -1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            FreeDragConfig(**wrong)  # type: ignore[arg-type]


def test_counted_work_says_what_is_in_the_loop() -> None:
    """With the latent as the variable the encoder half is in every update."""
    cells, resolution = (16, 16), (64, 64)
    counts = {
        name: counted_work(
            editor().model, METHODS[name], METHODS[name].settings(), cells, resolution, True
        )
        for name in ("dragnoise", *QUICK)
    }
    ours = counts["dragnoise"]
    assert ours.show == 0
    for name in QUICK:
        other = counts[name]
        assert other.iteration > 1.3 * ours.iteration
        assert 0 < other.show == pytest.approx(ours.invert)
        assert other.whole(10, 5) == 10 * other.iteration + 5 * (
            other.invert + other.show + other.propagate
        )
    unmasked = counted_work(
        editor().model, METHODS["freedrag"], FreeDragConfig(), cells, resolution, False
    )
    assert unmasked.iteration < counts["freedrag"].iteration


def test_half_precision_reads_the_latent_exactly() -> None:
    model = Editor.from_pretrained(MODEL, device="cpu", dtype="bfloat16", check_pictures=False)
    result = model.edit(
        PICTURE, POINTS, method="dragdiffusion", config=QUICK["dragdiffusion"], record=True
    )
    record = result.record
    assert record is not None
    assert record.variable.dtype == torch.float32
    assert np.isfinite(result.history.losses).all()


@every_method
@pytest.mark.parametrize("finished", [False, True])
def test_a_drag_is_drawn_as_an_animation(name: str, finished: bool) -> None:
    """Previews are of the latent that was read; finished frames read what was shown."""
    animation = DragAnimation(frames=3, finished=finished)
    result = editor().edit(
        PICTURE,
        POINTS,
        method=name,
        config=QUICK[name],
        prompt="a face",
        record=True,
        on_iteration=animation,
    )
    frames = animation.frames(editor(), PICTURE, result)
    assert 4 <= len(frames) <= 5
    assert frames[1].tobytes() != frames[-2].tobytes()


def test_an_adapter_is_read_in_every_stage() -> None:
    """Of a LoRA at no scale nothing is seen; at its own the unedited picture is shown anew."""
    session = editor().open(PICTURE, prompt="a face")
    config = QUICK["dragdiffusion"]
    plain = session.drag(POINTS, method="dragdiffusion", config=config)
    adapter = editor().open(PICTURE, prompt="a face").personalise(steps=2, rank=2, batch=1, lr=0.05)
    session.use_adapter(adapter)
    worn = session.drag(POINTS, method="dragdiffusion", config=config)
    assert {"invert", "show"} <= worn.timings_ms.keys()
    assert (worn.image.pixels != plain.image.pixels).any()
    session.use_adapter(None)
    again = session.drag(POINTS, method="dragdiffusion", config=config)
    assert (again.image.pixels == plain.image.pixels).all()


def test_a_session_with_a_latent_drag_is_saved_and_restored(tmp_path: Path) -> None:
    session = editor().open(PICTURE, prompt="a face")
    first = session.drag(POINTS, method="freedrag", config=QUICK["freedrag"])
    restored = editor().restore(session.save(tmp_path / "s.safetensors"))
    assert (restored.image.pixels == first.image.pixels).all()
    one = session.drag(POINTS, method="freedrag", config=QUICK["freedrag"], base="last")
    other = restored.drag(POINTS, method="freedrag", config=QUICK["freedrag"], base="last")
    assert (one.image.pixels == other.image.pixels).all()


def test_guidance_reads_both_texts() -> None:
    config = QUICK["dragdiffusion"].replace(guidance=3)
    result = editor().edit(
        PICTURE, POINTS, method="dragdiffusion", config=config, prompt="a face", record=True
    )
    record = result.record
    assert record is not None
    keys = record.scene.shown.steps[0][0]
    assert keys.shape[0] == 2
    assert np.isfinite(result.history.losses).all()
