"""The fast method: where it begins, what it keeps, what a session makes of it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dragnoise.engine import (
    ConfigError,
    DragConfig,
    DragDiffusionConfig,
    Editor,
    EditResult,
    FastConfig,
    Image,
    MaskError,
    Session,
    SessionError,
    stages,
)
from dragnoise.engine.cli.animation import DragAnimation
from dragnoise.engine.inputs.frame import Frame
from dragnoise.engine.methods import METHODS
from dragnoise.engine.pipelines.work import CountedWork, counted_work
from dragnoise.engine.system.cuda_graphs import NullGraph
from golden_cases import GOLDEN, MODEL
from sessions import editor

CONFIG = FastConfig(steps=10, strength=0.3, iterations=3, lr=0.02, grip_px=16.0)
PICTURE = Image(Image.of(GOLDEN / "images" / "face_256x256.png").pixels[64:192, 64:192])
POINTS = [((40, 44), (70, 58))]
OTHERS = [((80, 88), (44, 60)), ((60, 30), (70, 24))]
MASK = np.zeros((128, 128), np.bool_)
MASK[16:112, 16:104] = True
STILL = [((40, 40), (40, 40)), ((88, 60), (88, 60))]


def dragged(points: Any = POINTS, config: FastConfig = CONFIG, **given: Any) -> EditResult:
    how: dict[str, Any] = {"mask": MASK, "prompt": "a face", "record": True}
    return editor().edit(PICTURE, points, method="fast", config=config, **how | given)


def blend_of(result: EditResult) -> Tensor:
    """Return where the picture may change, 0 to 1, [h, w]."""
    assert result.record is not None
    blend: Tensor = result.record.optimum.constants.blend
    return blend[0, 0]


def same(one: EditResult, other: EditResult) -> bool:
    return bool((one.image.pixels == other.image.pixels).all())


def test_the_same_input_gives_the_same_bits() -> None:
    one, again = dragged(), dragged()
    assert same(one, again)
    assert one.history.losses.tolist() == again.history.losses.tolist()
    assert len(one.history.losses) == 3
    assert one.history.losses[-1] < one.history.losses[0]


def test_the_noisy_latent_is_moved() -> None:
    """The cell under the handle lies at the target, the noise with it."""
    result = dragged([((44, 44), (68, 60))], CONFIG.replace(strength=0.7))
    assert result.record is not None
    latent, unedited = result.record.scene.place.latent, result.record.trajectory[-1]
    assert editor().model.factor == 8
    assert torch.equal(latent[..., 7, 8], unedited[..., 5, 5])
    assert float(latent.std()) == pytest.approx(float(unedited.std()), rel=0.1)


def test_the_signal_goes_between_cells_and_the_noise_by_whole_ones() -> None:
    """On a way of a cell and a quarter, the quarter is a mean of the clean latent's neighbours."""
    cell, more = (
        dragged([((44, 44), (44 + way, 44))], CONFIG.replace(grip_px=8.0)).record for way in (8, 10)
    )
    assert cell is not None
    assert more is not None
    place = cell.scene.place
    share = float(place.schedule.alphas[place.timestep]) ** 0.5
    added = (more.scene.place.latent - place.latent)[0, :, 5, 6]
    clean = cell.trajectory[0][0, :, 5]
    taps = torch.tensor([-0.03515625, 0.26171875, 0.87890625, -0.10546875])  # Keys, a = -3/4
    wanted = share * (clean[:, 3:7] @ taps - clean[:, 5])
    torch.testing.assert_close(added, wanted, rtol=1e-3, atol=1e-4)


def test_what_must_stay_is_the_unedited_picture_bit_for_bit() -> None:
    """At the drag's step, and after the denoising."""
    result = dragged()
    record = result.record
    assert record is not None
    stays, goes = blend_of(result) == 0, blend_of(result) == 1
    assert stays.any()
    assert goes.any()
    for found, wanted in (
        (record.scene.place.latent, record.trajectory[-1]),
        (record.final_latent, record.trajectory[0]),
    ):
        assert torch.equal(found[..., stays], wanted[..., stays])
        assert (found[..., goes] != wanted[..., goes]).any()


