"""Quality runs that are made up: numbers with a known order, pictures of plain colours."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

__all__ = ["MACHINE", "result", "run", "with_generated", "write_pictures"]

MACHINE = {
    "date": "2026-11-26T23:00:00+00:00",
    "commit": "abc1234",
    "device": "cpu",
    "cpu": "A Processor",
    "cpu_features": ["avx2"],
    "threads": 1,
    "versions": {"torch": "2.9"},
    "gpu": {"absent": "none"},
}

LEFT: Mapping[str, Mapping[str, float]] = {
    "boat": {"nothing": 1.0, "oracle": 0.0, "warp": 0.1, "dragnoise": 0.4, "freedrag": 0.6},
    "sky": {"nothing": 1.0, "oracle": 0.0, "warp": 0.7, "dragnoise": 0.2, "freedrag": 0.5},
}
"""The share of the way that everybody leaves, by kind: a warp wins one, a method the other."""

_MODELS = ("dragnoise", "freedrag")


def result(left: float, length_px: float, name: str, number: int) -> dict[str, Any]:
    """Return a contestant's scores: all follow from the share of the way that it leaves."""
    left += 0.01 * (number % 3) * (left > 0)
    return {
        "distance_px": left * length_px,
        "template_px": None if name == "oracle" else left * length_px + 1,
        "completion": 1 - left,
        "completion_error": left,
        "inside_db": 30 - 10 * left,
        "inside_ssim": 1 - left / 2,
        "outside_db": 40.0,
        "outside_source_db": float("inf") if name == "nothing" else 40.0,
        "consequence": (1 - left if name in _MODELS else 0.0) if length_px > 15 else None,
        "uncovered_db": 20.0,
        "sharpness": 0.9,
        "gain_db": 10 - 10 * left,
        "iterations": 20 if name in _MODELS else None,
        "reached": left < 0.3 if name in _MODELS else None,
        "tflop": 100.0 + number if name in _MODELS else None,
        "seconds": {"nothing": 1e-6, "warp": 0.01}.get(name, 2.0),
    }


def run(each: int = 6, left: Mapping[str, Mapping[str, float]] = LEFT) -> dict[str, Any]:
    """Return the document of a run of `each` drags a kind; a sky's drag is long, a boat's short."""
    drags = {}
    for kind, shares in left.items():
        length_px = 20.0 if kind == "sky" else 10.0
        for number in range(each):
            drags[f"judging-{kind}-{number}"] = {
                "kind": kind,
                "length_px": length_px,
                "prompt": f"a {kind}",
                "handles": [[40.0, 60.0]],
                "targets": [[40.0 + length_px, 60.0]],
                "scores": {
                    name: result(share, length_px, name, number) for name, share in shares.items()
                },
            }
    names: Sequence[str] = list(dict.fromkeys(name for own in left.values() for name in own))
    return {
        "bench": "quality",
        "model": "embedded",
        "lot": "judging",
        "steps": 10,
        "size": "128x128",
        "dtype": "float32",
        "machine": MACHINE,
        "contestants": {name: f"what {name} is" for name in names},
        "settings": {"dragnoise": {"lr": 0.01}},
        "drags": drags,
    }


def with_generated(document: Mapping[str, Any], each: int = 2) -> dict[str, Any]:
    """Return a run with drags on a generator's pictures, of which places alone are judged."""
    left = {"generated-sun": {"nothing": 1.0, "warp": 0.1, "draggan": 0.3}}
    own = run(each, left)
    for drag in own["drags"].values():
        for scores in drag["scores"].values():
            for name in ("inside_db", "inside_ssim", "outside_db", "consequence", "gain_db"):
                del scores[name]
    about = {name: own[name] for name in ("contestants", "drags", "lot", "size")}
    return {**document, "generated": {**about, "generator": "abcdef123456"}}


def write_pictures(document: Mapping[str, Any], folder: Path) -> None:
    """Write a picture of one colour for every result, and sources, truths and masks."""
    mask = np.zeros((128, 128, 3), np.uint8)
    mask[32:96, 32:96] = 255
    for name, drag in document["drags"].items():
        own = folder / "pictures" / name
        own.mkdir(parents=True)
        for place, each in enumerate(("before", "after", *drag["scores"])):
            colour = np.full((128, 128, 3), 40 * place, np.uint8)
            PIL.Image.fromarray(colour).save(own / f"{each}.png")
        PIL.Image.fromarray(mask).save(own / "mask.png")
