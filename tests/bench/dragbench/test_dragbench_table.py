"""Sums of samples: over pairs, over pictures, with intervals over pictures."""

from pathlib import Path
from typing import Any

from PIL import Image

from dragnoise.bench.dragbench.plots import plot
from dragnoise.bench.dragbench.table import cells_of, lines_of, markdown, samples_cells


def result(distances: list[float], ms: float = 1000.0, **scores: Any) -> dict[str, Any]:
    unedited = {"distances_px": [50.0 for _ in distances], "outside_db": 114.0, "fidelity": 1.0}
    return {
        "pairs": len(distances),
        "iterations": 3,
        "reached": True,
        "times_ms": {"invert": ms / 4, "drag": ms * 3 / 4, "total": ms},
        "edited": {"distances_px": distances, **scores},
        "unedited": unedited,
    }


RESULTS = {
    "animals/a": result([1.0, 2.0, 6.0], outside_db=30.0, fidelity=0.5, dai={"1": 0.25}),
    "animals/b": result([3.0], 3000.0, outside_db=20.0, fidelity=0.75, dai={"1": 0.75}),
    "art_work/c": {"failed": "no picture"},
    "human_head/d": result([8.0], outside_db=40.0, fidelity=1.0, dai={"1": 0.5}),
}


def test_distances_are_over_pairs_and_the_rest_over_pictures() -> None:
    lines = {(line.category, line.whose): line for line in lines_of(RESULTS)}
    assert [category for category, whose in lines if whose == "edited"] == [
        "animals",
        "human_head",
        "all",
    ]
    animals, whole = lines["animals", "edited"], lines["all", "edited"]
    assert (animals.images, animals.pairs) == (2, 4)
    assert animals.figures["MD px"].mean == 3.0
    assert animals.figures["IF"].mean == 0.625
    assert animals.figures["seconds"].mean == 2.0
    assert whole.figures["MD px"].mean == 4.0
    assert whole.figures["DAI 1"].mean == 0.5
    zero = lines["all", "unedited"]
    assert zero.figures["MD px"].mean == 50.0
    assert zero.figures["outside dB"].mean == 114.0
    assert "DAI 1" not in zero.figures
    assert "seconds" not in zero.figures


def test_the_table_has_the_zero_line_below_every_line() -> None:
    cells = cells_of(lines_of(RESULTS))
    header = ["category", "images", "pairs", "MD px", "IF", "DAI 1", "outside dB", "seconds"]
    assert cells[0] == header
    assert [row[0] for row in cells[1:]] == [
        "animals",
        "animals, no edit",
        "human_head",
        "human_head, no edit",
        "all",
        "all, no edit",
    ]
    assert cells[3][3:] == ["8.0", "1.000", "0.5000", "40.0", "1.00"]
    assert cells[6] == ["all, no edit", "3", "5", "50.0", "1.000", "", "114.0", ""]
    assert cells[5][3].startswith("4.0 [")
    assert cells_of(lines_of(RESULTS), intervals=False)[5][3] == "4.0"
    assert markdown(cells).splitlines()[:2] == [
        "| category | images | pairs | MD px | IF | DAI 1 | outside dB | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]


def test_every_sample_has_its_row() -> None:
    cells = samples_cells(RESULTS)
    rows = {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[1:]}
    assert list(rows) == list(RESULTS)
    assert rows["animals/a"]["MD px"] == "3.0"
    assert rows["animals/a"]["MD px, no edit"] == "50.0"
    assert rows["animals/b"]["drag ms"] == "2250.0"
    assert rows["art_work/c"]["failed"] == "no picture"


def test_nothing_but_failures_has_no_line() -> None:
    assert lines_of({"art_work/c": {"failed": "no picture"}}) == []
    assert len(cells_of([])) == 1


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    with Image.open(plot(lines_of(RESULTS), RESULTS, tmp_path / "plot.png")) as picture:
        assert min(picture.size) > 200
