"""The wheel that a user installs.

It has every room, the native module and the model, and neither tests, C++ sources nor records.
"""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(ROOT),
    ]
    # A build folder of its own: the one in the tree may be in use.
    built = subprocess.run(
        [*command, f"--config-settings=build-dir={folder / 'build'}"],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(folder.glob("dragnoise-*.whl"))) as wheel:
        return wheel.namelist()


@pytest.mark.slow
def test_wheel_has_all_of_the_package_and_nothing_else(names: list[str]) -> None:
    sources = {
        f"dragnoise/{path.relative_to(ROOT)}"
        for room in ("kernels", "engine", "export", "bench")
        for path in (ROOT / room).rglob("*")
        if path.is_file()
        and not {"__pycache__", "native", "results"} & set(path.parts)
        and not path.name.startswith("test_")
    }
    sources |= {"dragnoise/gradio.py", "dragnoise/jupyter.py"}  # short names, made by CMake
    packed = {
        name
        for name in names
        if not re.match(
            r"dragnoise-[^/]+\.dist-info/|dragnoise/kernels/_native\.[^/]*(so|pyd)$", name
        )
    }
    assert packed == sources
    assert len(names) - len(packed) >= 2
    assert any(re.match(r"dragnoise/kernels/_native\.[^/]*(so|pyd)$", name) for name in names)


@pytest.mark.slow
def test_wheel_has_the_model_the_types_and_the_licence(names: list[str]) -> None:
    for suffix in (
        "unet/config.json",
        "tokenizer/merges.txt",
        "unet/diffusion_pytorch_model.safetensors",
        "MODEL_CARD.md",
    ):
        assert f"dragnoise/engine/diffusion/embedded/{suffix}" in names
    for suffix in ("config.json", "model.safetensors", "samples/samples.json", "MODEL_CARD.md"):
        assert f"dragnoise/engine/gan/embedded/{suffix}" in names
    assert "dragnoise/kernels/_native.pyi" in names
    assert {
        f"dragnoise/{room}/py.typed" for room in ("kernels", "engine", "export", "bench")
    } <= set(names)
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)


@pytest.mark.skipif(not shutil.which("cmake"), reason="no cmake on PATH")
def test_without_a_compiler_nothing_is_built_and_it_is_said(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("cmake", "ninja", "make"):
        found = shutil.which(tool)
        if found is not None:
            (tools / tool).symlink_to(found)
    made = subprocess.run(
        [str(tools / "cmake"), "-S", str(ROOT), "-B", str(tmp_path / "build")],
        env={"PATH": str(tools), "CXX": "/nowhere/c++"},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert "there is no C++ compiler" in made.stderr
