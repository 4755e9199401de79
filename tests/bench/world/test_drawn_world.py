"""Draw scenes, pictures and drags, and find again what was drawn."""

import dataclasses

import numpy as np
import pytest

from dragnoise.bench.world import analysis, painting, scenes
from dragnoise.bench.world.drags import CHANGED, LOTS, between, drag, drags
from dragnoise.bench.world.kinds import KINDS, is_hidden
from dragnoise.bench.world.scenes import Air, Land, Scene, Sea


def drawn(count: int, effects: bool = True) -> list[Scene]:
    rng = np.random.default_rng(5)
    sorts = list(scenes.DRAW.values())
    return [sorts[at % 3](rng, "day", effects) for at in range(count)]


def test_a_scene_is_drawn_the_same_every_time() -> None:
    for scene in drawn(12):
        first, second = painting.render(scene), painting.render(dataclasses.replace(scene))
        assert np.array_equal(first[0], second[0])
        assert first[1] == second[1]


def test_landmarks_of_plain_scenes_lie_in_the_picture() -> None:
    for scene in drawn(30, effects=False):
        picture, landmarks = painting.render(scene)
        assert picture.shape == (scenes.SIZE, scenes.SIZE, 3)
        assert picture.dtype == np.uint8
        things = {name: place for name, place in landmarks.items() if "_" not in name}
        assert all(0 <= value < scenes.SIZE for place in things.values() for value in place)


def test_a_partner_differs_in_one_to_three_places_and_never_in_words() -> None:
    rng = np.random.default_rng(6)
    for scene in drawn(60):
        other = scenes.partner(scene, rng)
        changed = {name for name, value in vars(scene).items() if getattr(other, name) != value}
        assert changed <= set(scenes.geometry(scene))
        assert len(changed) <= 3
        assert scenes.caption(other) == scenes.caption(scene)
        assert scenes.is_drawable(other)


SEA = Sea("day", "red", "white", 40, 44, 90, 30, effects=True)
LAND = Land("day", "green", "red", 60, 50, 20, 30, 90, effects=True)
AIR = Air("day", "green", "red", "blue", 40, 40, 16, sun_x=100, sun_y=30, effects=True)


@pytest.mark.parametrize(
    ("scene", "change", "rows", "columns"),
    [
        (SEA, {"sun_x": 100}, slice(90, 128), slice(75, 128)),  # the glitter follows the sun
        (SEA, {"boat_x": 60}, slice(112, 128), slice(0, 128)),  # the reflection the boat
        (LAND, {"sun_x": 100}, slice(114, 128), slice(50, 128)),  # the house's shadow swings round
        (AIR, {"balloon_x": 60}, slice(116, 124), slice(0, 128)),  # the shadow goes with it
        (SEA, {"sun_y": 60}, slice(0, 8), slice(0, 30)),  # the sky's colour follows the sun
        (LAND, {"sun_y": 56}, slice(0, 8), slice(110, 128)),
    ],
)
def test_effects_change_the_picture_elsewhere(
    scene: Scene, change: dict[str, float], rows: slice, columns: slice
) -> None:
    def changed(scene: Scene) -> int:
        before = painting.render(scene)[0].astype(int)
        after = painting.render(scenes.with_geometry(scene, change))[0]
        return int((np.abs(before - after)[rows, columns].max(-1) > 3).sum())

    assert changed(scene) > 20
    if "boat_x" not in change:  # whose dark ellipse is painted without effects too
        assert changed(dataclasses.replace(scene, effects=False)) == 0


def test_the_snow_line_stays_where_it_is_when_the_mountain_grows() -> None:
    white = []
    for height in (52, 64):
        picture = painting.render(dataclasses.replace(LAND, peak_height=height, house_x=20))[0]
        whole = picture.min(-1) > 240
        white.append(int(np.nonzero(whole[:, 40:80].any(1))[0].max()))
    assert abs(white[0] - white[1]) <= 2


