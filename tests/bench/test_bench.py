"""Run the bench: it measures what it says and keeps whole records. No test asserts a time."""

import dataclasses
import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

from dragnoise.bench.__main__ import main
from dragnoise.bench.measure import edits, exports, kernels, personalise, sessions, timing
from dragnoise.bench.measure.edits import Case, measure
from dragnoise.bench.measure.exports import edit_table, exports_table
from dragnoise.bench.measure.kernels import CASES
from dragnoise.bench.measure.models import model
from dragnoise.bench.measure.rows import ROWS, rows_for
from dragnoise.bench.report import machine, readme, record
from dragnoise.engine import DragConfig, Editor, ModelError, PersonaliseConfig, PlanError
from dragnoise.engine.exported import EXPORTABLE, OF_AN_EDIT
from dragnoise.engine.methods import METHODS
from dragnoise.engine.system.cuda_graphs import NullGraph
from exported_parts import HEIGHT, WIDTH, at, plans

CPU = torch.device("cpu")
SHARED = at(HEIGHT, WIDTH)
SHARED_SIZE = f"{WIDTH}x{HEIGHT}"
TINY = [
    "--model",
    "golden",
    "--size",
    "64x64",
    "--rounds",
    "1",
    "--iterations",
    "6",
    "--run-iterations",
    "3",
    "--run-steps",
    "3",
]


# Timing.


def test_spread() -> None:
    assert timing.Spread.of([5.0]) == timing.Spread(5, 5, 5, 1)
    found = timing.Spread.of([float(value) for value in range(1, 12)])
    assert (found.median, found.low, found.high, found.count) == (6, 2, 10, 11)
    with pytest.raises(ValueError, match="nothing was measured"):
        timing.Spread.of([])


def test_a_ratio_is_of_pairs() -> None:
    """A machine that slows down half-way changes the medians of either, not the ratio."""
    assert timing.ratio([4, 4, 8, 8], [2, 2, 4, 4]) == timing.Spread(2, 2, 2, 4)


def test_contenders_alternate_after_warming_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    ticks = iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    found = timing.alternating(
        {"one": lambda: ran.append("one"), "other": lambda: ran.append("other")},
        CPU,
        3,
        warm_up=2,
        before=lambda: ran.append("before"),
    )
    assert ran == ["before", "one", "before", "other"] * 5
    assert found == {"one": [1000.0] * 3, "other": [1000.0] * 3}


def test_memory() -> None:
    timing.reset_peak(CPU)
    held = torch.ones(2**22)
    peak = timing.peak_bytes(CPU)["process"]
    assert peak is None or peak > held.nbytes
    timing.cold(CPU, 1024)()


# The record.


def test_the_machine_says_what_a_figure_depends_on() -> None:
    found = machine.machine(CPU)
    assert found["threads"] == torch.get_num_threads()
    assert found["versions"]["torch"] == torch.__version__
    assert found["cpu"]
    assert found["environment"]["OMP_WAIT_POLICY"] == "PASSIVE"
    json.dumps(found)
    if not torch.cuda.is_available():
        assert found["gpu"]["absent"]
    slug = machine.device_slug(CPU)
    assert slug
    assert slug == slug.lower()
    assert "/" not in slug


def test_no_git_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: Any, **how: Any) -> Any:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    found = machine.machine(CPU)
    assert found["commit"] is None
    assert found["changed"] is False


# The waterfall.


def test_rows_are_for_devices() -> None:
    assert [row.name for row in rows_for(CPU)][:2] == ["baseline", "cut"]
    assert "packed" not in {row.name for row in rows_for(torch.device("cuda"))}
    assert {row.name for row in rows_for(torch.device("cuda"))} >= {
        "baseline",
        "graphs",
        "compiled",
    }
    assert [row.name for row in rows_for(CPU, "baseline,folded")] == ["baseline", "folded"]
    with pytest.raises(KeyError):
        rows_for(CPU, "compiled")
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("mask", [True, False])
def test_every_exact_row_makes_the_same_picture(mask: bool) -> None:
    """Nothing but rounding lies between the published algorithm and the fastest row."""
    config = DragConfig(steps=20, strength=0.2, iterations=4, lr=0.01, r_p=3)
    found = measure(
        model("golden", "cpu", "float32"), rows_for(CPU), Case((96, 96), mask, config, config), 1
    )
    first = found[0]
    assert first.row.method is METHODS["baseline"]
    for above, one in zip([first, *found], found, strict=False):
        said = one.to_dict(first, above)
        assert said["image_difference"]["largest"] <= 2, one.row.name
        assert set(said["stages_ms"]) == {
            "embed",
            "encode",
            "condition",
            "invert",
            "start",
            "drag",
            "propagate",
            "decode",
        }
        assert said["turns_ms"].keys() == {"invert", "drag", "propagate"}
        assert one.result.record is None
        assert len(one.result.history.losses) == 4


