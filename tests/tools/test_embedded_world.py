"""Draw the embedded model's scenes, pictures and drags, and read its words."""

import dataclasses

import numpy as np
import pytest

from embedded_model import drags, painting, samples, words, world
from embedded_model.drags import KINDS


def scenes(count: int) -> list[world.Scene]:
    rng = np.random.default_rng(5)
    return [world.draw_scene(rng) for _ in range(count)]


def test_a_scene_is_drawn_the_same_every_time() -> None:
    for scene in scenes(12):
        first, second = painting.render(scene), painting.render(dataclasses.replace(scene))
        assert np.array_equal(first[0], second[0])
        assert first[1] == second[1]


def test_landmarks_lie_in_the_picture() -> None:
    for scene in scenes(60):
        picture, landmarks = painting.render(scene)
        assert picture.shape == (world.SIZE, world.SIZE, 3)
        assert picture.dtype == np.uint8
        assert all(0 <= value < world.SIZE for point in landmarks.values() for value in point)


def test_a_partner_differs_in_one_to_three_places_and_never_in_words() -> None:
    rng = np.random.default_rng(6)
    for scene in scenes(60):
        other = world.partner(scene, rng)
        changed = {name for name, value in vars(scene).items() if getattr(other, name) != value}
        assert changed <= set(world.geometry(scene))
        assert 1 <= len(changed) <= 3
        assert world.caption(other) == world.caption(scene)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_word_is_one_token(seed: int) -> None:
    tokenizer = words.tokenizer()
    rng = np.random.default_rng(seed)
    for word in words.WORDS:
        assert len(tokenizer(word).input_ids) == 3, word
    for _ in range(100):
        caption = world.caption(world.draw_scene(rng))
        assert len(tokenizer(caption).input_ids) == len(caption.split()) + 2 <= words.LENGTH


def test_a_word_it_never_saw_is_spelled() -> None:
    tokenizer = words.tokenizer()
    assert tokenizer.decode(tokenizer("zebra é").input_ids, skip_special_tokens=True) == "zebra é"


def test_drags_are_held_out_of_one_kind_each_and_repeatable() -> None:
    found, again = drags.ground_truth_drags(10, 3), drags.ground_truth_drags(10, 3)
    assert [drag.kind for drag in found] == [*KINDS, *KINDS]
    for drag, same in zip(found, again, strict=True):
        assert drag.scene == same.scene
        assert drag.goal == same.goal
        assert drag.length_px > 8
        assert drag.mask[round(drag.target[1]), round(drag.target[0])]
        assert np.array_equal(drag.before[~drag.mask], drag.after[~drag.mask]) or (
            np.abs(drag.before.astype(int) - drag.after)[~drag.mask].max() <= drags.CHANGED
        )


def test_analysis_finds_how_far_a_drag_went() -> None:
    for drag in drags.ground_truth_drags(5, 8):
        assert drags.completion(drag, drag.before) == pytest.approx((0.0, drag.length_px))
        assert drags.completion(drag, drag.after) == (1.0, 0.0)
        assert drags.completion(drag, painting.render(drags.between(drag, 0.6))[0])[
            0
        ] == pytest.approx(0.6)


def test_psnr_of_known_differences() -> None:
    black, grey = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 51, np.uint8)
    assert drags.psnr(black, grey) == pytest.approx(20 * np.log10(5))
    where = np.zeros((4, 4), bool)
    where[0, 0] = True
    grey[0, 0] = 255
    assert drags.psnr(black, grey, where) == pytest.approx(0)


def test_the_demo_ships_a_sample_of_each_kind() -> None:
    found = samples.demo_drags()
    assert [drag.kind for drag in found] == list(samples.PICKED)
    assert len({drag.kind for drag in found}) == len(found) >= 4
