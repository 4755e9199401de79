"""Drags on a generator's own pictures: where they are from, who edits them, what is judged."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragnoise.bench.fidelity.pixels import psnr
from dragnoise.bench.quality import generated
from dragnoise.bench.quality.contestants import CONTESTANTS, DRAGGAN, OF_GENERATED, Studio
from dragnoise.bench.quality.generated import GENERATED, GeneratedDrag, generated_drag, seeds_of
from dragnoise.bench.quality.run import by_drag, worker
from dragnoise.bench.quality.warps import moved_thing
from dragnoise.bench.world import landmarks
from dragnoise.bench.world.analysis import find
from dragnoise.bench.world.drags import LOTS
from dragnoise.bench.world.kinds import KINDS
from dragnoise.engine import Editor, ModelError
from generators import generator_model

HOUSE = "tuning-generated-house-0"


@pytest.fixture(scope="module")
def editor() -> Editor:
    return Editor.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def house(editor: Editor) -> GeneratedDrag:
    return generated_drag(editor, "tuning", "generated-house", 0)


def test_no_two_drags_have_a_seed_in_common() -> None:
    drags = itertools.product(LOTS, GENERATED, (0, 1, 7, 1000))
    seeds = [seed for drag in drags for seed in seeds_of(*drag)]
    assert len(seeds) == len(set(seeds))
    assert min(seeds) > 2_000_000  # the generator's own judge looks at those from a million on
    assert not GENERATED.keys() & KINDS.keys()


def test_a_drag_is_on_a_picture_of_its_seeds(editor: Editor, house: GeneratedDrag) -> None:
    assert house.name == HOUSE
    assert house.source.seed in seeds_of("tuning", "generated-house", 0)
    again = editor.sample(house.source.seed).image.pixels
    assert np.array_equal(house.before, again)
    assert 12 <= house.length_px <= 20
    assert house.things == ("house",)
    assert psnr(house.before, house.after, house.area) < 30  # a soft picture, and another place


def test_the_thing_is_found_where_the_drag_begins_and_where_a_warp_puts_it(
    house: GeneratedDrag,
) -> None:
    assert find(house, house.before).distance_px == pytest.approx(house.length_px, abs=1.5)
    assert find(house, moved_thing(house).picture).distance_px < 3
    x, y = landmarks.find(house.before)[1]["house"]
    assert math.dist((x, y), house.handles[0]) < 1e-6


def test_what_changes_is_told_from_the_scenes_not_from_a_soft_picture(house: GeneratedDrag) -> None:
    assert house.mask is not None
    assert 0.02 < house.mask.mean() < 0.35
    columns = np.nonzero(house.body.any(0))[0]
    assert columns.min() <= house.handles[0][0] <= columns.max()
    assert columns.max() - columns.min() < 36


def test_a_generator_of_other_pictures_is_refused(
    editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Editor(editor.model, generator=generator_model())
    with pytest.raises(ModelError, match="taught the drawn world"):
        generated_drag(other, "tuning", "generated-sun", 0)
    monkeypatch.setattr(landmarks, "CLEAR", 0.0)
    monkeypatch.setattr(generated, "_TRIES", 1)
    with pytest.raises(ModelError, match="128 x 128"):
        generated_drag(editor, "tuning", "generated-sun", 0)


def test_draggan_edits_and_places_alone_are_judged(editor: Editor, tmp_path: Path) -> None:
    work = worker(Studio(editor, 10, {DRAGGAN: {"iterations": 12}}), tmp_path)
    results = {f"{HOUSE}/{name}": work(f"{HOUSE}/{name}") for name in OF_GENERATED}
    (found,) = by_drag(results).values()
    assert found["kind"] == "generated-house"
    scores = found["scores"]
    assert list(scores) == ["nothing", "warp", DRAGGAN]
    assert scores[DRAGGAN]["iterations"] == 12
    assert scores[DRAGGAN]["distance_px"] < scores["nothing"]["distance_px"] - 2
    assert scores["nothing"]["outside_source_db"] > 100 > scores[DRAGGAN]["outside_source_db"] > 25
    assert "gain_db" not in scores[DRAGGAN]
    assert "drag" not in scores[DRAGGAN]
    assert {path.stem for path in (tmp_path / HOUSE).iterdir()} == {
        "before",
        "after",
        "mask",
        *OF_GENERATED,
    }


def test_settings_are_the_generator_s_own_with_changes(editor: Editor) -> None:
    own = editor.generator.defaults
    assert Studio(editor, 10).draggan == own
    assert Studio(editor, 10, {DRAGGAN: {"r2": 5}}).draggan == own.replace(r2=5)
    assert DRAGGAN not in CONTESTANTS


def test_a_drag_that_nobody_could_make_has_failed() -> None:
    lost = {f"{HOUSE}/{name}": {"failed": "no scene"} for name in OF_GENERATED}
    assert by_drag(lost) == {HOUSE: {"failed": "no scene"}}
    results: dict[str, dict[str, Any]] = {
        f"{HOUSE}/nothing": {"drag": {"kind": "generated-house"}, "distance_px": 1.0},
        f"{HOUSE}/{DRAGGAN}": {"failed": "no memory"},
    }
    (found,) = by_drag(results).values()
    assert found["kind"] == "generated-house"
    assert found["scores"] == {"nothing": {"distance_px": 1.0}, DRAGGAN: {"failed": "no memory"}}
