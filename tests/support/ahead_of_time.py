"""Compile every Triton kernel for GPUs that are not here, and tell what its machine code uses.

Run as a program, in a process without TRITON_INTERPRET: `python ahead_of_time.py` prints one JSON
list. A spill is what ptxas moves from registers to the stack; cuobjdump (in the triton wheel) shows
the stack.
"""

import importlib
import importlib.util
import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["CAPABILITIES", "KERNELS", "Compiled", "Kernel", "compiled"]

CAPABILITIES = (80, 90, 120)


@dataclass(frozen=True)
class Kernel:
    """One kind of call of a kernel.

    Attributes:
        module: The kernel's module.
        name: The kernel's name in it.
        signature: Types of the arguments by name ("*fp32", "i32", ...).
        constants: Values that are fixed when the kernel is compiled. A value for an argument that
            the kernel does not declare constant is one that a launch specialises (a stride of 1).
        warps: Number of warps of a program.
        aligned: Arguments that a launch finds divisible by 16 and specialises: pointers, strides.
        most: Registers a thread at most, where a launch says so.
    """

    module: str
    name: str
    signature: Mapping[str, str]
    constants: Mapping[str, Any] = field(default_factory=dict)
    warps: int = 4
    aligned: tuple[str, ...] = ()
    most: int | None = None

    @property
    def title(self) -> str:
        maps = sorted({kind for kind in self.signature.values() if kind.startswith("*")})
        return f"{self.name} {' '.join(maps)} {dict(self.constants)}"


@dataclass(frozen=True)
class Compiled:
    """The resources that a compiled kernel uses.

    Attributes:
        title: The kind of call.
        capability: The GPU's, ten times.
        registers: Number a thread.
        stack: Bytes a thread; spills stand there.
        shared: Bytes of shared memory a program.
        local: Bytes of local memory a thread.
    """

    title: str
    capability: int
    registers: int
    stack: int
    shared: int
    local: int


