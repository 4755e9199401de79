"""Without the C++ twins everything runs on the formulas, and says so once."""

import json
import subprocess
import sys

import numpy as np
import pytest

from dragnoise.engine.cache.digest import environment_digest
from dragnoise.engine.cli.info import about
from golden_cases import MODEL
from sessions import PICTURE, POINTS, QUICK, editor

EDIT = """
import json, logging, sys
import numpy as np
sys.modules["dragnoise.kernels._native"] = None  # what an import finds without a compiler
from dragnoise.engine import DragConfig, Editor
from dragnoise.engine.cache.digest import environment_digest
from dragnoise.engine.cli.info import about
model, points, settings = json.loads(sys.argv[1])
pixels = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(64, 64, 3)
for _ in range(2):
    editor = Editor.from_pretrained(model, device="cpu", check_pictures=False)
result = editor.edit(pixels, points, config=DragConfig(**settings))
print(json.dumps({
    "losses": result.history.losses.tolist(),
    "pixels": result.image.pixels.tolist(),
    "native": about(editor.model)["native"],
    "environment": environment_digest(editor.model.device),
}))
"""


def test_an_edit_without_native_code_is_the_same_but_for_rounding() -> None:
    settings = {name: getattr(QUICK, name) for name in ("steps", "strength", "iterations", "lr")}
    given = json.dumps([str(MODEL), "20,20:40,34", settings | {"lam": QUICK.lam}])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EDIT, given],
        input=PICTURE.pixels.tobytes(),
        capture_output=True,
        check=True,
    )
    assert done.stderr.decode().count("dragnoise runs on its formulas, which is slower") == 1
    assert done.stderr.decode().count("\n") == 1
    found = json.loads(done.stdout)
    assert (
        found["native"] == "missing (it was installed without a C++ compiler): formulas run, slower"
    )
    expected = editor().edit(PICTURE, POINTS, config=QUICK)
    assert found["losses"] == pytest.approx(expected.history.losses.tolist(), rel=1e-4)
    assert np.abs(np.array(found["pixels"]) - expected.image.pixels.astype(int)).max() <= 1
    assert found["environment"] != environment_digest(editor().model.device)
    assert about(editor().model)["native"] == "built"
