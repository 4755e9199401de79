"""The canvas as one text: the page's own modules, whole, and small."""

import json
from pathlib import Path

from dragnoise.engine.hosts.bundle import bundle, glue

ENGINE = Path(__file__).parents[3] / "engine"
PAGE = ENGINE / "serve" / "page"
OWN = ENGINE / "hosts" / "page"


def files() -> dict[str, str]:
    first = bundle().partition(";\n")[0].removeprefix("const FILES = ")
    loaded: dict[str, str] = json.loads(first.replace("<\\/", "</"))
    return loaded


def test_nothing_of_the_page_is_another() -> None:
    found = files()
    assert set(found) >= {"warp.js", "drag-canvas.js", "ui.js", "index.html", "style.css"}
    for name, text in found.items():
        folder = PAGE if (PAGE / name).exists() else OWN
        assert text == (folder / name).read_text(encoding="utf-8")
    assert not {path.name for path in PAGE.iterdir()} & {path.name for path in OWN.iterdir()}


def test_what_is_imported_is_there_before() -> None:
    there: list[str] = []
    for name, text in files().items():
        imports = [line.split('"')[1] for line in text.splitlines() if line.startswith("import ")]
        assert [each for each in imports if each.removeprefix("./") not in there] == []
        there.append(name)


def test_it_may_stand_in_a_script_element() -> None:
    assert "</" not in bundle()


def test_it_is_small() -> None:
    own = sum(path.stat().st_size for path in OWN.iterdir())
    assert own < 25_000
    assert len(bundle() + glue("jupyter")) < 100_000
