"""A picture that the model does not know is said, once, before the work, and changes nothing."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from dragnoise.engine import DragConfig, Editor, Image, InputWarning
from dragnoise.engine.cli.demo import samples
from sessions import PICTURE, POINTS, QUICK, assert_same
from sessions import editor as unchecked

TINY = DragConfig(steps=4, strength=0.25, iterations=0)


@pytest.fixture(scope="module")
def embedded() -> Editor:
    return Editor.from_pretrained(device="cpu")


@pytest.fixture(autouse=True)
def _every_warning_counts() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def _photograph(height: int, width: int) -> Image:
    """Return noise of all scales, which the embedded model has never seen."""
    chance = np.random.default_rng(0)
    return Image(chance.integers(0, 255, (height, width, 3), dtype=np.uint8))


def test_it_is_said_once_with_its_figure_and_what_to_do(embedded: Editor) -> None:
    session = embedded.open(_photograph(64, 64), config=TINY)
    with pytest.warns(
        InputWarning, match=r"with \d+\.\d dB, less than 26: the embedded .*128 px.*another model"
    ):
        first = session.drag("20,20:30,20")
    second = session.drag("20,20:30,20")
    assert first.warnings == second.warnings
    assert len(first.warnings) == 1
    assert "rebuild" in first.timings_ms
    assert "rebuild" not in second.timings_ms


def test_the_demo_is_known(embedded: Editor) -> None:
    for sample in samples():
        session = embedded.open(Image.of(sample.image), config=TINY)
        session.prepare()


def test_a_picture_far_from_the_models_size(embedded: Editor) -> None:
    warnings.simplefilter("ignore")  # its VAE is said, too
    plain = Image(np.full((8, 520, 3), 128, np.uint8))
    with pytest.warns(InputWarning, match="520x8, up to 4.06 times the 128 pixels") as told:
        embedded.edit(plain, "20,5:30,5", config=TINY)
    assert any("520x8" in str(one.message) for one in told)


def test_it_changes_no_result() -> None:
    checked = Editor(unchecked().model)
    with pytest.warns(InputWarning, match="the model does not know such pictures"):
        with_check = checked.edit(PICTURE, POINTS, config=QUICK)
    without = unchecked().edit(PICTURE, POINTS, config=QUICK)
    assert_same(with_check, without)
    assert without.warnings == ()
