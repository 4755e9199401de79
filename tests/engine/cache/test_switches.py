"""Switches: what is computed under one of them is not found without it."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dragnoise.engine.cache import digest as keys
from dragnoise.engine.cache.digest import environment_digest, native_digest

CPU = torch.device("cpu")
CUDA = torch.backends.cuda
ONEDNN: Any = torch.backends.mkldnn

VARIABLES = {
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "DNNL_DEFAULT_FPMATH_MODE": "ANY",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_DYNAMIC": "FALSE",
    "MKL_NUM_THREADS": "1",
    "MKL_DEBUG_CPU_TYPE": "5",
    "ATEN_CPU_CAPABILITY": "default",
    "OMP_DYNAMIC": "TRUE",
    "OMP_THREAD_LIMIT": "1",
    "KMP_DETERMINISTIC_REDUCTION": "1",
    "OPENBLAS_CORETYPE": "Haswell",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "CUBLASLT_WORKSPACE_SIZE": "0",
    "CUDNN_CONV_WSCAP_DBG": "4096",
    "NVIDIA_TF32_OVERRIDE": "0",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "TORCH_CUDNN_SDPA_ENABLED": "1",
    "PYTORCH_TUNABLEOP_ENABLED": "1",
    "TORCHINDUCTOR_MAX_AUTOTUNE": "1",
    "TRITON_INTERPRET": "0",
    "TRITON_F32_DEFAULT": "ieee",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA",
    "LD_PRELOAD": "/lib/other-mathematics.so",
}

SILENT = {
    "ONEDNN_VERBOSE": "1",
    "MKL_VERBOSE": "1",
    "TORCH_HOME": "/elsewhere",
    "TORCH_LOGS": "+dynamo",
    "TORCHINDUCTOR_CACHE_DIR": "/elsewhere",
    "TRITON_CACHE_DIR": "/elsewhere",
    "OMP_WAIT_POLICY": "ACTIVE",
    "GOMP_SPINCOUNT": "7",
    "KMP_BLOCKTIME": "7",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    "HOME": "/elsewhere",
}


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_of_a_library_is_another_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = environment_digest(CPU)
    monkeypatch.setenv(name, VARIABLES[name])
    assert environment_digest(CPU) != before
    monkeypatch.undo()
    assert environment_digest(CPU) == before


@pytest.mark.parametrize("name", SILENT)
def test_a_variable_that_changes_no_bit_is_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = environment_digest(CPU)
    monkeypatch.setenv(name, SILENT[name])
    assert environment_digest(CPU) == before


class _Set(AbstractContextManager[None]):
    """A setting of PyTorch's, put back on the way out."""

    def __init__(self, owner: Any, name: str, value: object, back: object = None) -> None:
        self.owner, self.name, self.value = owner, name, value
        self.back = getattr(owner, name) if back is None else back

    def __enter__(self) -> None:
        setattr(self.owner, self.name, self.value)

    def __exit__(self, *error: object) -> None:
        setattr(self.owner, self.name, self.back)


