"""DragBench's folders are read, published or converted."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import dragbench
from dragnoise.bench.dragbench.samples import CATEGORIES, names_of, read_sample, write_order
from dragnoise.engine import ConfigError, ImageError, MaskError, PointError, Points
from miniature_dragbench import SAMPLES, said_of, write_dragbench


def test_only_folders_of_samples_count(tmp_path: Path) -> None:
    root = write_dragbench(tmp_path / "bench")
    assert names_of(root) == ["art_work/b", "animals/one", "a_category_of_ones_own/x"]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_what_was_pickled(name: str, tmp_path: Path) -> None:
    root = write_dragbench(tmp_path / "bench")
    sample, said = read_sample(root, name, tmp_path / "out"), said_of(name)
    assert (sample.name, sample.prompt) == (name, said["prompt"])
    assert sample.category == name.split("/")[0]
    given = [(float(x), float(y)) for x, y in said["points"]]
    assert sample.points == Points(tuple(given[0::2]), tuple(given[1::2]))
    np.testing.assert_array_equal(sample.mask.editable, said["mask"] > 0)
    assert (sample.image.height, sample.image.width) == SAMPLES[name][0]


def test_what_was_converted_needs_no_pickle(tmp_path: Path) -> None:
    root, converted = write_dragbench(tmp_path / "bench"), tmp_path / "out"
    first = {name: read_sample(root, name, converted) for name in names_of(root)}
    write_order(root, converted)
    assert not list(converted.rglob("*.pkl"))
    listed = names_of(root, as_listed=True)
    shutil.rmtree(root)
    assert names_of(converted) == list(first)
    assert names_of(converted, as_listed=True) == listed
    for name, sample in first.items():
        again = read_sample(converted, name, tmp_path / "nowhere")
        assert (again.prompt, again.points) == (sample.prompt, sample.points)
        np.testing.assert_array_equal(again.image.pixels, sample.image.pixels)
        np.testing.assert_array_equal(again.mask.editable, sample.mask.editable)
    assert not (tmp_path / "nowhere").exists()


def test_the_listed_order_is_remembered(tmp_path: Path) -> None:
    root = tmp_path / "bench"
    for name in ("animals/c", "animals/a", "art_work/z", "animals/b"):
        (root / name).mkdir(parents=True)
        (root / name / "sample.json").write_text("{}")
    (root / "order.json").write_text('["animals/b", "art_work/z", "animals/c", "animals/a"]')
    assert names_of(root) == ["art_work/z", "animals/a", "animals/b", "animals/c"]
    listed = names_of(root, as_listed=True)
    assert listed == ["art_work/z", "animals/b", "animals/c", "animals/a"]
    (root / "order.json").write_text("3")
    with pytest.raises(ConfigError, match="no list of samples"):
        names_of(root, as_listed=True)


@pytest.mark.parametrize("what", ["absent", "empty", "a file"])
def test_no_dragbench_is_named(what: str, tmp_path: Path) -> None:
    root = tmp_path / "bench"
    if what == "empty":
        (root / "animals" / "x").mkdir(parents=True)
    elif what == "a file":
        root.write_text("")
    with pytest.raises(ConfigError, match="bench'"):
        names_of(root)


@pytest.mark.parametrize(
    ("file", "content", "error"),
    [
        ("sample.json", "{", ImageError),
        ("sample.json", "[]", ImageError),
        ("sample.json", '{"prompt": "", "points": []}', PointError),
        ("sample.json", '{"prompt": "", "points": [[1, 2], [3000, 4]]}', PointError),
        ("sample.json", '{"prompt": "", "points": [[1, 2], [NaN, 4]]}', PointError),
        ("mask.png", "no picture", MaskError),
        ("original_image.png", "no picture", ImageError),
    ],
)
def test_a_converted_sample_is_checked(
    file: str, content: str, error: type[Exception], tmp_path: Path
) -> None:
    root, converted = write_dragbench(tmp_path / "bench"), tmp_path / "out"
    read_sample(root, "animals/one", converted)
    (converted / "animals" / "one" / file).write_text(content)
    with pytest.raises(error):
        read_sample(converted, "animals/one", tmp_path)


@pytest.mark.skipif(not dragbench.names(), reason=f"DragBench is not at {dragbench.FOLDER}")
def test_the_twelve_samples_are_read(tmp_path: Path) -> None:
    names = names_of(dragbench.FOLDER)
    assert sorted(names) == dragbench.names()
    assert {name.partition("/")[0] for name in names} == {*CATEGORIES}
    for name in names[::4]:
        sample = read_sample(dragbench.FOLDER, name, tmp_path)
        assert sample.mask.editable.shape == (sample.image.height, sample.image.width)
        assert sample.mask.editable.any()