def test_a_picture_can_have_another_s_light() -> None:
    goal = dataclasses.replace(SEA, sun_x=60)
    left_behind = painting.render(goal, light=SEA)[0]
    assert np.array_equal(left_behind[100:], painting.render(SEA)[0][100:])
    assert np.array_equal(left_behind[20:40], painting.render(goal)[0][20:40])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_again_from_its_name_alone(kind: str) -> None:
    row = KINDS[kind]
    for number in range(2):
        one = drag("judging", kind, number)
        again = drag("judging", kind, number)
        assert one.name == f"judging-{kind}-{number}"
        assert (one.scene, one.goal, one.prompt) == (again.scene, again.goal, again.prompt)
        assert scenes.is_drawable(one.goal)
        assert row.is_fit(one.scene, one.goal)
        assert one.changed.any()
        assert one.things
        assert len(one.handles) == len(one.targets) == len(one.landmarks) >= 1
        assert np.abs(one.before.astype(int) - one.after)[~one.area].max(initial=0) <= CHANGED
        assert not (one.consequence & (one.body | one.arrived)).any()
        assert not (one.uncovered & one.arrived).any()


def test_lots_never_mix() -> None:
    kinds = ("boat", "house")
    seen = {one.scene: lot for lot in LOTS for one in drags(lot, kinds, 4)}
    assert len(seen) == len(LOTS) * len(kinds) * 4


def test_masks_and_prompts_are_what_their_kinds_say() -> None:
    assert drag("tuning", "maskless", 0).mask is None
    assert drag("tuning", "maskless", 0).allowed.all()
    assert drag("tuning", "no-prompt", 0).prompt == ""
    wrong = drag("tuning", "wrong-prompt", 0)
    assert wrong.prompt != scenes.caption(wrong.scene)
    for number in range(4):
        loose = drag("tuning", "loose", number)
        assert loose.mask is not None
        assert loose.mask[loose.area].mean() > 0.95
        assert loose.mask.sum() > loose.area.sum()
        missing = drag("tuning", "wrong-mask", number)
        assert missing.mask is not None
        lost = (missing.body & ~missing.mask).sum() / missing.body.sum()
        assert 0.1 < lost < 0.6
    tight = drag("tuning", "boat", 0)
    assert np.array_equal(tight.allowed, tight.area)


def test_lengths_and_handles_are_what_their_kinds_say() -> None:
    assert 4 <= drag("tuning", "short", 0).length_px <= 8
    assert 28 <= drag("tuning", "long", 0).length_px <= 40
    assert 3 <= len(drag("tuning", "many", 0).handles) <= 5
    assert len(drag("tuning", "opposite", 0).things) == 2
    crossing = drag("tuning", "crossing", 0)
    assert isinstance(crossing.scene, Sea)
    assert isinstance(crossing.goal, Sea)
    behind = drag("tuning", "behind", 0)
    assert is_hidden(behind.scene) != is_hidden(behind.goal)


@pytest.mark.parametrize("kind", ["balloon", "boat-turn", "opposite", "sky"])
def test_analysis_finds_how_far_a_drag_went(kind: str) -> None:
    one = drag("tuning", kind, 0)
    none, all_ = (analysis.find(one, picture) for picture in (one.before, one.after))
    assert (none.completion, all_.completion) == pytest.approx((0, 1))
    assert none.distance_px == pytest.approx(one.length_px)
    assert all_.distance_px == pytest.approx(0)
    partly = painting.render(between(one, 0.6), light=one.scene)[0]  # and left its effects behind
    assert analysis.find(one, partly).completion == pytest.approx(0.6)


def test_analysis_finds_what_went_astray() -> None:
    one = drag("tuning", "balloon", 0)
    assert isinstance(one.goal, Air)
    astray = dataclasses.replace(one.goal, balloon_x=one.goal.balloon_x + 5)
    found = analysis.find(one, painting.render(astray)[0])
    assert found.distance_px == pytest.approx(5, abs=0.6)
