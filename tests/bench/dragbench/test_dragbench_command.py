"""`python -m dragnoise.bench dragbench` from a folder to its tables, on small pictures."""

import csv
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import dragbench
import judging
from dragnoise.bench.__main__ import main
from dragnoise.bench.dragbench import measures
from dragnoise.bench.dragbench.asked import seed_of
from dragnoise.bench.dragbench.samples import convert, read_sample
from dragnoise.bench.fidelity.dai import dragging_accuracy
from dragnoise.bench.fidelity.dift import Dift
from dragnoise.bench.fidelity.distance import masked_distance, mean_distance, windowed_distance
from dragnoise.engine import Image
from dragnoise.engine.diffusion.load import load
from golden_cases import MODEL
from judging import ByChance
from lpips_weights import random_weights
from miniature_dragbench import SAMPLES, said_of, write_dragbench

NAMES = ["art_work/b", "animals/one", "a_category_of_ones_own/x"]
QUICK = ("--model", str(MODEL), "--device", "cpu", "--threads", "1")
QUICKLY = "steps=4,strength=0.5,iterations=2"

Run = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return write_dragbench(tmp_path / "bench")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without pickles, for tests that do not change it."""
    folder = tmp_path_factory.mktemp("samples")
    published = write_dragbench(folder / "bench")
    for name in SAMPLES:
        convert(published, name, folder / "converted")
    return folder / "converted"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs the command with a judge by chance: its code, record, and stderr."""
    monkeypatch.setattr(measures, "make_judge", ByChance)

    def called(root: Path, out: str | Path, *words: object) -> tuple[int, dict[str, Any], str]:
        given = [str(root), *QUICK, "--settings", QUICKLY, "--out", str(tmp_path / out)]
        code = main(["dragbench", *given, *(str(word) for word in words)])
        told = capsys.readouterr()
        lines = told.out.strip().splitlines()
        return code, json.loads(lines[-1]) if lines else {}, told.err

    return called


@pytest.fixture(scope="module")
def serial_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serial") / "out"


@pytest.fixture
def serial(root: Path, run: Run, serial_folder: Path) -> Path:
    """Return the folder of a run of all samples, one after the other, which is made once."""
    if not serial_folder.exists():
        assert run(root, serial_folder)[0] == 0
    return serial_folder


def record_of(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "record.json").read_text()))


def figures(record: dict[str, Any]) -> Any:
    """Return the record's lines without times."""
    for line in record["lines"]:
        line["figures"].pop("seconds", None)
    return record["lines"]


def rows_of(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "samples.csv").read_text().splitlines()))


def kept(out: Path) -> dict[str, Any]:
    """Return the kept results without times."""
    lines = [
        json.loads(line)
        for file in sorted(out.glob("results-*.jsonl"))
        for line in file.read_text().splitlines()
    ]
    found = {line["name"]: line["result"] for line in lines}
    for result in found.values():
        result.pop("times_ms", None)
    return found


def test_every_sample_is_edited_and_judged(serial: Path) -> None:
    out, record = serial, record_of(serial)
    assert record["samples"] == {"all": 3, "done": 3, "failed": {}}
    lines = {(line["category"], line["whose"]): line for line in record["lines"]}
    whole = lines["all", "edited"]
    assert (whole["images"], whole["pairs"]) == (3, 4)
    assert next(iter(lines)) == ("art_work", "edited")
    for name in NAMES:
        picture = Image.of(out / "edited" / name / "dragged_image.png")
        assert (picture.height, picture.width) == SAMPLES[name][0]
    drawn = {
        name: torch.rand(
            len(SAMPLES[name][1]) // 2, generator=torch.Generator().manual_seed(seed_of(name))
        ).tolist()
        for name in NAMES
    }
    pairs = [value for values in drawn.values() for value in values]
    assert whole["figures"]["MD px"]["mean"] == pytest.approx(sum(pairs) / 4)
    assert "seconds" in whole["figures"]
    assert "seconds" not in lines["all", "unedited"]["figures"]
    rows = rows_of(out)
    assert [row["sample"] for row in rows] == NAMES
    assert float(rows[1]["MD px"]) == pytest.approx(sum(drawn["animals/one"]) / 2)
    assert {"drag ms", "invert ms", "propagate ms", "total ms"} <= rows[0].keys()
    page = (out / "table.md").read_text()
    assert "| all, no edit | 3 | 4 |" in page
    for file in record["files"]:
        assert Path(file).is_file()
    assert sum(Path(file).parent.name == "sheets" for file in record["files"]) == 3


