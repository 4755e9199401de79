"""`dragnoise compare`: several methods on one prepared session, one sheet."""

from pathlib import Path

import pytest

from command_line import ON_GOLDEN, printed, run
from dragnoise.engine import Image
from dragnoise.engine.cli.compare import COMPARE

DRAG = ("--drag", "40,44:52,50", "--no-check")


def test_every_method_stands_on_the_sheet(
    picture: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.png"
    methods = ("dragnoise", "dragdiffusion", "freedrag")
    assert (
        run("compare", picture, *DRAG, "--methods", ",".join(methods), "-o", sheet, *ON_GOLDEN) == 0
    )
    out = capsys.readouterr().out
    assert f"wrote {sheet}" in out
    page = Image.of(sheet)
    assert page.width > 4 * 250
    assert all(method in out for method in ("dragnoise", "freedrag"))


def test_as_json_with_counted_work(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("compare", picture, *DRAG, "--methods", "freedrag,dragnoise", "--json", *ON_GOLDEN)
    assert run(*words) == 0
    document = printed(capsys)
    first, second = document["edits"]
    assert (first["method"], second["method"]) == ("freedrag", "dragnoise")
    assert {"encode", "invert"}.isdisjoint(second["timings_ms"])
    assert first["gflop"] > 0
    assert second["gflop"] > 0
    assert document["written"] == [str(picture.with_name("face_compared.png"))]


def test_what_reads_the_host_is_not_counted(
    picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("compare", picture, *DRAG, "--methods", "baseline", "--json", *ON_GOLDEN)
    assert run(*words) == 0
    assert printed(capsys)["edits"][0]["gflop"] is None


@pytest.mark.parametrize("methods", ["nothing", "dragnoise,dragnoise", "", "dragnoise,"])
def test_methods_that_are_none_are_refused(
    picture: Path, methods: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("compare", picture, *DRAG, "--methods", methods, *ON_GOLDEN)
    assert "are no methods, each once; known: dragnoise, dragdiffusion" in capsys.readouterr().err
    assert COMPARE.name == "compare"
