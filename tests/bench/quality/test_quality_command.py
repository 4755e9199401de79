"""`bench quality` from its command line to its report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragnoise.bench.__main__ import main
from dragnoise.bench.report.machine import commit

Run = Callable[..., dict[str, Any]]

FEW = ("--steps", "4", "--settings", "iterations=1", "--lot", "tuning", "--device", "cpu")
TWO = ("--kinds", "sun,boat", "--each", "1")
WHO = ("--methods", "nothing,warp,dragnoise")
TIMED = {"seconds", "machine"}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command and return its document. What counts on the meta device takes seconds."""
    monkeypatch.setattr("dragnoise.bench.quality.contestants.tflop", lambda *asked: 1.0)

    def command(*arguments: str) -> dict[str, Any]:
        assert main(["quality", *FEW, *arguments]) == 0
        document: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return document

    return command


def untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: untimed(inner) for key, inner in value.items() if key not in TIMED}
    return value


def test_shards_make_the_serial_run_and_its_report(run: Run, tmp_path: Path) -> None:
    whole = run(*TWO, *WHO, "--out", str(tmp_path / "whole"))
    assert list(whole["drags"]) == ["tuning-sun-0", "tuning-boat-0"]
    assert all(
        set(drag["scores"]) == {"nothing", "warp", "dragnoise"} for drag in whole["drags"].values()
    )
    assert whole["settings"]["dragnoise"]["iterations"] == 1
    assert {"record.json", "table.csv", "index.html", "sheet.png", "pictures"} <= {
        path.name for path in (tmp_path / "whole").iterdir()
    }
    parts = tmp_path / "parts"
    for shard in ("1/2", "2/2"):
        both = run(*TWO, *WHO, "--out", str(parts), "--shard", shard)
    assert untimed(both)["drags"].keys() == untimed(whole)["drags"].keys()
    assert all(
        untimed(both)["drags"][name] == drag for name, drag in untimed(whole)["drags"].items()
    )


def test_anybody_named_is_compared_with(run: Run, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path), "--kinds", "sun", "--each", "1")
    run(*out, "--methods", "nothing,oracle", "--against", "oracle")
    for name in ("table.md", "index.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "Compared with oracle" in text
        assert "Compared with warp" not in text


def test_a_run_goes_on_and_takes_others_in(run: Run, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path), "--kinds", "sun", "--each", "1")
    run(*out, "--methods", "nothing")
    more = run(*out, "--methods", "nothing,oracle", "--resume")
    assert set(more["drags"]["tuning-sun-0"]["scores"]) == {"nothing", "oracle"}
    assert more["commits"] == {commit(): 2}


def test_a_report_says_that_results_are_of_several_commits(run: Run, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path), "--kinds", "sun", "--each", "1")
    first = run(*out, "--methods", "nothing")
    (file,) = tmp_path.glob("results-*.jsonl")
    file.write_text(file.read_text().replace(f'"{commit()}"', '"0ld"'))
    second = run(*out, "--methods", "nothing,oracle", "--resume")
    assert first["commits"] == {commit(): 1}
    assert second["commits"] == {"0ld": 1, commit(): 1}
    said = f"results of commits 0ld (1), {commit()} (1), report of"
    assert said in (tmp_path / "table.md").read_text()
    assert said in (tmp_path / "index.html").read_text()


def test_draggan_has_pictures_of_its_own(run: Run, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path), "--kinds", "sun,generated-house", "--each", "1")
    first = run(*out, "--methods", "nothing,draggan")
    assert {name: set(drag["scores"]) for name, drag in first["drags"].items()} == {
        "tuning-sun-0": {"nothing"}
    }
    (own,) = first["generated"]["drags"].values()
    assert set(own["scores"]) == {"nothing", "warp", "draggan"}
    assert own["scores"]["draggan"]["iterations"] == 1
    assert first["generated"]["settings"]["draggan"]["iterations"] == 1
    again = run(*out, "--methods", "nothing", "--resume")
    assert again["generated"] == first["generated"]
    assert "DragGAN, on its own generator's pictures" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--methods", "magic"), "there is no contestant 'magic'"),
        (("--against", "magic"), "there is no contestant 'magic'"),
        (("--kinds", "sun,fish"), "there is no kind 'fish'"),
        (("--shard", "3/2"), "there is no shard 3/2"),
        (("--settings", "hue=3"), "hue=3"),
    ],
)
def test_what_is_not_there_is_named(
    arguments: tuple[str, str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert main(["quality", *TWO, "--out", str(tmp_path / "new"), *arguments]) == 2
    assert told in capsys.readouterr().err
