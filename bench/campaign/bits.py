"""`python -m dragnoise.bench.campaign.bits DEVICE`: same input, same bits?

Every edit is made three times in one editor and once in another, with PyTorch's own attention, (on
CUDA) with the deterministic one, and (float32) without TensorFloat-32: are losses and pictures the
same, and what does it cost? A line of JSON a way.
"""

import itertools
import json
import sys
from typing import Any

import torch

from dragnoise.engine import Editor
from dragnoise.engine.cli.demo import samples
from dragnoise.engine.session.result import EditResult

from .timed import timed_edits

__all__ = ["main"]


def main(device: str) -> None:
    """Print one line of JSON for every precision and way."""
    on_cuda = torch.device(device).type == "cuda"
    dtypes = ("float32", "float16") if on_cuda else ("float32",)
    attentions = ("sdpa", "deterministic") if on_cuda else ("sdpa",)
    exact, _ = _edited(device="cpu", dtype="float32")
    for dtype, attention, tf32 in itertools.product(dtypes, attentions, (True, False)):
        torch.backends.cudnn.allow_tf32 = tf32
        if tf32 or dtype == "float32":
            print(json.dumps(_row(exact, device, dtype, attention, tf32)), flush=True)


def _row(
    exact: list[EditResult], device: str, dtype: str, attention: str, tf32: bool
) -> dict[str, Any]:
    results, taken_s = _edited(device=device, dtype=dtype, attention=attention)
    losses = [[float(loss) for loss in result.history.losses] for result in results]
    return {
        "dtype": dtype,
        "attention": attention,
        "tf32": tf32,
        "same_losses": all(one == losses[0] for one in losses),
        "same_pictures": len({result.image.pixels.tobytes() for result in results}) == 1,
        "s": taken_s,
        "iterations": [len(one) for one in losses],
        "losses": losses[0][:4],
        "exact_losses": [float(loss) for loss in exact[0].history.losses[:4]],
    }


def _edited(**how: Any) -> tuple[list[EditResult], list[float]]:
    """Edit a sample three times in one editor and once in another; return results and seconds."""
    edits = [
        edit
        for times in (3, 1)
        for edit in timed_edits(Editor.from_pretrained(backend="eager", **how), samples()[0], times)
    ]
    return [result for result, _ in edits], [taken_s for _, taken_s in edits]


if __name__ == "__main__":
    main(*sys.argv[1:2])
