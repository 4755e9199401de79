"""Quality's files: plots, sheets, the page for a browser, the page of the documentation."""

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import documents
from dragnoise.bench.quality import report
from dragnoise.bench.quality.docs import COLUMNS, PARETO, ROWS, SHEET
from dragnoise.bench.quality.document import SCORES
from dragnoise.bench.quality.origin import counted, origin
from dragnoise.bench.quality.packed import packed, unpacked
from dragnoise.bench.quality.page import page
from dragnoise.bench.quality.sheet import draw_sheet, one_of_each
from dragnoise.bench.report import machine
from dragnoise.bench.report.record import newest
from dragnoise.bench.world.kinds import KINDS
from quality_runs import MACHINE, run, with_generated, write_pictures

NASTY = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&\'|*'


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    document = run(each=2)
    document["drags"]["judging-sky-1"]["scores"]["warp"] = {"failed": "no hole"}
    folder = tmp_path_factory.mktemp("run")
    write_pictures(document, folder)
    report.write_all(document, folder)
    return document, folder


def test_all_files(written: tuple[dict[str, Any], Path]) -> None:
    document, folder = written
    assert (
        json.loads((folder / "record.json").read_text())["drags"].keys() == document["drags"].keys()
    )
    for name in ("table.csv", "drags.csv"):
        with (folder / name).open(newline="") as file:
            rows = list(csv.reader(file))
        assert len({len(row) for row in rows}) == 1
    assert "| boat | 2 |" in (folder / "table.md").read_text()
    for name in ("pareto.png", "sheet.png"):
        with PIL.Image.open(folder / name) as picture:
            assert picture.width > 400


def test_sheet_shows_source_contestants_and_truth(written: tuple[dict[str, Any], Path]) -> None:
    document, folder = written
    names = one_of_each(document)
    assert names == ["judging-boat-0", "judging-sky-0"]
    target = draw_sheet(document, folder / "pictures", folder / "few.png", names, ["warp", "lost"])
    with PIL.Image.open(target) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    row = pixels[pixels.shape[0] // 3]
    expected = {1: 40 * 1, 2: 128, 3: 40 * 4}  # from the right: truth, one that is lost, the warp
    for place, colour in expected.items():
        middle = row[pixels.shape[1] - (6 + 128) * place + 64]
        assert middle == pytest.approx([colour] * 3, abs=8)


def test_sheet_becomes_as_small_as_asked(written: tuple[dict[str, Any], Path]) -> None:
    document, folder = written
    names = one_of_each(document, ["sky", "no such kind"])
    assert names == ["judging-sky-0"]
    sizes = []
    for bound in (None, 1):
        target = draw_sheet(document, folder / "pictures", folder / "s.png", names, ["warp"], bound)
        with PIL.Image.open(target) as picture:
            sizes.append(picture.width)
    assert sizes[0] > sizes[1] > 3 * 64


def test_lowest_number_is_shown() -> None:
    document = run(each=11, left={"boat": {"warp": 0.1}})
    del document["drags"]["judging-boat-0"], document["drags"]["judging-boat-1"]
    assert one_of_each(document) == ["judging-boat-2"]


def test_page_holds_every_number_and_asks_for_nothing(
    written: tuple[dict[str, Any], Path],
) -> None:
    document, folder = written
    text = (folder / "index.html").read_text()
    assert not re.findall(r"<!--\w+-->", text)
    assert not re.findall(r'(?:src|href)="(?!pareto.png)', text)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    found = json.loads(data)
    assert [drag["name"] for drag in found["drags"]] == [*document["drags"]]
    boat = dict(
        zip([score.name for score in SCORES], found["drags"][0]["results"]["warp"], strict=True)
    )
    assert boat["distance_px"] == pytest.approx(1.0)
    assert boat["tflop"] is None
    assert "warp" not in found["drags"][3]["results"]


def test_page_escapes_all_text() -> None:
    document = run(each=1)
    document["model"] = NASTY
    document["contestants"]["warp"] = NASTY
    drag = document["drags"].pop("judging-boat-0")
    drag |= {"kind": NASTY, "prompt": NASTY}
    drag["scores"][NASTY] = drag["scores"]["warp"]
    document["drags"] = {NASTY: drag, "lost": {"failed": NASTY}}
    text = page(document)
    assert "<img src=x" not in text
    assert "alert(1)</script>" not in text
    assert text.count("<script") == text.count("</script>") == 2
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert json.loads(data)["drags"][0]["name"] == NASTY


def test_page_of_an_empty_run(tmp_path: Path) -> None:
    names = [path.name for path in report.write_all(run(each=0), tmp_path)]
    assert names == ["record.json", "table.csv", "drags.csv", "table.md", "index.html"]
    assert "No drag has been judged." in (tmp_path / "index.html").read_text()


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize(
    ("asked", "expected", "rows"),
    [
        ("kind=boat&only=warp,dragnoise&sort=left&show=1", "4 of 4 rows", 4),
        ("only=", "No rows: choose a kind and at least one contestant.", 0),
    ],
)
def test_page_in_a_browser(
    written: tuple[dict[str, Any], Path], asked: str, expected: str, rows: int
) -> None:
    shown = _shown(f"{(written[1] / 'index.html').as_uri()}#{asked}")
    assert expected in shown
    (body,) = re.findall(r'<table id="list">.*?<tbody>(.*?)</tbody>', shown, re.DOTALL)
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in body.split("</tr>")[:-1]]
    assert len(cells) == rows
    if rows:
        assert [row[2] for row in cells] == ["warp", "warp", "dragnoise", "dragnoise"]
        assert 'src="pictures/judging-boat-0/warp.png"' in shown
        assert 'aria-sort="ascending"' in shown


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_keys_flip_pictures(written: tuple[dict[str, Any], Path]) -> None:
    """To the third row, the second drag's warp; left over its source to the mask, which is last."""
    keys = [*["ArrowDown"] * 3, "ArrowUp", *["ArrowLeft"] * 5, "ArrowRight"]
    press = "".join(
        f"document.body.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}', bubbles: 1}}));"
        for key in keys
    )
    text = (written[1] / "index.html").read_text().replace("</body>", f"<script>{press}</script>")
    (written[1] / "pressed.html").write_text(text)
    shown = _shown(f"{(written[1] / 'pressed.html').as_uri()}#kind=boat&only=warp,dragnoise&show=1")
    assert 'src="pictures/judging-boat-1/mask.png"' in shown