def test_every_measure_has_its_figure_beside_the_zero_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(random_weights(), tmp_path / "alex.safetensors")
    words = ["--dift", str(MODEL), "--lpips", str(tmp_path / "alex.safetensors"), "--limit", "1"]
    given = [str(root), *QUICK, "--settings", QUICKLY, "--out", str(tmp_path / "out"), *words]
    assert main(["dragbench", *given]) == 0
    capsys.readouterr()
    edited, unedited = record_of(tmp_path / "out")["lines"][-2:]
    names = ["MD px", "m-MD px", "near MD px", "IF"]
    names += ["DAI 1", "DAI 5", "DAI 10", "DAI 20", "outside dB"]
    assert list(edited["figures"]) == [*names, "seconds"]
    assert list(unedited["figures"]) == names
    assert unedited["figures"]["IF"]["mean"] == 1
    assert unedited["figures"]["outside dB"]["mean"] == pytest.approx(114.15, abs=0.01)
    assert edited["figures"]["IF"]["mean"] < 0.99
    sample = read_sample(root, NAMES[0], tmp_path)
    picture = Image.of(tmp_path / "out" / "edited" / NAMES[0] / "dragged_image.png")
    dift = Dift(load(MODEL, device="cpu", dtype="float32"))
    stream = torch.Generator().manual_seed(seed_of(NAMES[0]))
    source, after = (
        dift.features(each.pixels, sample.prompt, stream) for each in (sample.image, picture)
    )
    points = sample.points.handles, sample.points.targets
    for name, found in {
        "MD px": mean_distance(source, after, *points, (72, 88)),
        "m-MD px": masked_distance(source, after, *points, sample.mask.editable),
        "near MD px": windowed_distance(source, after, *points, (72, 88)),
    }.items():
        assert edited["figures"][name]["mean"] == found.mean_px
    accuracy = dragging_accuracy(sample.image.pixels, picture.pixels, *points, 5)
    assert edited["figures"]["DAI 5"]["mean"] == pytest.approx(accuracy)


def test_shards_and_a_resumed_run_are_the_serial_one(
    root: Path, run: Run, serial: Path, tmp_path: Path
) -> None:
    assert run(root, "cut", "--shard", "2/2")[1]["samples"]["done"] == 1
    code, cut, _ = run(root, "cut", "--shard", "1/2")
    assert (code, cut["samples"]["done"]) == (0, 3)
    assert cut == record_of(tmp_path / "cut")
    assert run(root, "resumed", "--limit", 2)[1]["samples"]["done"] == 2
    again = run(root, "resumed")
    assert again[0] == 2
    assert "2 of 3 jobs have results already" in again[2]
    _, resumed, told = run(root, "resumed", "--resume")
    assert "1 of 1: a_category_of_ones_own/x" in told
    assert figures(cut) == figures(resumed) == figures(record_of(serial))
    for other in ("cut", "resumed"):
        assert kept(tmp_path / other) == kept(serial)
        for name in NAMES:
            file = Path("edited") / name / "dragged_image.png"
            assert (tmp_path / other / file).read_bytes() == (serial / file).read_bytes()


def test_another_question_is_not_answered_into_the_same_folder(
    root: Path, run: Run, serial: Path
) -> None:
    code, _, told = run(root, serial, "--resume", "--settings", "steps=4,strength=0.5,lr=1")
    assert code == 2
    assert "settings.iterations = 2, not null" in told
    assert "settings.lr = null, not 1.0" in told


class Harmful:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def test_a_sample_that_cannot_be_read_costs_only_itself(
    published: Path, run: Run, tmp_path: Path
) -> None:
    said = {**said_of("animals/one"), "more": Harmful(tmp_path / "trace")}
    (published / "animals" / "one" / "meta_data.pkl").write_bytes(pickle.dumps(said))
    code, record, told = run(published, "out")
    assert code == 1
    assert not (tmp_path / "trace").exists()
    assert record["samples"]["done"] == 2
    assert list(record["samples"]["failed"]) == ["animals/one"]
    assert "the sample 'animals/one' cannot be read" in told
    assert "- animals/one: the sample" in (tmp_path / "out" / "table.md").read_text()
    (published / "animals" / "one" / "meta_data.pkl").write_bytes(
        pickle.dumps(said_of("animals/one"))
    )
    code, record, told = run(published, "out", "--resume")
    assert (code, record["samples"]["done"]) == (0, 3)
    assert "1 of 1: animals/one" in told