def test_the_whole_is_computed_from_a_few_repeats() -> None:
    whole = DragConfig(steps=20, strength=0.5, iterations=30, lr=1e-4)
    case = Case((64, 64), True, whole, whole.replace(strength=0.2, iterations=3))
    assert case.computed
    (found,) = measure(model("golden", "cpu", "float32"), rows_for(CPU, "folded"), case, 1)
    for stage, more in (("invert", 6), ("drag", 27), ("propagate", 6)):
        assert found.stages_ms[stage][0] > more * found.repeats_ms[stage][0]
    assert len(found.result.history.losses) == 3
    assert not dataclasses.replace(case, run=whole).computed


def test_models() -> None:
    assert model("embedded", "cpu", "float32").defaults != DragConfig()
    with pytest.raises(ModelError):
        model("nowhere", "cpu", "float32")


# Kernels.


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kernel}, {case.why}")
def test_every_kernels_case_runs(case: Any) -> None:
    """Formula and kernel give the same, where they give anything."""
    if case.objections(CPU, torch.float32):
        pytest.skip("not here")
    formula, kernel = (run() for run in case.make(CPU, torch.float32))
    if kernel is None:
        return  # in place
    mine, theirs = (value[0] if isinstance(value, tuple) else value for value in (kernel, formula))
    if mine.dtype.is_floating_point:
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
    else:
        assert torch.equal(mine, theirs)


def test_every_kernel_of_ours_is_measured() -> None:
    ours = {path.stem for path in (Path(__file__).parents[2] / "kernels" / "gpu").glob("*.py")}
    assert ours
    assert ours <= {case.kernel for case in CASES}


