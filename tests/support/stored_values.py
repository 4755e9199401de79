"""Values that a store keeps, and how tests look at a store and its folder."""

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dragnoise.engine.cache import Disk, Limits, Store
from dragnoise.engine.errors import CacheWarning


class Pair(NamedTuple):
    one: Tensor
    other: Tensor | None


@dataclass(frozen=True)
class Nest:
    name: str
    pairs: tuple[Pair, ...]
    size: tuple[int, ...] | None
    flag: bool
    number: float


KINDS = (Pair, Nest)


def key(number: int = 0) -> str:
    return f"{number:064x}"


def store(folder: Path | None = None, salt: str = "", **limits: int) -> Store:
    return Store(Limits(**limits), folder=folder, salt=salt, kinds=KINDS)


def tensor(number: float = 1.0, size: int = 8) -> Tensor:
    return torch.full((size,), float(number))


def never() -> Any:
    raise AssertionError("it should have been found")


def the_file(folder: Path) -> Path:
    (found,) = folder.glob("*.safetensors")
    return found


def same(one: Any, other: Any) -> bool:
    """Equal to the bit, in the same memory order."""
    if isinstance(one, Tensor):
        return (
            isinstance(other, Tensor)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and one.stride() == other.stride()
            and one.reshape(-1).view(torch.uint8).tolist()
            == other.reshape(-1).view(torch.uint8).tolist()
        )
    if isinstance(one, Nest):
        return type(other) is Nest and all(
            same(getattr(one, name), getattr(other, name)) for name in vars(one)
        )
    if isinstance(one, tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


def kept(folder: Path) -> tuple[Path, bytes, Nest]:
    value = Nest("n", (Pair(torch.arange(16.0), None),), (1, 2), False, 0.5)
    store(folder).get_or_make(key(), lambda: value, stage="s")
    return the_file(folder), the_file(folder).read_bytes(), value


@contextmanager
def told_once() -> Iterator[None]:
    """Fail unless there is one warning, of the cache."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    assert [warning.category for warning in told] == [CacheWarning]


@contextmanager
def unwarned() -> Iterator[None]:
    """Ignore warnings of the cache."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        yield


def write_and_read(folder: str, number: int, times: int) -> int:
    """Write the same key over and over, check whatever is there to read, return how often."""
    disk, seen = Disk(Path(folder), 2**30), 0
    value = torch.arange(4096.0)
    for _ in range(times):
        disk.write(key(), {"stage": "s", "made_ms": 1.0, "structure": number}, [value])
        found = disk.read(key())
        if found is None:
            raise AssertionError("a torn or missing entry")
        assert torch.equal(found[1][0], value)
        seen += 1
    assert disk.state == "on"
    return seen


def write_for_ever(folder: str) -> None:
    """Write and read fifty keys over and over, until somebody kills this process."""
    for number in itertools.count():
        value = torch.arange(2e5) + number % 50
        for _ in range(2):
            found = store(Path(folder)).get_or_make(key(number % 50), value.clone, stage="s")
        assert torch.equal(found, value)
