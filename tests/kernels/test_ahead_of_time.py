"""Every Triton kernel compiles for GPUs that are not here, without spilling registers."""

import ast
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from ahead_of_time import CAPABILITIES, KERNELS, Compiled, Kernel

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux alone")

TESTS = Path(__file__).parents[1]
GPU = TESTS.parent / "kernels" / "gpu"


def run(program: str, folder: Path) -> list[Compiled]:
    """In a process of its own: kernels that are interpreted here cannot be compiled here."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(folder), "PYTHONPATH": str(TESTS / "support")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return [Compiled(**one) for one in json.loads(done.stdout)]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> list[Compiled]:
    return run("import ahead_of_time; ahead_of_time.main()", tmp_path_factory.mktemp("triton"))


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_kernels_compile_without_spills(everything: list[Compiled], capability: int) -> None:
    here = [one for one in everything if one.capability == capability]
    assert [one.title for one in here] == [kernel.title for kernel in KERNELS]
    for one in here:
        assert (one.stack, one.local) == (0, 0), one
        assert 0 < one.registers < 255, one


def test_a_spill_is_seen(tmp_path: Path) -> None:
    kernel = Kernel(
        "spilling",
        "spilling_kernel",
        {"source": "*fp32", "target": "*fp32", "count": "i32"},
        {"BLOCK": 4096},
        1,
    )
    (one,) = run(
        "import json; from ahead_of_time import Kernel, compiled; "
        f"print(json.dumps([vars(compiled({kernel!r}, 90))]))",
        tmp_path,
    )
    assert one.stack > 0


@cache
def launched() -> set[tuple[str, str]]:
    """(module, kernel) of every kernel that is launched: `kernel[grid](...)`."""
    found = set()
    for path in GPU.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Subscript)
                and isinstance(node.func.value, ast.Name)
            ):
                found.add((f"dragnoise.kernels.gpu.{path.stem}", node.func.value.id))
    return found


def test_every_kernel_that_is_launched_is_compiled() -> None:
    assert launched()
    assert {(kernel.module, kernel.name) for kernel in KERNELS} == launched()