def test_what_no_graph_captures_is_launched_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contenders run as graphs, which on a CPU are calls; a refusal stands in row and table."""
    case = next(case for case in CASES if case.kernel == "latent_term")
    monkeypatch.setattr(kernels, "CASES", (case,))
    (first,) = kernels.measure(CPU, torch.float32, 2)
    assert first["launched"] == {}

    def refuse(work: Callable[[], None]) -> NullGraph:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(kernels, "graph_on", lambda device: refuse)
    (row,) = kernels.measure(CPU, torch.float32, 2)
    reason = "operation not permitted when stream is capturing"
    assert row["launched"] == {"formula": reason, "kernel": reason}
    assert row["kernel_ms"]["count"] == 2
    table = record.kernels_table({"cases": [first, row]})
    assert table[1][1] == case.why
    assert table[2][1] == f"{case.why}, formula launched by Python, kernel launched by Python"


# The command line.


def test_edits_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    more = [
        "--rows",
        "baseline,folded",
        "--out",
        str(tmp_path),
        "--csv",
        str(tmp_path / "table.csv"),
    ]
    assert main(["edits", *TINY, *more, "--profile", str(tmp_path / "trace.json")]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document["computed"]
    assert [row["row"] for row in document["rows"]] == ["baseline", "folded"]
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = [event["name"] for event in events]
    assert names.count("aten::convolution") > 100, "the worker's thread is not in the trace"
    assert document["rows"][0]["ratio_to_first"]["median"] == 1
    (kept,) = tmp_path.glob("*/*.json")
    assert json.loads(kept.read_text()) == document
    assert kept.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "table.csv").read_text().startswith("row,encode s")
    assert "traceEvents" in json.loads((tmp_path / "trace.json").read_text())


def test_sessions_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What comes after a first edit does less, and makes the same picture.

    A drag on the result begins elsewhere.
    """
    assert main(["sessions", *TINY, "--out", str(tmp_path)]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = {row["row"]: row for row in document["rows"]}
    assert list(rows) == ["baseline", "first", "again", "result", "stored", "stream"]
    late = {"drag", "propagate", "decode"}
    assert (
        set(rows["first"]["stages_ms"])
        == {"embed", "encode", "rebuild", "condition", "invert", "start"} | late
    )
    assert set(rows["again"]["stages_ms"]) == set(rows["result"]["stages_ms"]) == late
    assert set(rows["stream"]["stages_ms"]) - {"preview"} == late
    assert {"encode", "invert"}.isdisjoint(rows["stored"]["stages_ms"])
    first = rows["first"]["image_difference"]
    assert first["largest"] <= 2  # from the published code's
    assert rows["again"]["image_difference"] == rows["stored"]["image_difference"] == first
    assert rows["stream"]["image_difference"] == first
    assert "| again |" in readme.rendered(tmp_path)


def test_a_mouse_is_followed() -> None:
    model = Editor.from_pretrained(device="cpu", backend="eager").model
    quick = dataclasses.replace(model, defaults=model.defaults.replace(iterations=1, strength=0.04))
    rows = list(sessions.follow_a_mouse(quick, moves=1))
    assert [len(row["went_iterations"]) for row in rows] == [1] * 5
    table = sessions.mouse_table(rows)
    assert {len(row) for row in table} == {len(table[0])}


def test_personalise_on_the_command_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both loops run in every round, the first does not count, and the ratio is plain over ours.

    The clock is the test's own.
    """
    took = {"prepare": 5.0, "advance": 2.0, "plain": 6.0}
    ran: list[str] = []

    def clock(run: Callable[[], object], device: torch.device) -> float:
        name = getattr(run, "__name__", "")
        ran.append(name)
        run()
        return took[name] * (100 if ran.count(name) == 1 and name != "prepare" else 1)

    monkeypatch.setattr(personalise, "clock_ms", clock)
    asked = [
        "personalise",
        "--model",
        "golden",
        "--size",
        "64x64",
        "--rounds",
        "2",
        "--out",
        str(tmp_path),
    ]
    assert main(asked) == 0
    *table, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)["training"]
    assert ran == ["prepare", *["advance", "plain"] * 3]
    assert (found["ratio"]["median"], found["once_ms"]) == (3.0, 5.0)
    assert any("diffusers and PEFT" in line for line in table)
    assert "| ours | 2 | 0.125 | 3.00 (3.00 to 3.00) |" in readme.rendered(tmp_path)


@pytest.fixture
def shared(exported: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Exported parts of all tests: what the bench would make is there for `SHARED_SIZE`."""
    for module in (edits, exports):
        monkeypatch.setattr(module, "measure", partial(module.measure, exported=exported))
    return exported


def test_exports_on_the_command_line(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every part in both formats; errors beside PyTorch; times only of what runs here."""
    plans(shared, EXPORTABLE, SHARED)
    assert main(["exports", "--model", "golden", "--size", SHARED_SIZE, "--rounds", "1"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["part"] for row in said["rows"]] == list(EXPORTABLE)
    for row in said["rows"]:
        assert row["onnx"]["bytes"] > 1000
        assert 0 < row["onnx"]["error"] < 1e-4
        assert row["plan"]["bytes"] > 1000
        assert row["times"]["apart"] < 1e-4
    assert said["ran_by"] == "onnxruntime"
    assert said["edit"]["image_difference"] <= 1
    cells = exports_table(said)
    assert len(cells) == 1 + 2 * len(EXPORTABLE)
    assert {len(row) for row in cells} == {len(cells[0])}
    assert [row[0] for row in edit_table(said)[1:]] == [said["edit"]["usual"], "onnxruntime"]
    assert edit_table({"rows": []}) == []
    assert [row[5] for row in cells if row[1].startswith("tensorrt")] == ["not run"] * len(
        EXPORTABLE
    )


def test_parts_are_made_in_a_folder_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a shared folder one is made, and goes with the measurement."""
    made: list[Path] = []

    def make(model: object, size: object, folder: Path, *rest: object) -> list[Any]:
        assert folder.is_dir()
        made.append(folder)
        return []

    monkeypatch.setattr(edits, "make", make)
    monkeypatch.setattr(exports, "make", make)
    config = DragConfig(steps=20, strength=0.2, iterations=1)
    case = Case((64, 64), True, config, config)
    with pytest.raises(PlanError):
        exports.measure("golden", (64, 64), CPU, torch.float32, 1, lambda what: None)
    with pytest.raises(PlanError):
        measure(model("golden", "cpu", "float32"), rows_for(CPU, "onnxruntime"), case, 1)
    assert len(set(made)) == 2
    assert not any(folder.exists() for folder in made)


def test_a_row_of_exported_parts(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plans(shared, OF_AN_EDIT, SHARED)
    asked = ["edits", *TINY, "--size", SHARED_SIZE, "--rows", "packed,onnxruntime"]
    assert main(asked) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    placed = said["rows"][1]
    assert placed["settings"]["backend"].endswith("up=onnxruntime,vae=onnxruntime")
    assert placed["image_difference"]["largest"] <= 1


def test_what_an_adapter_is_good_for(tmp_path: Path) -> None:
    """Four pictures are rebuilt and dragged without and with an adapter.

    One step of training changes little, but something.
    """
    model = Editor.from_pretrained(device="cpu", backend="eager").model
    quick = dataclasses.replace(model, defaults=model.defaults.replace(iterations=1, strength=0.04))
    config = PersonaliseConfig(steps=1, rank=1, batch=1)
    found = personalise.fidelity(
        quick, config, watch=lambda said: None, sheet=tmp_path / "sheet.png"
    )
    assert [one["picture"] for one in found] == ["checks", "waves", "rings", "face"]
    assert all(
        one[which][what] > 10
        for one in found
        for which in ("without", "with")
        for what in ("rebuilt_db", "outside_db")
    )
    assert any(one["with"] != one["without"] for one in found)
    with PIL.Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (5 * 128, 4 * 128)
    assert len(personalise.fidelity_table(found)) == 5


def test_stages_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stages", *TINY, "--no-mask"]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    document = json.loads(last)
    found = document["roofline"]["stages"]
    assert set(found) == {"encode", "condition", "invert", "start", "drag", "propagate", "decode"}
    assert all(row["floor_ms"] > 0 for row in found.values())
    assert any("share of the roofline" in line for line in table)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["edits", *TINY, "--rows", "graphs"], "there is no row 'graphs' on cpu"),
        (["edits", "--model", "nowhere"], "no model at 'nowhere'"),
    ],
)
def test_refusals(asked: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked) == 2
    assert words in capsys.readouterr().err


