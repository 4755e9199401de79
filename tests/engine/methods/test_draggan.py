"""DragGAN through the front door, and its formulas beside what the paper writes."""

import copy
import math
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from dragnoise.engine import Editor, Store
from dragnoise.engine.config import DragConfig, DragGANConfig
from dragnoise.engine.drag.scene import Scene
from dragnoise.engine.drag.supervision import TrackedState
from dragnoise.engine.errors import ConfigError, InputWarning, SessionError
from dragnoise.engine.gan.model import StylePlace
from dragnoise.engine.inputs.image import Image
from dragnoise.engine.methods import METHODS
from dragnoise.engine.methods.draggan import DRAGGAN, StyleForward
from generators import QUICK, generator_model, style_editor

SIZE = 32
DRAG = [((10, 12), (18, 15))]


def a_scene(
    handles: list[list[int]],
    targets: list[list[int]],
    config: DragGANConfig = QUICK,
    keep: Tensor | None = None,
) -> Scene[StylePlace, DragGANConfig]:
    place = StylePlace.at(generator_model(), generator_model().network.rows(torch.zeros(1, 6)), 4)
    points = torch.tensor(handles), torch.tensor(targets)
    return Scene(place, *points, (SIZE, SIZE), keep, config)


def random_forward(side: int, seed: int = 0) -> StyleForward:
    draws = torch.Generator().manual_seed(seed)
    return StyleForward(torch.randn(1, 5, side, side, generator=draws), torch.zeros(1, 3, 1, 1))


def motion_by_pixel(
    features: Tensor, handles: list[list[int]], targets: list[list[int]], r1: int
) -> float:
    """Equation 1, pixel by pixel, on the resized map, sampled by `grid_sample`."""
    full = interpolate(features, (SIZE, SIZE), mode="bilinear", align_corners=False)
    total = 0.0
    for (row, column), (to_row, to_column) in zip(handles, targets, strict=True):
        length = math.hypot(to_row - row, to_column - column)
        if length <= 1:
            continue
        step = ((to_row - row) / length, (to_column - column) / length)
        apart = []
        for i in range(SIZE):
            for j in range(SIZE):
                if math.hypot(i - row, j - column) < r1:
                    y, x = i + step[0], j + step[1]
                    grid = torch.tensor([[[[2 * x / (SIZE - 1) - 1, 2 * y / (SIZE - 1) - 1]]]])
                    there = grid_sample(full, grid, align_corners=True, padding_mode="border")
                    apart.append((there[0, :, 0, 0] - full[0, :, i, j]).abs().mean())
        total += float(torch.stack(apart).mean())
    return total


@pytest.mark.parametrize("side", [SIZE, 8])
def test_the_motion_loss_is_equation_1(side: int) -> None:
    handles, targets = [[10, 12], [20, 5], [1, 30]], [[15, 12], [20, 6], [9, 22]]
    scene = a_scene(handles, targets)
    forward = random_forward(side)
    state = DRAGGAN.begin(scene, forward)
    loss = DRAGGAN.supervise(scene, forward, forward, state)
    expected = motion_by_pixel(forward.features, handles, targets, 3)
    assert float(loss) == pytest.approx(expected, 1e-4)


def test_the_mask_term_is_the_mean_change_of_what_is_held() -> None:
    keep = torch.zeros(1, 1, SIZE, SIZE)
    keep[..., :9] = 1
    handles, targets = [[10, 12]], [[15, 12]]
    first, later = random_forward(8, 1), random_forward(8, 2)
    free, held = a_scene(handles, targets), a_scene(handles, targets, keep=keep)
    state = DRAGGAN.begin(free, first)
    term = DRAGGAN.supervise(held, first, later, state) - DRAGGAN.supervise(
        free, first, later, state
    )
    resized = [
        interpolate(each.features, (SIZE, SIZE), mode="bilinear", align_corners=False)
        for each in (first, later)
    ]
    expected = QUICK.lam * ((resized[1] - resized[0]) * keep).abs().mean()
    torch.testing.assert_close(term, expected, atol=1e-4, rtol=1e-4)
    assert DRAGGAN.supervise(held, first, first, state) == DRAGGAN.supervise(
        free, first, first, state
    )


def test_only_the_shifted_patch_moves_the_features() -> None:
    scene = a_scene([[10, 12]], [[10, 25]])
    forward = random_forward(SIZE)
    forward.features.requires_grad_()
    state = DRAGGAN.begin(scene, forward.detach())
    (gradient,) = torch.autograd.grad(
        DRAGGAN.supervise(scene, forward.detach(), forward, state), forward.features
    )
    touched = gradient[0].abs().sum(0) > 0
    rows, columns = torch.nonzero(touched).T
    assert (int(rows.min()), int(rows.max())) == (8, 12)  # nearer than 3
    assert (int(columns.min()), int(columns.max())) == (11, 15)  # and one pixel on


