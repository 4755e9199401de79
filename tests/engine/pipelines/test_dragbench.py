"""Real pictures, points, masks and prompts through the public API. With a random model the pixels
mean nothing; sizes, points and determinism do.
"""

from functools import cache

import numpy as np
import pytest

import dragbench
from dragbench import Sample
from dragnoise.engine import DragConfig, Editor, EditResult, Image
from golden_cases import MODEL

NAMES = dragbench.names()
QUICK = DragConfig(steps=10, strength=0.2, iterations=2)
needs_samples = pytest.mark.skipif(
    not NAMES, reason=f"DragBench's samples are not at {dragbench.FOLDER}"
)


@cache
def editor() -> Editor:
    return Editor.from_pretrained(MODEL, device="cpu", check_pictures=False)


def edited(sample: Sample) -> EditResult:
    return editor().edit(
        sample.image, sample.points, mask=sample.mask, prompt=sample.prompt, config=QUICK
    )


@needs_samples
def test_the_samples_are_the_twelve() -> None:
    heights = [Image.of(Sample.of(dragbench.FOLDER / name).image).height for name in NAMES]
    assert len(NAMES) == 12
    assert sum(height % 8 > 0 for height in heights) == 7
    assert {name.partition("/")[0] for name in NAMES} == {
        path.name for path in dragbench.FOLDER.iterdir() if path.is_dir()
    }


@needs_samples
@pytest.mark.parametrize("name", NAMES)
def test_every_sample_is_edited_twice_the_same(name: str) -> None:
    sample = Sample.of(dragbench.FOLDER / name)
    height, width = sample.mask.shape
    first, second = edited(sample), edited(sample)
    source = Image.of(sample.image)
    assert (
        (first.image.width, first.image.height) == (source.width, source.height) == (width, height)
    )
    assert np.ptp(first.image.pixels) > 0
    assert first.points.targets == tuple((float(x), float(y)) for x, y in sample.points[1::2])
    assert len(first.points.handles) == len(sample.points) // 2
    tracked = first.history.handles.reshape(-1, 2)
    assert tracked.min() >= 0
    assert (tracked <= (width - 1, height - 1)).all()
    started = np.array(sample.points[0::2])
    assert np.abs(first.history.handles[0] - started).max() <= 1, (
        "handles start where they were put, to a supervision pixel's half"
    )

    assert (first.image.pixels == second.image.pixels).all()
    assert (first.history.losses == second.history.losses).all()
    assert (first.history.handles == second.history.handles).all()
    assert first.points == second.points