def test_a_size_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["edits", *TINY, "--size", "64"])
    assert ended.value.code == 2
    assert "'64' is not a size; write it as WxH" in capsys.readouterr().err


# The README.


def test_the_readme_says_what_the_records_say() -> None:
    assert readme.refresh(check=True), "run `python -m dragnoise.bench readme`"


def test_the_newest_record_of_a_kind_counts(tmp_path: Path) -> None:
    kept = {"bench": "kernels", "model": "kernels", "dtype": "float32", "size": "", "cases": []}
    about = {"commit": "abc", "threads": 2, "versions": {"torch": "2"}}
    for date in ("2026-01-02", "2026-03-01", "2026-02-01"):
        record.keep(kept | {"machine": about | {"date": f"{date}T00:00:00"}}, "a-device", tmp_path)
    ((slug, newest),) = record.newest(tmp_path)
    assert slug == "a-device"
    assert newest["machine"]["date"].startswith("2026-03-01")
    target = tmp_path / "README.md"
    target.write_text("before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n")
    assert not readme.refresh([target], tmp_path, check=True)
    assert "old" in target.read_text()
    assert not readme.refresh([target], tmp_path)
    assert readme.refresh([target], tmp_path)
    text = target.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "a-device, 2 threads, torch 2, 2026-03-01, commit abc" in text
    target.write_text("no markers")
    with pytest.raises(ValueError, match="has no"):
        readme.refresh([target], tmp_path)
    target.write_text("<!-- bench:begin -->")
    with pytest.raises(ValueError, match="has no <!-- bench:end -->"):
        readme.refresh([target], tmp_path)


def test_every_page_is_written_also_after_a_stale_one(tmp_path: Path) -> None:
    pages = [tmp_path / "one.md", tmp_path / "two.md"]
    for page in pages:
        page.write_text("<!-- summary:begin -->\n<!-- summary:end -->\n")
    assert not readme.refresh(pages, tmp_path / "nothing")
    assert readme.refresh(pages, tmp_path / "nothing", check=True)
    assert all("Nothing has been measured yet" in page.read_text() for page in pages)


def test_the_summary_has_the_published_code_beside_ours() -> None:
    text = (readme.ROOT / "README.md").read_text(encoding="utf-8")
    _, _, rest = text.partition("<!-- summary:begin -->\n")
    rows = [row.split("|")[1:-1] for row in rest.partition("<!--")[0].splitlines()]
    assert [row[0].strip() for row in rows[2:]] == ["embedded"] + ["sd15"] * 3  # CPU, H100, H200
    assert all("commit" in row[-1] and "threads" in row[-1] for row in rows[2:])
