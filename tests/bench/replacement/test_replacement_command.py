"""`python -m dragnoise.bench replacement`: its record, its pictures, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from dragnoise.bench.__main__ import main
from dragnoise.bench.replacement import draw
from dragnoise.bench.replacement.table import map_tables, summary_table
from dragnoise.bench.report import readme, record
from dragnoise.engine import Image
from dragnoise.engine.cli.demo import samples

BLOCKS = [f"down {n}" for n in range(4)] + ["middle"] + [f"up {n}" for n in range(4)]
SMALL = ["--model", "golden", "--size", "32x32", "--device", "cpu"]
PICTURES = [str(sample.image) for sample in samples()[:2]]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str]:
    """Return the JSON document and what stands before it."""
    assert main(["replacement", *SMALL, *arguments]) == 0
    *shown, last = capsys.readouterr().out.splitlines()
    return json.loads(last), "\n".join(shown)


def test_the_whole_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    out = tmp_path / "new" / "folder"
    asked = ["--samples", "boat,house", "--steps", "2", "--out", str(out), "--keep"]
    document, shown = run(capsys, *asked, "--controls", "other")
    assert (document["starts"], document["timesteps"]) == ([0, 1], [501, 1])
    assert document["drag_step"] == 1
    assert [picture["other"] for picture in document["pictures"]] == ["house", "boat"]
    for source in ("own", "other"):
        for table in document["maps"][source].values():
            assert list(table) == BLOCKS
            assert all(len(row) == 2 for row in table.values())
    own = document["maps"]["own"]["pixels"]
    each = [picture["pixels"]["own"]["middle"] for picture in document["pictures"]]
    assert own["middle"] == pytest.approx(np.mean(each, axis=0), rel=1e-3)
    assert [row[1] for row in own.values()] == [0] * len(BLOCKS)
    assert all(row[0] > 0 for row in own.values())
    assert all(row[1] > 0 for row in document["maps"]["other"]["pixels"].values())
    assert "another's held" in shown
    heights = {path.name: Image.of(path).height for path in out.iterdir()}
    assert set(heights) == {f"replacement-2-steps-{name}.png" for name in ("heat", "own", "other")}
    assert heights["replacement-2-steps-other.png"] > heights["replacement-2-steps-own.png"]
    (kept,) = (tmp_path / "results").glob("*/*-replacement-golden-2-steps-float32.json")
    assert json.loads(kept.read_text()) == document
    page = tmp_path / "page.md"
    page.write_text("<!-- replacement:begin -->\n<!-- replacement:end -->\n")
    readme.refresh([page], tmp_path / "results")
    assert "golden, 2 steps, mean of boat, house: " in page.read_text()
    assert f"| middle | {record.number(own['middle'][1])} |" in page.read_text()


def test_records_of_other_steps_stand_beside_each_other(tmp_path: Path) -> None:
    about = {"bench": "replacement", "model": "embedded", "dtype": "float32", "size": "128x128"}
    machine = {"date": "2026-01-01T00:00:00", "commit": "abc"}
    for steps in ("10-steps", "50-steps"):
        record.keep(about | {"variant": steps, "machine": machine}, "a-device", tmp_path)
    assert [kept["variant"] for _, kept in record.newest(tmp_path)] == ["10-steps", "50-steps"]


def test_pictures_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without another one's features one picture is enough; starts count from what is denoised."""
    asked = ["--picture", PICTURES[0], "--prompt", "a balloon", "--steps", "4", "--strength", "0.5"]
    more = ["--controls", "", "--starts", "1,0", "--out", str(tmp_path)]
    document, _ = run(capsys, *asked, *more)
    assert document["active_steps"] == 2
    assert document["starts"] == [0, 1]
    assert list(document["maps"]) == ["own"]
    assert [picture["prompt"] for picture in document["pictures"]] == ["a balloon"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "replacement-4-steps-heat.png",
        "replacement-4-steps-own.png",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--picture", PICTURES[0]], "need two pictures, got 1"),
        (["--picture", PICTURES[0], "--samples", "boat"], "--picture and --samples"),
        (["--samples", "boat,ship"], "there is no sample 'ship'; use balloon, boat,"),
        (["--steps", "4", "--starts", "0,4"], "'4' is no step to hold from; the 4 that"),
        (["--starts", "0,x"], "'x' is no step to hold from"),
        (["--controls", "noise"], "there is no control 'noise'; use other, zeros"),
        (["--picture", __file__, "--controls", ""], "test_replacement_command.py"),
        (["--strength", "0"], "strength"),
    ],
)
def test_what_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replacement", *SMALL, *arguments]) == 2
    assert said in capsys.readouterr().err


def test_pictures_of_two_sizes_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    PIL.Image.new("RGB", (40, 48)).save(tmp_path / "small.png")
    pictures = ["--picture", PICTURES[0], "--picture", str(tmp_path / "small.png")]
    assert main(["replacement", "--model", "golden", *pictures]) == 2
    assert "must have one size, got 40x48, 128x128" in capsys.readouterr().err


def document_of(value: float) -> dict[str, Any]:
    """Return a record of two blocks and two start steps, in which every figure is the same."""
    table = {"middle": [value, 0.0], "up 0": [value, 0.0]}
    names = ("pixels", "structure", "colour", "pixels_share", "structure_share", "colour_share")
    return {
        "model": "toy",
        "steps": 9,
        "starts": [0, 4],
        "drag_step": 3,
        "pictures": [{"name": "one"}],
        "maps": {source: dict.fromkeys(names, table) for source in ("own", "other")},
    }


def test_tables_show_the_start_step_nearest_to_the_drag() -> None:
    document = document_of(7)
    summary = summary_table(document)
    assert summary[0][0] == "from step 4 of 9"
    assert [row[0] for row in summary[1:]] == ["middle", "up 0"]
    assert summary[1][1:] == ["0"] * 5
    own, structure, share = map_tables(document)
    assert own[0] == ["own held: mean difference of 255", "from 0", "from 4"]
    assert own[1] == structure[1] == share[1] == ["middle", "7", "0"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (123.4, "123"), (9.96, "10"), (9.94, "9.9"), (0.996, "1.0"), (0.0994, ".099")],
)
def test_figures_in_cells_are_short(value: float, text: str) -> None:
    assert draw._short(value) == text


def test_a_heat_map_where_nothing_differs(tmp_path: Path) -> None:
    """A scale from 0 to 0 has no colours."""
    drawn = Image.of(draw.draw_heat(document_of(0), tmp_path / "heat.png"))
    assert len(np.unique(drawn.pixels.reshape(-1, 3), axis=0)) > 50
