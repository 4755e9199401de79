"""Exported parts: how large, how long they take to make and in how much memory, how far from PyTorch; and how fast beside it, where they run here.

Plans are built by the TensorRT that is here; they run on CUDA. Graphs run on the CPU in float32, by onnxruntime.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dragnoise.engine import DragConfig, Editor, Placement
from dragnoise.engine.backends import BACKENDS
from dragnoise.engine.backends.exported_parts import ExportedParts
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.exported import DTYPES, PARTS, Extent, part_of, precision_of
from dragnoise.export.inputs import example
from dragnoise.export.models import in_precision

from ..report.record import number
from .artefacts import builder, make, on_device
from .edits import Case
from .models import model as model_of
from .timing import Spread, alternating, ratio

__all__ = ["edit_table", "exports_table", "measure"]

Watch = Callable[[str], object]
_RUNS: Mapping[str, str] = {"cpu": "onnxruntime", "cuda": "tensorrt"}


def measure(
    name: str,
    size: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
    rounds: int,
    watch: Watch,
) -> dict[str, Any]:
    """The record's part. device: where they are timed; they are made on the CPU."""
    model = in_precision(model_of(name, "cpu", "float32"), dtype)
    short = next(short for short, one in DTYPES.items() if one == dtype)
    trt = builder()
    with tempfile.TemporaryDirectory(prefix="dragnoise-exports-") as work:
        folder, extent = Path(work), Extent(*size)
        rows = make(model, size, folder, watch, PARTS)
        found: dict[str, Any] = {
            "rows": rows,
            "precision": short,
            "flavour": None if trt is None else f"{trt.flavour} {trt.version}",
        }
        here, who = on_device(model, device), _RUNS[device.type]
        if BACKENDS[who].objections(here):
            return found
        served = Editor(
            here, backend=Placement.everywhere(who).with_drag("eager"), exported=folder
        ).running.exported[who]
        for row in rows:
            watch(f"timing {row['part']}")
            row["times"] = _times(served, here, row["part"], extent, rounds)
        watch("timing whole edits")
        return found | {"ran_by": who, "edit": _edits(here, size, folder, who, rounds)}


def _times(
    served: ExportedParts[Any], model: Model, part: str, extent: Extent, rounds: int
) -> dict[str, Any]:
    """A part by PyTorch's operators one by one and from its file, in alternating rounds; how far they are apart."""
    given = [
        tensor.to(precision_of(model, part)) for tensor in example(model, part, extent).values()
    ]
    eager, exported = part_of(model, model.unet, part), partial(served.run, part, extent)
    with torch.no_grad():
        apart = _apart(eager(*given), exported(*given))
        found = alternating(
            {"eager": lambda: eager(*given), "exported": lambda: exported(*given)},
            model.device,
            max(rounds, 5),
        )
    times = {f"{name}_ms": Spread.of(values).to_dict() for name, values in found.items()}
    return times | {"ratio": ratio(found["eager"], found["exported"]).to_dict(), "apart": apart}


def _apart(expected: Any, found: Sequence[Tensor]) -> float:
    pairs = zip((expected,) if isinstance(expected, Tensor) else expected, found, strict=True)
    return max(
        float((mine.float() - right.float()).norm() / right.float().norm()) for right, mine in pairs
    )


def _edits(
    model: Model, size: tuple[int, int], folder: Path, who: str, rounds: int
) -> dict[str, Any]:
    """A whole edit with the usual backend, and with everything placed that can be."""
    config = DragConfig(iterations=10, lr=1e-4)
    inputs = Case(size, True, config, config).inputs()
    usual = Editor(model)
    placed = Editor(
        model, backend=Placement.everywhere(who).with_drag(usual.running.backend), exported=folder
    )
    found: dict[str, list[Any]] = {"usual": [], "exported": []}
    for number_of_round in range(rounds + 1):
        for name, editor in {"usual": usual, "exported": placed}.items():
            result = editor.edit(**inputs)
            if number_of_round:
                found[name].append(result)
    stages = ("encode", "invert", "propagate", "decode")
    took = {
        name: [sum(one.timings_ms[stage] for stage in stages) for one in results]
        for name, results in found.items()
    }
    pictures = [found[name][-1].image.pixels.astype(int) for name in ("usual", "exported")]
    return {
        "usual": usual.running.backend,
        "exported": placed.running.backend,
        "frozen_stages_ms": {name: Spread.of(values).to_dict() for name, values in took.items()},
        "ratio": ratio(took["usual"], took["exported"]).to_dict(),
        "image_difference": int(abs(pictures[0] - pictures[1]).max()),
    }


def exports_table(document: Mapping[str, Any]) -> list[list[str]]:
    """A row a part and format, a header first."""
    header = [
        "part",
        "format",
        "MB",
        "made in s",
        "peak GB",
        "error",
        "eager ms",
        "exported ms",
        "ratio",
    ]
    runs = document.get("ran_by")
    rows = [header]
    for row in document["rows"]:
        times, onnx, plan = row.get("times"), row["onnx"], row.get("plan")
        rows.append(
            _cells(
                row["part"],
                "ONNX",
                onnx,
                onnx["export_s"],
                onnx["error"],
                times if runs == "onnxruntime" else None,
            )
        )
        if plan is not None:
            ran = times if runs == "tensorrt" else None
            error = None if ran is None else ran["apart"]
            rows.append(_cells(row["part"], document["flavour"], plan, plan["seconds"], error, ran))
    return rows


def _cells(
    part: str,
    kind: str,
    made: Mapping[str, Any],
    seconds: float,
    error: float | None,
    times: Mapping[str, Any] | None,
) -> list[str]:
    peak = "" if made["peak_bytes"] is None else f"{made['peak_bytes'] / 1e9:.2f}"
    cells = [
        part,
        kind,
        f"{made['bytes'] / 1e6:.1f}",
        f"{seconds:.1f}",
        peak,
        "not run" if error is None else f"{error:.1e}",
    ]
    if times is None:
        return [*cells, "", "", ""]
    medians = (number(times[name]["median"]) for name in ("eager_ms", "exported_ms"))
    return [*cells, *medians, f"{times['ratio']['median']:.2f}"]


def edit_table(document: Mapping[str, Any]) -> list[list[str]]:
    """The stages of an edit without a gradient (encode, invert, propagate, decode), by the usual backend and placed; empty where they did not run."""
    if "edit" not in document:
        return []
    edit = document["edit"]
    took = edit["frozen_stages_ms"]
    return [
        ["encode, invert, propagate and decode by", "s", "ratio", "largest difference"],
        [edit["usual"], number(took["usual"]["median"] / 1e3), "1.00", "0 of 255"],
        [
            document["ran_by"],
            number(took["exported"]["median"] / 1e3),
            f"{edit['ratio']['median']:.2f}",
            f"{edit['image_difference']} of 255",
        ],
    ]
