"""`python -m dragnoise.bench.campaign.smoke DEVICE`: the embedded model's drags, ours everywhere?

Each sample of the demo is dragged on the CPU in float32, then on the device by every precision and
backend, each in a fresh editor: the first edit's time (a cold start but for the process), the
second's, and how far the picture is from the CPU's. A line of JSON a row; one that fails says why.
"""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dragnoise.engine import Editor
from dragnoise.engine.cli.demo import Sample, samples
from dragnoise.engine.errors import BackendError, DragnoiseError
from dragnoise.engine.session.result import EditResult
from dragnoise.engine.system.incoming import told_as

from .timed import timed_edits

__all__ = ["main"]

_WAYS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "cpu": ({"dtype": "bfloat16"},),
    "cuda": (
        {"dtype": "float32", "backend": "eager"},
        {"dtype": "float16", "backend": "eager"},
        {"dtype": "bfloat16", "backend": "eager"},
        {"dtype": "float16", "backend": "compiled"},
    ),
}


def main(device: str) -> None:
    """Print one line of JSON for every precision and backend of the device."""
    chosen = samples()[:2]
    exact, cpu_s = _edited(chosen, device="cpu")
    print(json.dumps({"way": "cpu float32", "s": cpu_s}), flush=True)
    for way in _WAYS[torch.device(device).type]:
        print(json.dumps({"way": dict(way)} | _beside(exact, chosen, device, way)), flush=True)


def _beside(
    exact: list[EditResult], chosen: tuple[Sample, ...], device: str, way: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the figures of one way, or why there are none."""
    try:
        with told_as(BackendError, "it does not run"):
            results, taken_s = _edited(chosen, device=device, **way)
    except DragnoiseError as failed:  # the next way may work
        return {"failed": str(failed)}
    return {
        "s": taken_s,
        "iterations": [len(result.history.losses) for result in results],
        "loss": [_last_loss(result) for result in results],
        "exact_loss": [_last_loss(result) for result in exact],
        "largest_difference": [int(_off(*pair).max()) for pair in zip(exact, results, strict=True)],
        "mean_difference": [
            round(float(np.mean(_off(*pair))), 3) for pair in zip(exact, results, strict=True)
        ],
        "refused": results[0].settings.get("refused"),
    }


def _edited(chosen: tuple[Sample, ...], **how: Any) -> tuple[list[EditResult], list[float]]:
    """Edit every sample twice in a new editor; return the results and seconds, loading first."""
    begin = time.perf_counter()
    editor = Editor.from_pretrained(**how)
    loading_s = round(time.perf_counter() - begin, 3)
    edits = [timed_edits(editor, sample, 2) for sample in chosen]
    results = [twice[-1][0] for twice in edits]
    return results, [loading_s, *(taken_s for twice in edits for _, taken_s in twice)]


def _last_loss(result: EditResult) -> float:
    return float(result.history.losses[-1])


def _off(exact: EditResult, other: EditResult) -> Any:
    return np.abs(exact.image.pixels.astype(int) - other.image.pixels.astype(int))


if __name__ == "__main__":
    main(*sys.argv[1:2])