def compiled(kernel: Kernel, capability: int) -> Compiled:
    """Compile a kind of call for GPUs of that capability."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = getattr(importlib.import_module(kernel.module), kernel.name)
    kinds = {**kernel.signature, **dict.fromkeys(kernel.constants, "constexpr")}
    source = ASTSource(
        function,
        {name: kinds[name] for name in function.arg_names},
        constexprs={
            (function.arg_names.index(name),): value for name, value in kernel.constants.items()
        },
        attrs={
            (place,): [["tt.divisibility", 16]]
            for place, name in enumerate(function.arg_names)
            if name in kernel.aligned
        },
    )
    options = {"num_warps": kernel.warps, "maxnreg": kernel.most}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return Compiled(kernel.title, capability, **_resources(made.asm["cubin"]))


def _resources(cubin: bytes) -> dict[str, int]:
    import triton

    cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        report = subprocess.run(
            [str(cuobjdump), "--dump-resource-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    numbers = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", report)
    if numbers is None:
        raise ValueError(f"cuobjdump says nothing of resources: {report[:500]}")
    names = ("registers", "stack", "shared", "local")
    return dict(zip(names, map(int, numbers.groups()), strict=True))


_FLOATS = ("*fp32", "*fp16", "*bf16")


def _group_norm_silu() -> Iterator[Kernel]:
    """Yield groups of Stable Diffusion's widths in both memory orders: whole ones and blocks."""
    module = "dragnoise.kernels.gpu.group_norm_silu"
    maps = ("x", "y", "weight", "bias", "gradient", "found")
    added = ("change", "plus", "beside", "total", "elsewhere")
    kept = dict.fromkeys(("parts", "statistics", "mean", "rstd"), "*fp32") | {"eps": "fp32"}
    strides = ("entry_stride", "channel_stride", "place_stride", "x_place", "others_place")
    counts = ("places", "units", "groups", "blocks", "count", "silu")
    more = ("plus_entry", "own", "changed", "plus_place", "others", "apart")
    orders: tuple[tuple[dict[str, int], dict[str, int]], ...] = (
        ({"CHANNELS": 16, "VECTOR": 2, "channel_stride": 1}, {}),
        ({"CHANNELS": 32, "VECTOR": 4, "place_stride": 1}, {"x_place": 1, "others_place": 1}),
    )
    for kind in _FLOATS:
        given = dict.fromkeys((*maps, *added), kind) | kept
        given |= dict.fromkeys((*strides, *counts, *more), "i32")
        aligned = (*maps, *added, *kept, *strides, *more[:2])
        for order, of_sum in orders:
            block = order | {"PLACES": 4096 // order["CHANNELS"]}
            combined = block | {"BLOCKS": 64}
            yield Kernel(module, "statistics_kernel", given, block | of_sum, 8, aligned)
            yield Kernel(module, "gradient_sums_kernel", given, block, 8, aligned)
            yield Kernel(module, "apply_kernel", given, combined, 8, aligned)
            yield Kernel(module, "gradient_kernel", given, combined, 8, aligned)
            whole = order | {"CHANNELS": 64, "PLACES": 64}
            yield Kernel(module, "whole_kernel", given, whole | of_sum, 8, aligned)
            yield Kernel(module, "whole_gradient_kernel", given, whole, 8, aligned)


def _attention() -> Iterator[Kernel]:
    """Yield heads of Stable Diffusion's three widths, in the tiles that they are launched with."""
    if importlib.util.find_spec("triton") is None:
        return
    import torch

    from dragnoise.kernels.attention import WIDEST
    from dragnoise.kernels.gpu.attention import LOG2_E, tiling

    module = "dragnoise.kernels.gpu.attention"
    maps = ("gradient", "attended", "query", "key", "value", "of_query", "of_key", "of_value")
    strides = [f"{name}_{axis}" for name in maps[:5] for axis in ("entry", "row")]
    numbers = dict.fromkeys((*strides, "queries", "keys", "heads"), "i32")
    kept = {"sums": "*fp32", "products": "*fp32", "scale": "fp32"}
    for kind, dtype in zip(_FLOATS[:2], (torch.float32, torch.float16), strict=True):
        given = dict.fromkeys(maps, kind) | kept | numbers
        aligned = (*maps, *strides)
        for width in (width for width in (40, 80, 160) if width <= WIDEST[dtype]):
            padded, own, step, warps = tiling(width, dtype)
            fixed = {"WIDTH": width, "PADDED": padded, "LOG2_E": LOG2_E}
            of_query = fixed | {"QUERIES": own, "KEYS": step}
            yield Kernel(module, "query_gradient_kernel", given, of_query, warps, aligned)
            of_key = fixed | {"QUERIES": step, "KEYS": own}
            yield Kernel(module, "key_gradient_kernel", given, of_key, warps, aligned)


def _geglu() -> Iterator[Kernel]:
    """Yield both kernels over the widest gate of Stable Diffusion's."""
    fixed = {"ROWS": 8, "COLUMNS": 256, "WIDTH": 5120, "HALF": math.sqrt(0.5)}
    slope = fixed | {"DENSITY": 1 / math.sqrt(2 * math.pi)}
    maps = ("x", "y", "gradient", "found")
    for kind in _FLOATS[:2]:
        given = dict.fromkeys(maps, kind) | {"rows": "i32"}
        for name, constants in (("geglu_kernel", fixed), ("geglu_gradient_kernel", slope)):
            yield Kernel("dragnoise.kernels.gpu.geglu", name, given, constants, aligned=maps)


def _layer_norm() -> Iterator[Kernel]:
    """Yield the narrowest row of Stable Diffusion's and the widest of all, alone and added."""
    module = "dragnoise.kernels.gpu.layer_norm"
    maps = ("change", "x", "total", "y", "gradient", "elsewhere", "found", "weight", "bias")
    for kind in _FLOATS[:2]:
        given = dict.fromkeys(maps, kind) | {"rows": "i32", "eps": "fp32"}
        for width, tall, wide in ((320, 4, 512), (4096, 1, 4096)):
            for added in (False, True):
                fixed = {"ADDED": added, "WIDTH": width, "ROWS": tall, "COLUMNS": wide}
                for name in ("layer_norm_kernel", "layer_norm_gradient_kernel"):
                    yield Kernel(module, name, given, fixed, aligned=maps)


def _patch_motion() -> Iterator[Kernel]:
    """Yield both memory orders, any radius and the usual one."""
    kept = {"parts": "*fp32", "handles": "*i64", "targets": "*i64"}
    sizes = ("points", "channels", "map_rows", "map_columns", "rows", "columns", "radius")
    strides = [
        f"{map_}_{axis}_stride"
        for map_ in ("feature", "gradient")
        for axis in ("channel", "row", "column")
    ]
    fixed = {"REACHED": 2.0, "DEAD_ZONE": 2.0**-22, "CHANNELS": 16, "TILE": 8, "POSITIONS": 16}
    last = {"feature_channel_stride": 1, "gradient_channel_stride": 1}
    first = {"feature_column_stride": 1, "gradient_column_stride": 1}
    for kind in _FLOATS:
        given = (
            {"features": kind, "gradient": kind} | kept | dict.fromkeys((*sizes, *strides), "i32")
        )
        for more in (last, first, last | {"radius": 1}):
            yield Kernel(
                "dragnoise.kernels.gpu.patch_motion",
                "patch_motion_kernel",
                given,
                fixed | more,
                8,
                most=128,
            )


def _track_points() -> Iterator[Kernel]:
    """Yield both memory orders of the map, any radius, and radius 1 on maps of one row."""
    points = {
        "handles": "*i64",
        "targets": "*i64",
        "moved": "*i64",
        "reached": "*i1",
        "all_reached": "*i1",
    }
    sizes = ("channels", "small_rows", "small_columns", "rows", "columns", "radius")
    strides = [f"{name}_stride" for name in ("channel", "row", "column", "point", "origins")]
    fixed = {"BLOCK_P": 64, "BLOCK_C": 32, "origins_stride": 1}
    for kind in _FLOATS:
        maps = {"features": kind, "origins": "*fp32", "near": "fp32"}
        given = maps | points | dict.fromkeys((*sizes, *strides), "i32")
        for more in (
            {"channel_stride": 1},
            {"column_stride": 1},
            {"channel_stride": 1, "radius": 1, "rows": 1},
        ):
            yield Kernel(
                "dragnoise.kernels.gpu.point_tracking",
                "track_points_kernel",
                given,
                fixed | more,
                8,
            )


def _latent_term() -> Iterator[Kernel]:
    """Yield both memory orders of the prediction."""
    maps = ("noise", "original", "gradient")
    strides = [f"{name}_{axis}" for name in maps for axis in ("entry", "channel", "row", "column")]
    numbers = dict.fromkeys(
        ("channels", "places", "columns", "keep_entry", "keep_row", "keep_column", *strides), "i32"
    )
    fixed = {"CHANNELS": 4, "BLOCK": 256, "keep_column": 1}
    for kind in _FLOATS:
        given = dict.fromkeys(maps, kind) | {
            "keep": "*fp32",
            "partial": "*fp32",
            "slope": "fp32",
            "lam": "fp32",
        }
        for axis in ("column", "channel"):
            more = {f"{name}_{axis}": 1 for name in maps}
            yield Kernel(
                "dragnoise.kernels.gpu.latent_term",
                "latent_term_kernel",
                given | numbers,
                fixed | more,
            )


def _adam() -> Iterator[Kernel]:
    """Yield updates with a copy, in the gradient's dtype, and without."""
    kept = dict.fromkeys(("variable", "first", "second"), "*fp32")
    numbers = {"step": "*i64", "done": "*i1", "count": "i32", "done_stride": "i32", "lr": "fp32"}
    fixed = {
        "EPSILON": 1e-8,
        "FIRST_WEIGHT": 1 - 0.9,
        "SECOND_DECAY": 0.999,
        "SECOND_WEIGHT": 1 - 0.999,
        "FIRST_LOG": math.log(0.9),
        "SECOND_LOG": math.log(0.999),
        "BLOCK": 1024,
    }
    for kind in _FLOATS:
        for copied in (True, False):
            given = kept | numbers | {"gradient": kind, "copy": kind if copied else "*fp32"}
            yield Kernel(
                "dragnoise.kernels.gpu.adam", "adam_kernel", given, fixed | {"COPIED": copied}
            )


def _splat() -> Iterator[Kernel]:
    """Yield both kernels, with maps of both memory orders, blended and not."""
    module = "dragnoise.kernels.gpu.splat"
    cells = {"editable": "*i1", "keys": "*i64"}
    given = cells | {"shift": "*fp32", "weight": "*fp32", "rows": "i32", "columns": "i32"}
    yield Kernel(module, "keys_kernel", given, {"BLOCK": 256}, aligned=("shift", "weight", "keys"))
    maps = ("values", "behind", "splatted")
    strides = [f"{name}_{axis}" for name in maps for axis in ("entry", "channel", "row", "column")]
    numbers = dict.fromkeys(("channels", "cells", "columns", *strides), "i32")
    fixed = {"NOBODY": -(2**63), "BLOCK": 256}
    for kind in _FLOATS:
        given = dict.fromkeys(maps, kind) | cells | {"holes": "*i1", "blend": "*fp32"} | numbers
        for axis, blended in (("column", True), ("channel", True), ("column", False)):
            more = {f"{name}_{axis}": 1 for name in maps} | {"BLENDED": blended}
            yield Kernel(module, "gather_kernel", given, fixed | more, aligned=maps)


def _relax() -> Iterator[Kernel]:
    """Yield the kernel."""
    maps = ("values", "start", "maps")
    numbers = dict.fromkeys(("channels", "rows", "columns", "sweeps"), "i32")
    given = dict.fromkeys(maps, "*fp32") | {"fixed": "*i1", "squared": "fp32"} | numbers
    module = "dragnoise.kernels.gpu.relax"
    yield Kernel(module, "relax_kernel", given, {"BLOCK": 2048}, warps=16, aligned=maps)


KERNELS: tuple[Kernel, ...] = (
    *_attention(),
    *_geglu(),
    *_layer_norm(),
    *_group_norm_silu(),
    *_patch_motion(),
    *_track_points(),
    *_latent_term(),
    *_splat(),
    *_relax(),
    *_adam(),
)


def main() -> None:
    """Print the resources of every kernel on every GPU."""
    resources = [
        vars(compiled(kernel, capability)) for kernel in KERNELS for capability in CAPABILITIES
    ]
    json.dump(resources, sys.stdout)


if __name__ == "__main__":
    main()
