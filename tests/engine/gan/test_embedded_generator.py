"""The generator that comes with the package draws its scenes and drags what it drew."""

import json
import math

import pytest

from dragnoise.bench.world import landmarks
from dragnoise.engine import Editor
from dragnoise.engine.cli.demo import SeedSample, seed_samples
from dragnoise.engine.gan.folder import EMBEDDED, load_generator
from embedded_gan.teach import PLACING, held_out

FOLDER_BYTES = 12_000_000


@pytest.fixture(scope="module")
def editor() -> Editor:
    return Editor.from_pretrained(device="cpu")


def test_is_small() -> None:
    assert sum(path.stat().st_size for path in EMBEDDED.rglob("*")) < FOLDER_BYTES


def test_draws_what_its_vectors_stand_for() -> None:
    model = load_generator()
    assert held_out(model.network, len(model.architecture.channels), 16)[2] > 23


def test_its_card_moves_the_rows_that_decide_places() -> None:
    card = json.loads((EMBEDDED / "drag.json").read_text())
    assert card.get("rows", PLACING) == PLACING
    assert load_generator().defaults.block == card["block"]


@pytest.mark.parametrize("sample", seed_samples(), ids=lambda sample: str(sample.name))
def test_a_drag_moves_its_landmark_to_the_target(editor: Editor, sample: SeedSample) -> None:
    picture = editor.sample(sample.seed, truncation=sample.truncation)
    result = editor.edit(picture, sample.points, method="draggan")
    target = sample.points.targets[0]
    kind = sample.name.rstrip("0123456789")
    before, after = (
        landmarks.find(image.pixels)[1][kind] for image in (picture.image, result.image)
    )
    assert math.dist(before, target) > 10
    assert math.dist(after, target) < 5
