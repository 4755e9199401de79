"""Each room imports only from the rooms to its left; inside the engine likewise."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ["kernels", "engine", "export", "bench"]
ENGINE = "errors config system cache run inputs diffusion gan exported backends drag stages training pipelines methods session editor serve cli hosts".split()  # noqa: E501, SIM905 one line, to be read as one

LOOSE = 3
"""Modules that stand at the top of the engine, in no room."""


def imported(source: str, package: list[str]) -> Iterator[list[str]]:
    """Yield every module of dragnoise that the source imports, as its parts after `dragnoise`.

    At its top or inside a function; `from x import y` counts as x.y, whether y is a module or a
    name in one.

    Args:
        source: Python.
        package: The parts of the package that it stands in.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ["dragnoise", *package][: len(package) + 2 - node.level] if node.level else []
            base = above + (node.module.split(".") if node.module else [])
            found = [[*base, *alias.name.split(".")] for alias in node.names]
        else:
            continue
        yield from (parts[1:] for parts in found if parts[0] == "dragnoise")


def files(folder: Path) -> list[Path]:
    paths = [*folder.rglob("*.py"), *folder.rglob("*.pyi")]
    return [path for path in paths if "__pycache__" not in path.parts]


def imports_of(path: Path) -> list[list[str]]:
    package = list(path.relative_to(ROOT).parent.parts)
    return list(imported(path.read_text(encoding="utf-8"), package))


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_from_its_left(room: str) -> None:
    assert files(ROOT / room), f"the room {room} is missing"
    allowed = ROOMS[: ROOMS.index(room) + 1]
    wrong = [
        (path.relative_to(ROOT), parts)
        for path in files(ROOT / room)
        for parts in imports_of(path)
        if parts[0] not in allowed
    ]
    assert not wrong


def test_the_engine_is_its_rooms_and_three_modules() -> None:
    tops = {path.relative_to(ROOT / "engine").parts[0] for path in files(ROOT / "engine")}
    modules = {top.removesuffix(".py") for top in tops if top.endswith(".py")} - {"__init__"}
    rooms = {top for top in tops if "." not in top}
    assert modules | rooms == set(ENGINE)
    assert len(modules) == LOOSE


@pytest.mark.parametrize("room", ENGINE)
def test_engine_room_imports_only_from_its_left(room: str) -> None:
    file = ROOT / "engine" / f"{room}.py"
    paths = [file] if file.exists() else files(ROOT / "engine" / room)
    assert paths, f"the engine's room {room} is missing"
    own = [] if file.exists() else [room]
    allowed = [*ENGINE[: ENGINE.index(room)], *own]
    wrong = [
        (path.relative_to(ROOT), parts)
        for path in paths
        for parts in imports_of(path)
        if parts[0] == "engine" and (len(parts) == 1 or parts[1] not in allowed)
    ]
    assert not wrong


def test_a_drag_knows_no_network() -> None:
    """What optimises a bottleneck can optimise anything: the loop knows no model and no method."""
    known = {
        parts[1]
        for path in files(ROOT / "engine" / "drag")
        for parts in imports_of(path)
        if parts[0] == "engine"
    }
    assert not known & {"diffusion", "exported", "backends", "stages", "pipelines", "methods"}


def test_kernels_is_no_regular_package() -> None:
    """With one, `python -m ...` at the root would import ours instead of Hugging Face's."""
    assert not (ROOT / "kernels" / "__init__.py").exists()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import dragnoise.kernels.bilinear", ["kernels", "bilinear"]),
        ("from dragnoise.bench import table", ["bench", "table"]),
        ("from . import stages", ["engine", "methods", "stages"]),
        ("from .method import Scene", ["engine", "methods", "method", "Scene"]),
        ("from ..model import Model", ["engine", "model", "Model"]),
        ("from ...export import plans", ["export", "plans"]),
        ("def late():\n    from ...bench import table", ["bench", "table"]),
    ],
)
def test_reads_every_way_to_import(line: str, expected: list[str]) -> None:
    assert list(imported(line, ["engine", "methods"])) == [expected]