def test_a_way_of_no_length_begins_at_the_unedited_latent() -> None:
    """Bit for bit, and then there is nothing to mend: the loss is zero."""
    result = dragged(STILL)
    assert result.record is not None
    assert torch.equal(result.record.scene.place.latent, result.record.trajectory[-1])
    assert set(result.history.losses.tolist()) <= {0.0}
    assert torch.equal(result.record.optimum.variable, result.record.optimum.start)


def test_a_path_that_returns_gives_the_bits_of_no_path() -> None:
    """Every drag begins at the source, however many were made before."""
    session = editor().open(PICTURE, prompt="a face")
    how: dict[str, Any] = {"method": "fast", "config": CONFIG, "mask": MASK}
    first = session.drag(POINTS, **how)
    session.drag(OTHERS, **how)
    session.drag([((20, 20), (50, 50))], **how)
    assert same(session.drag(POINTS, **how), first)
    assert same(first, dragged())


def test_a_session_prepares_once() -> None:
    session = editor().open(PICTURE, prompt="a face")
    how: dict[str, Any] = {"method": "fast", "config": CONFIG}
    assert {"encode", "invert", "start"} <= session.drag(POINTS, **how).timings_ms.keys()
    again = session.drag(OTHERS, **how).timings_ms
    assert {"encode", "invert", "start"}.isdisjoint(again)
    assert {"aim", "drag", "propagate", "decode"} <= again.keys()
    shared = CONFIG.steps, CONFIG.strength
    other = DragConfig(steps=shared[0], strength=shared[1], iterations=1)
    assert "invert" not in session.drag(OTHERS, config=other).timings_ms


def test_no_updates_are_the_moved_latent_alone() -> None:
    result = dragged(config=CONFIG.replace(iterations=0))
    assert result.record is not None
    assert len(result.history.losses) == 0
    assert torch.equal(result.record.optimum.variable, result.record.optimum.start)
    assert not same(result, dragged(STILL, CONFIG.replace(iterations=0)))


def test_a_grip_moves_as_one_piece() -> None:
    """In cells of the noisy latent: all of the bar lies one cell below and three to the right."""
    grip = np.zeros_like(MASK)
    grip[40:56, 24:64] = True
    result = dragged([((44, 44), (68, 52))], grip=grip)
    assert result.record is not None
    latent, unedited = result.record.scene.place.latent, result.record.trajectory[-1]
    assert torch.equal(latent[..., 6:8, 6:11], unedited[..., 5:7, 3:8])
    assert not same(result, dragged([((44, 44), (68, 52))]))


def test_a_grip_is_for_methods_that_take_one() -> None:
    """Which do is in the message; a grip of nothing is a mistake, and its size is the picture's."""
    with pytest.raises(ConfigError, match="dragnoise takes no grip; leave it out, or choose fast"):
        editor().edit(PICTURE, POINTS, grip=MASK)
    for wrong, message in (
        (np.zeros_like(MASK), "the grip marks none of 16384 pixels"),
        (MASK[1:], "127 but the image is 128x128"),
    ):
        with pytest.raises(MaskError, match=message):
            dragged(grip=wrong)


def test_without_a_mask_what_is_far_goes_on_by_itself() -> None:
    result = dragged(mask=None)
    record = result.record
    assert record is not None
    assert record.optimum.constants.blend is None
    latent, unedited = record.scene.place.latent, record.trajectory[-1]
    moved = (latent != unedited).any(1)
    assert moved.any()
    assert not moved[..., -1, :].any()


def test_no_weight_on_the_mask_is_no_mask() -> None:
    assert same(dragged(config=CONFIG.replace(lam=0.0)), dragged(mask=None))


def test_bases_undo_and_files(tmp_path: Path) -> None:
    session = editor().open(PICTURE, prompt="a face")
    how: dict[str, Any] = {"method": "fast", "config": CONFIG, "mask": MASK}
    first = session.drag(POINTS, **how)
    with pytest.raises(SessionError, match="the method fast ends elsewhere than it begins"):
        session.drag(POINTS, **how, base="last")
    second = session.drag(OTHERS, **how, base="result")  # on the picture that it gave
    assert "invert" in second.timings_ms
    assert (session.undo().pixels == first.image.pixels).all()
    assert (session.redo().pixels == second.image.pixels).all()
    restored = editor().restore(session.save(tmp_path / "s.safetensors"))
    assert (restored.image.pixels == second.image.pixels).all()
    assert same(restored.drag(POINTS, **how), session.drag(POINTS, **how))


