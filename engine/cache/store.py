"""One store of what stages have made. Keys are digests of content; the store mixes its salt into them, so that tenants that share a folder neither
find nor guess each other's entries.

device   values as they were made, on a CUDA device
host     the same in memory of the host: all values of a CPU; on CUDA what fell out of the device's memory (pinned)
disk     files (disk.py), written when a value is made

Nobody changes a tensor that the store has handed out or was given.
"""

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from .disk import Disk
from .memory import Tier
from .structure import flatten, kinds_of, moved, nbytes, rebuild

__all__ = ["Hold", "Limits", "Store"]

T = TypeVar("T")
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Limits:
    """Bytes of each tier; 0 is none of it."""

    device_bytes: int = 2 * 2**30
    host_bytes: int = 4 * 2**30
    disk_bytes: int = 8 * 2**30


@dataclass
class _Count:
    """Of a stage: where its values were found, how often they were made, and the milliseconds that took and that finding saved."""

    hits: Counter[str] = field(default_factory=Counter)
    misses: int = 0
    made_ms: float = 0.0
    saved_ms: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        hits = dict(self.hits)
        return {
            "hits": hits,
            "misses": self.misses,
            "made_ms": self.made_ms,
            "saved_ms": self.saved_ms,
        }


class Hold:
    """What was got under it stays in memory until it is closed."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._names: set[str] = set()

    def close(self) -> None:
        self._store._release(self._names)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


class Store:
    """folder: of the disk tier; None: none. kinds: dataclasses and NamedTuples that values consist of, beside tuples and tensors.

    Any number of threads, and of processes on one folder. Of several threads that ask for the same missing value one makes it.
    """

    def __init__(
        self,
        limits: Limits = Limits(),
        *,
        folder: str | os.PathLike[str] | None = None,
        salt: str = "",
        kinds: Sequence[type] = (),
    ) -> None:
        self.limits = limits
        self.disk = (
            None
            if folder is None or limits.disk_bytes == 0
            else Disk(Path(folder), limits.disk_bytes)
        )
        self._salt = hashlib.blake2b(salt.encode(), digest_size=32).digest()
        self._kinds = kinds_of(kinds)
        self._lock = threading.RLock()
        self._held: Counter[str] = Counter()
        self._making: dict[str, Future[Any]] = {}
        self._counts: dict[str, _Count] = {}
        size, held = (lambda kept: max(1, kept[2])), (lambda name: self._held[name] > 0)
        self._host = Tier(limits.host_bytes, size, held, lambda name, kept: None)
        self._device = Tier(limits.device_bytes, size, held, self._demote)

    def get_or_make(
        self,
        key: str,
        make: Callable[[], T],
        *,
        stage: str,
        disk: bool = True,
        hold: Hold | None = None,
        device: torch.device = _CPU,
    ) -> T:
        """The value of `key`, made if it is nowhere. stage: whose it is, for the numbers. disk: whether it is worth a file. device: where it lies.

        What `make` raises is raised here, and the next who asks makes it. Values must be of the store's kinds, else TypeError.
        """
        name = self._name(key, device)
        while True:
            started = time.perf_counter()
            with self._lock:
                if hold is not None:
                    self._hold(hold, name)
                found = self._in_memory(name, device)
                if found is not None:
                    tier, (value, made_ms, _) = found
                    self._hit(stage, tier, made_ms, started)
                    return value  # type: ignore[no-any-return]
                making = self._making.get(name)
                if making is None:
                    mine = self._making[name] = Future()
            if making is None:
                return self._made(name, make, mine, stage, disk, device)
            if making.exception() is None:
                value, made_ms = making.result()
                self._hit(stage, "host" if device.type == "cpu" else "device", made_ms, started)
                return value  # type: ignore[no-any-return]

    def register(self, *kinds: type) -> None:
        """Also take values of these kinds."""
        self._kinds = {**self._kinds, **kinds_of(kinds)}

    def hold(self) -> Hold:
        """Something to be held while it is in use."""
        return Hold(self)

    def to_dict(self) -> Mapping[str, Any]:
        """Numbers by stage and by tier, for results, `dragnoise info` and metrics."""
        with self._lock:
            stages = {name: count.to_dict() for name, count in self._counts.items()}
            tiers: dict[str, Any] = {
                name: {
                    "bytes": int(tier.currsize),
                    "entries": len(tier),
                    "evictions": tier.evictions,
                    "limit": int(tier.maxsize),
                }
                for name, tier in (("device", self._device), ("host", self._host))
            }
        if self.disk is not None:
            total, entries = self.disk.last_seen()
            tiers["disk"] = {
                "bytes": total,
                "entries": entries,
                "evictions": self.disk.evictions,
                "limit": self.disk.limit,
                "state": self.disk.state,
            }
        return {"stages": stages, "tiers": tiers}

    def clear(self) -> None:
        """Forget what is in memory, and remove the folder's entries. Raises OSError."""
        with self._lock:
            for tier in (self._host, self._device):
                for name in list(tier):
                    del tier[name]
        if self.disk is not None:
            self.disk.clear()

    def _name(self, key: str, device: torch.device) -> str:
        return hashlib.blake2b(
            f"{key} {device}".encode(), digest_size=32, key=self._salt
        ).hexdigest()

    def _made(
        self,
        name: str,
        make: Callable[[], T],
        future: "Future[Any]",
        stage: str,
        disk: bool,
        device: torch.device,
    ) -> T:
        """From disk, or by making it; those who wait are told, whatever happens."""
        try:
            started = time.perf_counter()
            found = self._on_disk(name, device) if disk else None
            if found is not None:
                value, made_ms = found
                self._hit(stage, "disk", made_ms, started)
            else:
                started = time.perf_counter()
                value = make()
                made_ms = (time.perf_counter() - started) * 1e3
                structure, tensors = flatten(value, self._kinds)
                with self._lock:
                    count = self._counts.setdefault(stage, _Count())
                    count.misses += 1
                    count.made_ms += made_ms
                if disk and self.disk is not None:
                    self.disk.write(
                        name, {"stage": stage, "made_ms": made_ms, "structure": structure}, tensors
                    )
            with self._lock:
                tier = self._host if device.type == "cpu" else self._device
                tier.keep(name, (value, made_ms, nbytes(value)))
                del self._making[name]
            future.set_result((value, made_ms))
            return value  # type: ignore[no-any-return]
        except BaseException as failed:
            with self._lock:
                self._making.pop(name, None)
            future.set_exception(
                failed if isinstance(failed, Exception) else RuntimeError("interrupted")
            )
            raise

    def _in_memory(self, name: str, device: torch.device) -> tuple[str, Any] | None:
        """(tier, kept); what lies on the host is brought to its device."""
        if name in self._device:
            return "device", self._device[name]
        if name not in self._host:
            return None
        kept = self._host[name]
        if device.type != "cpu":
            value, made_ms, size = kept
            kept = (
                moved(value, self._kinds, lambda tensor: tensor.to(device, non_blocking=True)),
                made_ms,
                size,
            )
            del self._host[name]
            self._device.keep(name, kept)
        return "host", kept

    def _on_disk(self, name: str, device: torch.device) -> tuple[Any, float] | None:
        found = None if self.disk is None else self.disk.read(name)
        if found is None:
            return None
        about, tensors = found
        placed = [tensor.to(device) for tensor in tensors]
        try:
            return rebuild(about["structure"], placed, self._kinds), float(about["made_ms"])
        except (
            KeyError,
            ValueError,
            TypeError,
            IndexError,
            AttributeError,
            RuntimeError,
        ):  # and RecursionError, which is one
            return None  # sound, but written by code that knows other kinds

    def _demote(self, name: str, kept: Any) -> None:
        value, made_ms, size = kept
        if size <= self.limits.host_bytes:
            self._host.keep(name, (moved(value, self._kinds, _pinned), made_ms, size))

    def _hit(self, stage: str, tier: str, made_ms: float, started: float) -> None:
        with self._lock:
            count = self._counts.setdefault(stage, _Count())
            count.hits[tier] += 1
            count.saved_ms += made_ms - (time.perf_counter() - started) * 1e3

    def _hold(self, hold: Hold, name: str) -> None:
        if name not in hold._names:
            hold._names.add(name)
            self._held[name] += 1

    def _release(self, names: set[str]) -> None:
        with self._lock:
            self._held -= Counter(names)  # drops what nobody holds any more
            names.clear()


def _pinned(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor)