def test_a_picture_can_be_learned_first(root: Path, run: Run, serial: Path, tmp_path: Path) -> None:
    code, record, _ = run(root, "out", "--limit", 1, "--personalise", 2)
    assert code == 0
    assert record["about"]["personalise"] == 2
    line = json.loads((tmp_path / "out" / "results-1-of-1.jsonl").read_text())
    times = line["result"]["times_ms"]
    assert 0 < times["personalise"] < times["total"]
    file = Path("edited") / NAMES[0] / "dragged_image.png"
    assert (tmp_path / "out" / file).read_bytes() != (serial / file).read_bytes()


def test_the_published_order_draws_from_one_stream(root: Path, run: Run, tmp_path: Path) -> None:
    code, _, told = run(root, "out", "--dift", MODEL, "--exact")
    assert code == 0
    assert "in the published order, 3 of 3" in told
    stream = torch.Generator().manual_seed(42)
    drawn = {
        name: torch.rand(len(SAMPLES[name][1]) // 2, generator=stream).tolist() for name in NAMES
    }
    rows = rows_of(tmp_path / "out")
    for row in rows:
        own = drawn[row["sample"]]
        assert float(row["exact MD px"]) == pytest.approx(sum(own) / len(own))
        assert row["MD px"] != row["exact MD px"]
    assert (
        "in the published order" not in run(root, "out", "--dift", MODEL, "--exact", "--resume")[2]
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--exact",), "--exact is about the distances by --dift"),
        (("--exact", "--dift", "x", "--shard", "1/2"), "no share of them"),
        (("--shard", "3/2"), "no shard 3/2"),
        (("--limit", "0"), "--limit must be 1 or more"),
        (("--settings", "speed=1"), "no setting of dragnoise"),
        (("--personalise", "-1"), "--personalise must be 0 or more"),
        (("--dift", "/nowhere"), "'/nowhere' cannot be read"),
        (("--model", "/nowhere"), "'/nowhere' cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said_first(
    words: tuple[str, ...], told: str, root: Path, run: Run, tmp_path: Path
) -> None:
    code, record, stderr = run(root, "out", *words)
    assert (code, record) == (2, {})
    assert told in stderr
    assert not (tmp_path / "out" / "edited").exists()


def test_a_folder_without_pickles_is_written_and_read(
    published: Path, root: Path, run: Run, serial: Path, tmp_path: Path
) -> None:
    code, record, _ = run(published, "out", "--convert", tmp_path / "converted")
    assert (code, record["samples"]) == (0, 3)
    assert not (tmp_path / "out").exists()
    for name in NAMES:
        for file in (root / name).iterdir():
            assert (tmp_path / "converted" / name / file.name).read_bytes() == file.read_bytes()
    assert not (serial / "samples").exists()
    _, record, _ = run(published, "out")
    assert figures(record) == figures(record_of(serial))
    assert sorted(path.name for path in (tmp_path / "out" / "samples").glob("*/*")) == [
        "b",
        "one",
        "x",
    ]


@pytest.mark.slow
def test_workers_give_the_serial_pictures(
    root: Path, run: Run, serial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'dragnoise[ray]')")
    monkeypatch.setenv("PYTHONPATH", str(Path(judging.__file__).parent))  # workers know no tests
    code, record, told = run(root, "ray", "--workers", 2)
    assert code == 0
    assert "3 of 3: " in told
    assert figures(record) == figures(record_of(serial))
    assert kept(tmp_path / "ray") == kept(serial)
    for name in NAMES:
        file = Path("edited") / name / "dragged_image.png"
        assert (tmp_path / "ray" / file).read_bytes() == (serial / file).read_bytes()


@pytest.mark.skipif(not dragbench.names(), reason=f"DragBench is not at {dragbench.FOLDER}")
def test_a_real_sample_is_edited_and_judged(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "land_scape").symlink_to(dragbench.FOLDER / "land_scape")
    code, record, _ = run(tmp_path / "bench", "out")
    assert (code, record["samples"]) == (0, {"all": 1, "done": 1, "failed": {}})
    (name,) = kept(tmp_path / "out")
    picture = Image.of(tmp_path / "out" / "edited" / name / "dragged_image.png")
    assert (picture.width, picture.height) == (512, 341)