@pytest.mark.parametrize("mask", [MASK, None], ids=["mask", "no mask"])
def test_previews_show_the_moved_latent(mask: Any) -> None:
    session = editor().open(PICTURE, prompt="a face")
    config = CONFIG.replace(lr=1e-6)  # a preview without output is of the updated variable
    how: dict[str, Any] = {"method": "fast", "config": config, "mask": mask}
    *events, _ = session.drag_stream(POINTS, **how, previews=1)
    record = session.drag(POINTS, **how, record=True).record
    assert record is not None
    row, optimum = METHODS["fast"], record.optimum
    unseen: Any = SimpleNamespace(noise=None)
    clean = row.preview(record.scene, optimum.constants, optimum.start, unseen)
    frame = Frame.of(PICTURE, editor().model.factor, False)
    wanted = frame.image_of(stages.decode(record.scene.place.model, clean)).pixels.astype(int)
    assert len(events) == config.iterations
    for event in events:
        assert event.preview is not None
        assert np.abs(event.preview.pixels - wanted).max() <= 2


@pytest.mark.parametrize("finished", [False, True])
def test_a_drag_is_drawn_as_an_animation(finished: bool) -> None:
    animation = DragAnimation(frames=3, finished=finished)
    result = dragged(on_iteration=animation)
    first, *_, before, last = animation.frames(editor(), PICTURE, result)
    assert before.size == last.size == first.size
    # What is predicted is blurred, what is finished is nearly the result; neither is noise.
    far = np.abs(np.asarray(before.convert("RGB"), int) - np.asarray(last.convert("RGB"), int))
    assert far.mean() < (12 if finished else 30)


@pytest.fixture
def half() -> Editor:
    return Editor.from_pretrained(MODEL, device="cpu", dtype="bfloat16", check_pictures=False)


def test_half_precision(half: Editor) -> None:
    result = half.edit(PICTURE, POINTS, method="fast", config=CONFIG, record=True)
    assert result.record is not None
    assert result.record.optimum.variable.dtype == torch.float32
    assert np.isfinite(result.history.losses).all()


@pytest.mark.parametrize(
    ("size", "given"),
    [
        ((91, 70), {"points": [((40, 44), (60, 50))]}),
        ((64, 64), {"config": CONFIG.replace(guidance=3.0), "negative_prompt": "blurred"}),
        ((64, 64), {"points": [((0, 0), (63, 63)), ((63, 0), (0, 63)), ((1, 1), (1, 2))]}),
    ],
    ids=["odd size", "guidance", "corners"],
)
def test_what_else_is_asked_for(size: tuple[int, int], given: dict[str, Any]) -> None:
    picture = Image(PICTURE.pixels[: size[0], : size[1]])
    points, config = given.pop("points", [((20, 20), (40, 34))]), given.pop("config", CONFIG)
    for mask in (MASK[: size[0], : size[1]], None):
        how = {"mask": mask, "prompt": "a face", **given}
        result = editor().edit(picture, points, method="fast", config=config, **how)
        assert result.image.pixels.shape == picture.pixels.shape
        assert np.isfinite(result.history.losses).all()


def test_settings_beside_a_models_own() -> None:
    """The learning rate is the bottleneck's, and so the model's own."""
    assert FastConfig.beside(DragConfig(lr=0.7)) == FastConfig(lr=0.7)
    assert FastConfig.beside(DragDiffusionConfig(lr=0.7)) == FastConfig()
    assert DragDiffusionConfig.beside(DragConfig(lr=0.7)) == DragDiffusionConfig()
    own = dataclasses.replace(editor().defaults, lr=0.3)
    session = editor().open(PICTURE, config=own)
    ran = session.drag(POINTS, method="fast", mask=MASK)
    assert ran.settings["config"] == FastConfig(lr=0.3)


def counted(name: str, mask: bool) -> CountedWork:
    row = METHODS[name]
    return counted_work(editor().model, row, row.settings(), (16, 16), (64, 64), mask)


