"""Measure exported parts: size, time and memory to make them, error, and speed where they run here.

Plans are built by the TensorRT that is installed here; they run on CUDA. Graphs run on the CPU in
float32, by onnxruntime.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dragnoise.engine import DragConfig, Editor, EditResult, Placement
from dragnoise.engine.backends import BACKENDS
from dragnoise.engine.backends.exported_parts import ExportedParts
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.parts import PARTS
from dragnoise.engine.exported import DTYPES, EXPORTABLE, Extent, part_of, precision_of
from dragnoise.export.inputs import example
from dragnoise.export.models import in_precision

from ..report.record import number
from .artefacts import builder, make, on_device
from .edits import Case, Watch
from .models import model as model_of
from .timing import Spread, alternating, ratio

__all__ = ["edit_table", "exports_table", "measure"]

_RUNS_ON: Mapping[str, str] = {"cpu": "onnxruntime", "cuda": "tensorrt"}
_SETTINGS = DragConfig(iterations=10, lr=1e-4)


def measure(
    name: str,
    size: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
    rounds: int,
    watch: Watch,
    exported: Path | None = None,
) -> dict[str, Any]:
    """Measure every part.

    Args:
        name: The model's name, as `models.model` has it.
        size: (height, width) of the pictures in pixels.
        device: Where parts are timed; they are made on the CPU.
        dtype: The precision of the exported parts.
        rounds: How many rounds count.
        watch: Called with what is measured next.
        exported: A folder for the exported parts, which stay there and are taken from there; None
            for a folder that goes with the measurement.

    Returns:
        The figures, as the record holds them.
    """
    model = in_precision(model_of(name, "cpu", "float32"), dtype)
    trt = builder()
    with tempfile.TemporaryDirectory(prefix="dragnoise-exports-") as work:
        folder = exported or Path(work)
        rows = make(model, size, folder, watch, EXPORTABLE)
        record: dict[str, Any] = {
            "rows": rows,
            "precision": next(short for short, row in DTYPES.items() if row == dtype),
            "flavour": None if trt is None else f"{trt.flavour} {trt.version}",
        }
        runner = _RUNS_ON[device.type]
        here = on_device(model, device)
        if BACKENDS[runner].objections(here):
            return record
        placement = Placement.everywhere(runner)
        editor = Editor(
            here, backend=placement.with_drag("eager"), exported=folder, check_pictures=False
        )
        for row in rows:
            watch(f"timing {row['part']}")
            parts = editor.running.exported[runner]
            row["times"] = _times(parts, here, row["part"], Extent(*size), rounds)
        watch("timing whole edits")
        edit = _edits(here, Case(size, True, _SETTINGS, _SETTINGS), folder, placement, rounds)
        return record | {"ran_by": runner, "edit": edit}


def _times(
    parts: ExportedParts[Any], model: Model, part: str, extent: Extent, rounds: int
) -> dict[str, Any]:
    """Time a part by PyTorch's operators and from its file, and say how far they are apart."""
    dtype = precision_of(model, part)
    inputs = [tensor.to(dtype) for tensor in example(model, part, extent).values()]
    eager = part_of(model, model.unet, part)
    exported = partial(parts.run, PARTS[part])
    with torch.no_grad():
        apart = _apart(eager(*inputs), exported(*inputs))
        contenders = {"eager": lambda: eager(*inputs), "exported": lambda: exported(*inputs)}
        times = alternating(contenders, model.device, max(rounds, 5))
    return {
        "eager_ms": Spread.of(times["eager"]).to_dict(),
        "exported_ms": Spread.of(times["exported"]).to_dict(),
        "ratio": ratio(times["eager"], times["exported"]).to_dict(),
        "apart": apart,
    }


def _apart(expected: Tensor | Sequence[Tensor], outputs: Sequence[Tensor]) -> float:
    """Return the largest relative difference (L2) of an output."""
    if isinstance(expected, Tensor):
        expected = (expected,)
    pairs = zip(expected, outputs, strict=True)
    return max(
        float((output.float() - right.float()).norm() / right.float().norm())
        for right, output in pairs
    )