@pytest.mark.parametrize("handle", [[10, 12], [0, 0], [31, 3]])
def test_a_handle_moves_to_the_pixel_like_its_own(handle: list[int]) -> None:
    config = QUICK.replace(r2=4)
    scene = a_scene([handle], [[16, 16]], config)
    forward = random_forward(SIZE, 3)
    origin = torch.randn(1, 5, generator=torch.Generator().manual_seed(4))
    state = TrackedState(scene.handles, origin, torch.tensor(False))
    moved = DRAGGAN.follow(scene, forward, forward, state).handles[0].tolist()
    best = min(
        (float((forward.features[0, :, i, j] - origin[0]).square().sum()), i, j)
        for i in range(max(0, handle[0] - 4), min(SIZE, handle[0] + 5))
        for j in range(max(0, handle[1] - 4), min(SIZE, handle[1] + 5))
    )
    assert moved == [best[1], best[2]]


@pytest.mark.parametrize(("column", "arrived"), [(14, True), (15, False)])
def test_a_drag_stops_two_pixels_from_its_target(column: int, arrived: bool) -> None:
    scene = a_scene([[12, 12]], [[12, column]])
    state = DRAGGAN.begin(scene, random_forward(SIZE))
    assert bool(DRAGGAN.finished(scene, state)) is arrived


def test_an_edit_is_deterministic_and_moves_the_first_rows_alone() -> None:
    picture = style_editor().sample(3)
    one = style_editor().edit(picture, DRAG, method="draggan", record=True)
    other = style_editor().edit(picture, DRAG, method="draggan")
    np.testing.assert_array_equal(one.image.pixels, other.image.pixels)
    np.testing.assert_array_equal(one.history.losses, other.history.losses)
    assert len(one.history.losses) == QUICK.iterations
    assert not np.array_equal(one.image.pixels, picture.image.pixels)
    assert one.settings["config"] == QUICK
    assert one.record is not None
    assert one.record.variable.shape == (1, 4, 10)


def test_a_recorded_result_can_be_sent_and_copied() -> None:
    result = style_editor().edit(style_editor().sample(3), DRAG, method="draggan", record=True)
    assert result.record is not None
    sent = pickle.loads(pickle.dumps(result))  # noqa: S301
    copied = copy.deepcopy(result)
    for came in (sent, copied):
        assert came.record is not None
        np.testing.assert_array_equal(came.image.pixels, result.image.pixels)
        torch.testing.assert_close(came.record.variable, result.record.variable, rtol=0, atol=0)
    assert sent.record.scene.place is None
    assert copied.record is not None
    assert copied.record.scene.place is result.record.scene.place


def test_without_an_update_the_picture_is_the_generators_own() -> None:
    picture = style_editor().sample(3)
    config = QUICK.replace(iterations=0)
    result = style_editor().edit(picture, DRAG, method="draggan", config=config)
    levels = np.abs(result.image.pixels.astype(int) - picture.image.pixels.astype(int))
    assert levels.max() <= 1
    assert "dB" in result.warnings[0]


def test_every_iteration_is_its_own_preview() -> None:
    session = style_editor().open(style_editor().sample(4))
    events = list(session.drag_stream(DRAG, method="draggan", previews=1))
    previews = [event.preview for event in events[:-1]]
    assert len(previews) == QUICK.iterations
    assert all(preview is not None for preview in previews)
    assert previews[0] is not None
    first = np.abs(previews[0].pixels.astype(int) - session.source.pixels.astype(int))
    assert first.max() <= 1
    whole = style_editor().edit(style_editor().sample(4), DRAG, method="draggan")
    last = events[-1].result
    assert last is not None
    np.testing.assert_array_equal(last.image.pixels, whole.image.pixels)


def test_a_session_undoes_goes_on_and_is_restored(tmp_path: Path) -> None:
    session = style_editor().open(style_editor().sample(3))
    first = session.drag(DRAG, method="draggan")
    goes_on = session.drag(DRAG, method="draggan", base="last")
    assert not np.array_equal(first.image.pixels, goes_on.image.pixels)
    still = session.drag(DRAG, method="draggan", base="result", config=QUICK.replace(iterations=0))
    np.testing.assert_array_equal(still.image.pixels, goes_on.image.pixels)
    session.undo()
    np.testing.assert_array_equal(session.undo().pixels, first.image.pixels)
    restored = style_editor().restore(session.save(tmp_path / "session.safetensors"))
    again = restored.drag(DRAG, method="draggan", base="last")
    np.testing.assert_array_equal(again.image.pixels, goes_on.image.pixels)


