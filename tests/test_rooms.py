"""Each room imports only from the rooms to its left, and inside the engine each module only from the modules before it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ["kernels", "engine", "export", "bench"]
ENGINE = [
    "errors",
    "waiting",
    "processor",
    "installed",
    "files",
    "digest",
    "pixels",
    "values",
    "geometry",
    "config",
    "observe",
    "cache",
    "run",
    "capture",
    "unet",
    "autoencoder",
    "model",
    "adapters",
    "exported",
    "backends",
    "loading",
    "methods",
    "stages",
    "runtime",
    "generated",
    "source",
    "state",
    "saved",
    "history",
    "result",
    "stream",
    "asked",
    "learning",
    "session",
    "editor",
    "drawing",
    "trajectory",
    "demo",
    "about",
    "commands",
    "cli",
]


def imported(source: str, package: list[str]) -> Iterator[list[str]]:
    """Every module of dragnoise that the source imports, at its top or inside a function, as its parts after `dragnoise`.

    package: the parts of the package that the source stands in. `from x import y` counts as x.y, whether y is a module or a name in one.
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
    return [path for path in folder.rglob("*.py") if "__pycache__" not in path.parts]


def imports_of(path: Path) -> list[list[str]]:
    return list(
        imported(path.read_text(encoding="utf-8"), list(path.relative_to(ROOT).parent.parts))
    )


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


def test_every_engine_module_has_a_place() -> None:
    modules = {
        path.relative_to(ROOT / "engine").parts[0].removesuffix(".py")
        for path in files(ROOT / "engine")
    }
    assert modules - {"__init__"} == set(ENGINE)


@pytest.mark.parametrize("module", ENGINE)
def test_engine_module_imports_only_from_earlier_ones(module: str) -> None:
    file, folder = ROOT / "engine" / f"{module}.py", ROOT / "engine" / module
    paths = [file] if file.exists() else files(folder)
    assert paths, f"the engine's module {module} is missing"
    allowed = ENGINE[: ENGINE.index(module) + (0 if file.exists() else 1)]
    wrong = [
        (path.relative_to(ROOT), parts)
        for path in paths
        for parts in imports_of(path)
        if parts[0] == "engine" and (len(parts) == 1 or parts[1] not in allowed)
    ]
    assert not wrong


def test_kernels_is_no_regular_package() -> None:
    """With kernels/__init__.py, `python -m ...` at the root would import ours instead of Hugging Face's `kernels`."""
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