def _edits(
    model: Model, case: Case, folder: Path, placement: Placement, rounds: int
) -> dict[str, Any]:
    """Time a whole edit by the usual backend, and with everything placed that can be."""
    inputs = case.inputs()
    usual = Editor(model, check_pictures=False)
    placed = Editor(
        model,
        backend=placement.with_drag(usual.running.backend),
        exported=folder,
        check_pictures=False,
    )
    for editor in (usual, placed):
        editor.edit(**inputs)
    results: dict[str, list[EditResult]] = {"usual": [], "exported": []}
    for _ in range(rounds):
        results["usual"].append(usual.edit(**inputs))
        results["exported"].append(placed.edit(**inputs))
    times = {name: [_frozen_ms(edit) for edit in edits] for name, edits in results.items()}
    pixels = {name: edits[-1].image.pixels.astype(int) for name, edits in results.items()}
    return {
        "usual": usual.running.backend,
        "exported": placed.running.backend,
        "frozen_stages_ms": {name: Spread.of(values).to_dict() for name, values in times.items()},
        "ratio": ratio(times["usual"], times["exported"]).to_dict(),
        "image_difference": int(abs(pixels["usual"] - pixels["exported"]).max()),
    }


def _frozen_ms(result: EditResult) -> float:
    """Return the milliseconds of the stages without a gradient."""
    return sum(result.timings_ms[name] for name in ("encode", "invert", "propagate", "decode"))


_HEADER = (
    "part",
    "format",
    "MB",
    "made in s",
    "peak GB",
    "error",
    "eager ms",
    "exported ms",
    "ratio",
)


def exports_table(document: Mapping[str, Any]) -> list[list[str]]:
    """Format a record as a table with a row for each part and format, a header first."""
    runner = document.get("ran_by")
    table = [list(_HEADER)]
    for row in document["rows"]:
        table += _lines(row, runner, document["flavour"])
    return table


def _lines(row: Mapping[str, Any], runner: str | None, flavour: str) -> Iterator[list[str]]:
    onnx = row["onnx"]
    times = row.get("times") if runner == "onnxruntime" else None
    yield _cells(row["part"], "ONNX", onnx, onnx["export_s"], onnx["error"], times)
    if (plan := row.get("plan")) is not None:
        times = row.get("times") if runner == "tensorrt" else None
        error = None if times is None else times["apart"]
        yield _cells(row["part"], flavour, plan, plan["seconds"], error, times)


def _cells(
    part: str,
    kind: str,
    figures: Mapping[str, Any],
    seconds: float,
    error: float | None,
    times: Mapping[str, Any] | None,
) -> list[str]:
    peak = figures["peak_bytes"]
    cells = [
        part,
        kind,
        f"{figures['bytes'] / 1e6:.1f}",
        f"{seconds:.1f}",
        "" if peak is None else f"{peak / 1e9:.2f}",
        "not run" if error is None else f"{error:.1e}",
    ]
    if times is None:
        return [*cells, "", "", ""]
    medians = [number(times[name]["median"]) for name in ("eager_ms", "exported_ms")]
    return [*cells, *medians, f"{times['ratio']['median']:.2f}"]


def edit_table(document: Mapping[str, Any]) -> list[list[str]]:
    """Format the times of an edit's stages without a gradient, by the usual backend and placed.

    The table is empty where no edits ran.
    """
    if "edit" not in document:
        return []
    edit = document["edit"]
    times = edit["frozen_stages_ms"]
    return [
        ["encode, invert, propagate and decode by", "s", "ratio", "largest difference"],
        [edit["usual"], number(times["usual"]["median"] / 1e3), "1.00", "0 of 255"],
        [
            document["ran_by"],
            number(times["exported"]["median"] / 1e3),
            f"{edit['ratio']['median']:.2f}",
            f"{edit['image_difference']} of 255",
        ],
    ]
