"""What holds for every test.

Fresh memory is full of NaN; a test that needs a GPU is skipped with a reason if there is none;
property tests draw the same examples every time, or others with HYPOTHESIS_PROFILE=search.
"""

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Before PyTorch is imported: tests run side by side, and idle OpenMP threads that spin slow each
# other down many times.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hypothesis
import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    # Read when a kernel is defined: before any is imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")

hypothesis.settings.register_profile("house", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.register_profile("search", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "house"))


def _poison(fresh: Tensor) -> Tensor:
    if fresh.dtype == torch.bool:
        value: float | bool = True
    elif fresh.dtype.is_floating_point or fresh.dtype.is_complex:
        value = torch.nan
    else:
        value = torch.iinfo(fresh.dtype).max
    with torch.no_grad():
        return fresh.fill_(value)


def _poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(allocate)
    def poisoned(*args: object, **kwargs: object) -> Tensor:
        return _poison(allocate(*args, **kwargs))

    return poisoned


@pytest.fixture(scope="session", autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Let `torch.empty` and its kin hand out NaN, the largest integer or True.

    Code that reads what it never wrote cannot pass by luck.
    """
    with torch.device("cpu"):
        # `with torch.device(...)` remembers the allocators when first used: show it the real ones.
        torch.empty(0)
    with pytest.MonkeyPatch.context() as patch:
        for owner, names in {
            torch: ("empty", "empty_like", "empty_strided"),
            Tensor: ("new_empty",),
        }.items():
            for name in names:
                patch.setattr(owner, name, _poisoned(getattr(owner, name)))
        yield


@pytest.fixture(scope="session", autouse=True)
def key_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let caches on disk be sealed with a key of the tests', not of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRAGNOISE_CACHE_KEY", str(tmp_path_factory.mktemp("key") / "cache.key"))
        yield


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for exported parts that all processes of a run share."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / "exported"
    folder.mkdir(exist_ok=True)
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if item.get_closest_marker("full_size") and "full_size" not in item.config.getoption("-m"):
        pytest.skip("minutes and gigabytes: run it with -m full_size")