def test_counted_work_is_below_dragnoises() -> None:
    """With a mask, as the last up block is in no update; and it needs fewer of everything."""
    fast, exact = counted("fast", True), counted("dragnoise", True)
    assert fast.iteration < 0.75 * exact.iteration
    assert (fast.invert, fast.propagate, fast.show) == (exact.invert, exact.propagate, 0)
    few, many = FastConfig(), DragConfig()
    whole = fast.whole(few.iterations, few.active_steps)
    assert whole < 0.25 * exact.whole(many.iterations, many.active_steps)


class Recorded(NullGraph):
    """A graph that captures nothing, and counts that it was asked to."""

    captured = 0

    def __init__(self, work: Callable[[], None]) -> None:
        Recorded.captured += 1
        super().__init__(work)


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> type[Recorded]:
    monkeypatch.setattr("dragnoise.engine.drag.loop.graph_on", lambda device: Recorded)
    monkeypatch.setattr(Recorded, "captured", 0)
    return Recorded


def moments(
    session: Session, way: Any, mask: Any, watched: bool
) -> tuple[EditResult, list[Tensor], list[Tensor]]:
    """Drag, and return what a drag holds and copies of it; watched, also the predicted noise."""
    held: list[Tensor] = []
    shown: list[Tensor] = []
    how: dict[str, Any] = {"method": "fast", "config": CONFIG, "mask": mask}
    if watched:
        how |= {"record": True, "on_iteration": lambda it: shown.append(it.forward.noise.clone())}
    result = session.drag(way, **how)
    if result.record is not None:
        optimum = result.record.optimum
        held += [result.record.scene.place.latent, optimum.start, optimum.variable]
        held += [optimum.constants.down.bottom, result.record.final_latent]
    return result, held, shown + [each.clone() for each in held]


@pytest.mark.parametrize("mask", [MASK, None], ids=["mask", "no mask"])
@pytest.mark.parametrize("watched", [False, True], ids=["features", "output"])
def test_the_next_drag_uses_the_last_ones_graph(
    captures: type[Recorded], mask: Any, watched: bool
) -> None:
    """Its place and its constants are copied to where the graph reads; the bits are a fresh one's.

    What an earlier result holds stays as it is.
    """
    ways = [[((40, 44), (70, 58))], [((40, 44), (52, 90))], [((80, 88), (44, 60))]]
    session = editor().open(PICTURE, prompt="a face")
    made = [moments(session, way, mask, watched) for way in ways]
    assert captures.captured == 2  # iterations, and first ones
    for way, (result, held, copies) in zip(ways, made, strict=True):
        fresh, _, wanted = moments(editor().open(PICTURE, prompt="a face"), way, mask, watched)
        assert same(result, fresh)
        assert result.history.losses.tolist() == fresh.history.losses.tolist()
        assert len(copies) == len(wanted) == (8 if watched else 0)
        assert all(map(torch.equal, copies, wanted))
        assert all(map(torch.equal, held, copies[len(copies) - len(held) :]))


def test_a_drag_that_is_not_like_the_last_has_a_graph_of_its_own(captures: type[Recorded]) -> None:
    session = editor().open(PICTURE, prompt="a face")
    how: dict[str, Any] = {"method": "fast", "mask": MASK}
    session.drag(POINTS, config=CONFIG, **how)
    session.drag(OTHERS, config=CONFIG, **how)  # two handles
    session.drag(OTHERS, config=CONFIG.replace(lr=0.03), **how)
    session.drag(OTHERS, config=CONFIG.replace(lr=0.03, strength=0.4), **how)  # another place
    session.drag(OTHERS, config=DragConfig(steps=10, strength=0.4, iterations=3))  # another method
    assert captures.captured == 5


def test_it_does_so_with_guidance_in_half_precision(captures: type[Recorded], half: Editor) -> None:
    """Where the constants hold anchors, and two texts."""
    how: dict[str, Any] = {"method": "fast", "config": CONFIG.replace(guidance=3.0), "mask": MASK}
    session = half.open(PICTURE, prompt="a face", negative_prompt="blurred")
    results = [session.drag(way, **how) for way in (POINTS, [((40, 44), (52, 90))])]
    assert captures.captured == 2
    fresh = half.open(PICTURE, prompt="a face", negative_prompt="blurred")
    wanted = fresh.drag([((40, 44), (52, 90))], **how)
    assert same(results[1], wanted)
    assert results[1].history.losses.tolist() == wanted.history.losses.tolist()
    assert not same(*results)
