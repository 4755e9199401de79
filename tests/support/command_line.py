"""The command line as tests call it: in this process, on the golden model, with few steps."""

import json
import shlex
from typing import Any

import pytest

from dragnoise.engine.cli import main
from golden_cases import MODEL

ON_GOLDEN = ("--model", str(MODEL), "--device", "cpu")
QUICK = (*ON_GOLDEN, *shlex.split("--steps 10 --strength 0.3 --iterations 3 --no-check"))
DRAG = ("--drag", "40,40:60,50")


def run(*words: object) -> int:
    """Return the exit code of `dragnoise WORDS`."""
    return main([str(word) for word in words])


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return the JSON document on stdout."""
    return dict(json.loads(capsys.readouterr().out))
