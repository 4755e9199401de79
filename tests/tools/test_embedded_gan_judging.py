"""The embedded generator's judge finds landmarks, and asks for drags that can be done."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from dragnoise.bench.world import landmarks, painting
from dragnoise.bench.world import scenes as world
from dragnoise.engine.config import DragGANConfig
from dragnoise.engine.gan.folder import load_generator
from dragnoise.engine.gan.writing import write_folder
from embedded_gan import accept, pack
from generators import generator_model


@pytest.mark.parametrize("seed", [0, 1])
def test_landmarks_are_found_in_a_noisy_picture(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = world.draw_land(rng, str(rng.choice(list(world.SKIES))), effects=False)
    drawn, places = painting.render(scene)
    noisy = np.clip(drawn + rng.normal(0, 8, drawn.shape), 0, 255).astype(np.uint8)
    found, seen, unclear = landmarks.find(noisy)
    assert (found.sky, found.ground, found.roof) == (scene.sky, scene.ground, scene.roof)
    assert all(math.dist(seen[kind], places[kind]) < 1 for kind in places)
    assert unclear < landmarks.CLEAR
    noise = rng.integers(0, 256, drawn.shape, dtype=np.uint8)
    assert landmarks.find(noise)[2] > landmarks.CLEAR


@pytest.mark.parametrize("kind", accept.KINDS)
def test_targets_are_a_drag_away_and_inside(kind: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        scene = world.draw_land(rng, "day", effects=False)
        place = painting.render(scene)[1][kind]
        target = accept._target(rng, kind, place)
        assert all(8 <= side <= 120 for side in target)
        assert 9 <= math.dist(place, target) <= 20


def test_a_sun_behind_the_mountain_is_not_in_sight() -> None:
    places = {"sun": (64.0, 70.0), "peak": (64.0, 50.0), "house": (20.0, 101.0)}
    assert not accept._in_sight(places)
    assert accept._in_sight(places | {"sun": (20.0, 20.0)})


def test_a_packed_generator_is_read_with_its_settings(tmp_path: Path) -> None:
    trained, folder = tmp_path / "generator", tmp_path / "embedded"
    trained.mkdir()
    write_folder(trained, generator_model().network)
    assert pack.pack(trained, folder) > 1000
    pack.write_card(folder, DragGANConfig(lr=0.02, block=4, rows=6))
    assert json.loads((folder / "drag.json").read_text()) == {"block": 4, "lr": 0.02}
    assert load_generator(folder).defaults == DragGANConfig(lr=0.02, block=4)
    places = {"peak": (60.4, 50.2), "sun": (20.0, 20.0), "house": (90.0, 101.0)}
    drags = [accept.Drag(kind, 7, places, (64.6, 30.0)) for kind in ("peak", "sun", "peak")]
    pack.write_samples(folder, drags, 0.7)
    rows = json.loads((folder / "samples" / "samples.json").read_text())
    assert [row["name"] for row in rows] == ["peak", "sun", "peak2"]
    assert rows[0]["drags"] == [[60, 50, 65, 30]]