def _shown(address: str) -> str:
    """Return a page's elements after its script has run."""
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


def test_docs_are_written_from_a_kept_record(tmp_path: Path) -> None:
    document = run(each=5)
    write_pictures(document, tmp_path)
    docs = tmp_path / "docs"
    (docs / "images").mkdir(parents=True)
    for name in ("quality", "benchmarks"):
        mark = "bench" if name == "benchmarks" else name
        page = docs / f"{name}.md"
        page.write_text(f"By hand.\n<!-- {mark}:begin -->\nold\n<!-- {mark}:end -->\n")
    kept, *_ = report.write_docs(document, tmp_path, docs, tmp_path / "results")
    assert kept.parent.name == "a-processor-avx2"
    assert (docs / PARETO).exists()
    assert (docs / SHEET).stat().st_size < 300_000
    text = (docs / "quality.md").read_text()
    assert text.startswith("By hand.\n")
    assert "old" not in text
    assert "A plain editor's warp wins in 1 of 2 kinds: boat" in text.replace("\n", " ")
    assert "| boat | 5 | 1.01 | 0.00 | **0.11** | 0.41 | 0.61 |" in text
    assert f"]({PARETO})" in text
    assert f"]({SHEET})" in text
    assert all(len(line) <= 100 or line.startswith("|") for line in text.splitlines())
    assert "| dragnoise | 0.31" in (docs / "benchmarks.md").read_text()
    assert len(newest(tmp_path / "results")) == 1


def test_a_generator_s_pictures_have_a_table_of_their_own(tmp_path: Path) -> None:
    document = with_generated(run(each=2))
    document["generated"]["drags"]["judging-generated-sun-1"] = {"failed": "no scene"}
    write_pictures(document, tmp_path)
    write_pictures(run(1, {"generated-sun": {"draggan": 0.3}}), tmp_path / "generated")
    kept = unpacked(json.loads(json.dumps(packed(document))))
    main, own = report.docs_page(kept).split("### DragGAN, on its own generator's pictures")
    assert "draggan" not in main
    words = " ".join(own.split())
    assert "These are other pictures than those above" in words
    assert "no row here can be compared with a row there. Drags: 1, of the kinds gener" in words
    assert re.search(r"^\| draggan \| 0\.30 \|", own, re.MULTILINE)
    assert "gain dB" not in own.split("### ")[0]
    assert "judging-generated-sun-1 | no scene" in own
    without = {name: value for name, value in document.items() if name != "generated"}
    assert report.docs_page(unpacked(packed(without))).startswith(main.rstrip("#\n "))
    files = report.write_all(document, tmp_path)
    assert {tmp_path / "generated" / name for name in ("drags.csv", "sheet.png")} <= {*files}
    assert "own generator&#x27;s pictures" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(
    ("commits", "expected", "told"),
    [
        ({"abc1234": 10}, "commit abc1234", False),
        ({"0ld": 10}, "results of commit 0ld, report of abc1234", True),
        ({"0ld": 9, "abc1234": 1}, "results of commits 0ld (9), abc1234 (1), report of abc", True),
        ({}, "results of commit unknown, report of abc1234", False),
    ],
)
def test_a_report_names_the_commits_of_its_results(
    commits: dict[str, int], expected: str, told: bool
) -> None:
    document = run(each=1) | ({"commits": commits} if commits else {})
    said = " ".join(report.docs_page(document).split())
    assert expected in said
    assert told == (expected in " ".join(report.show_table(document).split()))


def test_results_on_generated_pictures_count_among_the_commits() -> None:
    document = with_generated(run(each=1)) | {"commits": {"abc1234": 2}}
    document["generated"]["commits"] = {"0ld": 3}
    assert origin(document) == "results of commits abc1234 (2), 0ld (3), report of abc1234"
    assert counted(["a", None, "a"]) == {"a": 2, "unknown": 1}


def test_docs_page_without_drags() -> None:
    assert report.docs_page(run(each=0)) == "Nothing has been measured yet.\n"


def test_kinds_in_the_sheet_exist() -> None:
    assert set(ROWS) <= KINDS.keys()
    assert len(set(COLUMNS)) == len(COLUMNS)


def test_the_documentation_explains_every_score() -> None:
    text = (documents.ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| ((?:\\\||[^|])+?) \|", text, re.MULTILINE)
    for score in SCORES:
        assert score.title.replace("|", "\\|") in explained


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "a-processor-avx2"),
        ({"device": "cuda:0", "gpu": {"name": "NVIDIA H100 80GB HBM3"}}, "nvidia-h100-80gb-hbm3"),
    ],
)
def test_a_record_is_kept_under_the_machine_that_made_it(
    changes: dict[str, Any], expected: str
) -> None:
    assert machine.slug_of({**MACHINE, **changes}) == expected