@pytest.mark.filterwarnings("ignore:the generator rebuilds")
def test_a_real_picture_is_found_and_its_error_said() -> None:
    picture = style_editor().sample(6, truncation=1.0).image
    session = style_editor().open(picture)
    few, many = (QUICK.replace(inversion_steps=steps, iterations=1) for steps in (1, 100))
    with pytest.warns(InputWarning, match="does not know such pictures") as warned:
        poor = session.drag(DRAG, method="draggan", config=few)
    good = session.drag(DRAG, method="draggan", config=many)
    again = session.drag(DRAG, method="draggan", config=many)
    assert str(warned[0].message) == poor.warnings[0]

    def rebuilt_db(text: str) -> float:
        return float(text.split(" dB")[0].split()[-1])

    assert rebuilt_db(good.warnings[0]) > rebuilt_db(poor.warnings[0]) + 3
    assert "find_styles" in good.timings_ms
    assert "find_styles" not in again.timings_ms


def test_a_search_is_kept_by_the_cache(tmp_path: Path) -> None:
    editor = Editor.from_pretrained(generator=generator_model(), cache=Store(folder=tmp_path))
    picture = style_editor().sample(6).image
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        first = editor.edit(picture, DRAG, method="draggan")
        second = editor.edit(picture, DRAG, method="draggan")
    assert "find_styles" in first.timings_ms
    assert "find_styles" not in second.timings_ms
    np.testing.assert_array_equal(first.image.pixels, second.image.pixels)


@pytest.mark.filterwarnings("ignore:the generator rebuilds")
def test_a_prepared_session_searches_no_more() -> None:
    session = style_editor().open(style_editor().sample(6).image)
    told = list[tuple[str, int, int]]()
    session.prepare(method="draggan", progress=lambda *each: told.append(each))
    assert told[-1] == ("invert", QUICK.inversion_steps, QUICK.inversion_steps)
    assert "find_styles" not in session.drag(DRAG, method="draggan").timings_ms


@pytest.mark.filterwarnings("ignore:the generator rebuilds")
def test_methods_take_over_from_each_other() -> None:
    session = style_editor().open(style_editor().sample(3))
    first = session.drag(DRAG, method="draggan")
    diffused = DragConfig(steps=4, iterations=1)
    second = session.drag(DRAG, config=diffused, base="result")
    third = session.drag(DRAG, method="draggan", base="result")
    assert (second.settings["base"], third.settings["base"]) == ("inverted", "inverted")
    assert not np.array_equal(first.image.pixels, third.image.pixels)
    with pytest.raises(SessionError, match="cannot go on"):
        session.drag(DRAG, config=diffused, base="last")


@pytest.mark.filterwarnings("ignore:the generator rebuilds")
def test_a_picture_of_another_size_keeps_it() -> None:
    large = Image(np.full((50, 70, 3), 90, dtype=np.uint8))
    result = style_editor().edit(large, [((60, 40), (20, 10))], method="draggan")
    assert result.image.pixels.shape == (50, 70, 3)
    assert "edited as one of 32x32" in result.warnings[1]


@pytest.mark.parametrize("handle", [(0, 0), (31, 31), (0, 31)])
def test_corners_can_be_dragged(handle: tuple[int, int]) -> None:
    result = style_editor().edit(
        style_editor().sample(2), [(handle, (15, 15))], method="draggan", mask=np.eye(32)
    )
    assert np.isfinite(result.history.losses).all()
    assert ((result.history.handles >= 0) & (result.history.handles <= 31)).all()


def test_what_is_held_changes_less() -> None:
    mask = np.zeros((32, 32))
    mask[:, :18] = 1
    picture = style_editor().sample(3)
    config = QUICK.replace(lam=200.0)
    free = style_editor().edit(picture, DRAG, method="draggan")
    held = style_editor().edit(picture, DRAG, method="draggan", mask=mask, config=config)
    right = (slice(None), slice(18, None))
    before = picture.image.pixels[right].astype(float)
    changes = [np.abs(each.image.pixels[right] - before).mean() for each in (free, held)]
    assert changes[1] < changes[0]


def test_settings_of_another_method_are_refused() -> None:
    picture = style_editor().sample(3)
    with pytest.raises(ConfigError, match="draggan takes a DragGANConfig"):
        style_editor().edit(picture, DRAG, method="draggan", config=DragConfig())
    with pytest.raises(ConfigError, match="dragnoise takes a DragConfig"):
        style_editor().edit(picture, DRAG, config=QUICK)


@pytest.mark.parametrize(
    ("changes", "said"), [({"rows": 9}, "has 8 style vectors"), ({"block": 5}, "has 4 resolutions")]
)
def test_more_than_the_generator_has_is_refused(changes: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        style_editor().edit(
            style_editor().sample(3), DRAG, method="draggan", config=QUICK.replace(**changes)
        )


def test_it_is_a_row_of_the_table() -> None:
    assert METHODS["draggan"] is DRAGGAN