class _Called(AbstractContextManager[None]):
    """A setting that is a call with one value, and put back by one with another."""

    def __init__(self, call: Callable[[Any], object], value: object, back: object) -> None:
        self.call, self.value, self.back = call, value, back

    def __enter__(self) -> None:
        self.call(self.value)

    def __exit__(self, *error: object) -> None:
        self.call(self.back)


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast to half": lambda: torch.autocast("cpu", dtype=torch.float16),
    "default dtype": lambda: _Called(torch.set_default_dtype, torch.float64, torch.float32),
    "default device": lambda: torch.device("meta"),
    "denormal numbers": lambda: _Called(torch.set_flush_denormal, True, False),
    "deterministic": lambda: _Called(torch.use_deterministic_algorithms, True, False),
    "matmul precision": lambda: _Called(torch.set_float32_matmul_precision, "high", "highest"),
    "oneDNN off": lambda: _Called(_onednn, (False, False), (True, False)),
    "oneDNN deterministic": lambda: _Called(_onednn, (True, True), (True, False)),
    "oneDNN matmul": lambda: _Set(ONEDNN.matmul, "fp32_precision", "bf16", "none"),
    "oneDNN conv": lambda: _Set(ONEDNN.conv, "fp32_precision", "bf16", "none"),
    "all precisions": lambda: _Set(torch.backends, "fp32_precision", "tf32", "none"),
    "nnpack": lambda: torch.backends.nnpack.flags(enabled=False),
    "flash attention": lambda: _Called(CUDA.enable_flash_sdp, False, True),
    "mathematical attention": lambda: _Called(CUDA.enable_math_sdp, False, True),
    "efficient attention": lambda: _Called(CUDA.enable_mem_efficient_sdp, False, True),
    "cuDNN attention": lambda: _Called(CUDA.enable_cudnn_sdp, False, True),
    "one attention": lambda: nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH),
    "half reductions": lambda: _Set(CUDA.matmul, "allow_fp16_reduced_precision_reduction", False),
    "bfloat16 reductions": lambda: _Set(
        CUDA.matmul, "allow_bf16_reduced_precision_reduction", False
    ),
    "half accumulation": lambda: _Set(CUDA.matmul, "allow_fp16_accumulation", True),
    "tf32": lambda: _Set(CUDA.matmul, "allow_tf32", True),
    "cuDNN off": lambda: _Set(torch.backends.cudnn, "enabled", False),
    "cuDNN benchmark": lambda: _Set(torch.backends.cudnn, "benchmark", True),
    "cuDNN deterministic": lambda: _Set(torch.backends.cudnn, "deterministic", True),
    "cuDNN tf32": lambda: _Set(torch.backends.cudnn, "allow_tf32", False),
    "einsum": lambda: _Set(torch.backends.opt_einsum, "enabled", not _einsum()),
}


def _onednn(flags: tuple[bool, bool]) -> None:
    """Not by `flags`, which warns on its way out."""
    torch.backends.mkldnn.set_flags(*flags)


def _einsum() -> bool:
    return bool(torch.backends.opt_einsum.enabled)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_pytorch_is_another_key(name: str) -> None:
    if name == "einsum" and not torch.backends.opt_einsum.is_available():
        pytest.skip("there is no opt_einsum to switch on")
    before = environment_digest(CPU)
    with ExitStack() as opened:
        opened.enter_context(SETTINGS[name]())
        assert environment_digest(CPU) != before
    assert environment_digest(CPU) == before


SWITCHED = """
import sys, torch
from dragnoise.engine.cache import Store
from dragnoise.engine.run import Run, StageCache, kept

@kept(on_disk=True)
def product(one, other):
    made.append(1)
    return one @ other

made = []
chance = torch.Generator().manual_seed(0)
pair = [torch.randn(96, 96, generator=chance) for _ in range(2)]
for _ in range(2):
    value = Run((), StageCache(Store(folder=sys.argv[1])))(product, *pair)
print(len(made), value.double().sum().item())
"""


def _run(folder: Path, **switch: str) -> tuple[str, str]:
    ended = subprocess.run(
        [sys.executable, "-c", SWITCHED, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | switch,
    )
    made, value = ended.stdout.split()
    return made, value


def test_what_was_made_under_a_switch_is_made_again_without_it(tmp_path: Path) -> None:
    switched = _run(tmp_path, ONEDNN_DEFAULT_FPMATH_MODE="BF16", MKL_ENABLE_INSTRUCTIONS="SSE4_2")
    plain = _run(tmp_path)
    assert (switched[0], plain[0]) == ("1", "1")


def test_the_native_code_that_is_loaded_is_in_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dragnoise.kernels import _native

    assert native_digest() == keys.file_digest(Path(str(_native.__file__)))
    other = tmp_path / "_native.so"
    other.write_bytes(Path(str(_native.__file__)).read_bytes() + b"\0")
    monkeypatch.setattr(keys, "_lasting", keys._lasting.__wrapped__)  # as in a new process
    before = environment_digest(CPU)
    monkeypatch.setattr(_native, "__file__", str(other))
    assert environment_digest(CPU) != before
    monkeypatch.setattr(keys, "has_native", lambda: False)
    assert native_digest() is None
    assert environment_digest(CPU) != before
