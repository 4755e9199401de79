"""One store of what stages have made.

Keys are digests of content. The store mixes its salt into them, and for a folder the user's key, so
that tenants and users that share a folder neither find nor guess each other's entries. It has three
tiers:

device   values as they were made, on a CUDA device
host     the same in memory of the host: all values of a CPU; on CUDA those that fell out of the
         device's memory (pinned)
disk     files (disk.py), written when a value is made

Nobody may change a tensor that the store has handed out or was given.
"""

import hashlib
import os
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from ..config import of_kind, shown
from ..errors import ConfigError
from ..system.incoming import told_as
from ..system.worker import wait_for
from .disk import Disk
from .memory import Tier
from .structure import StructureError, flatten, kinds_of, moved, nbytes, rebuild

__all__ = ["Hold", "Limits", "Store"]

T = TypeVar("T")
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Limits:
    """The size of each tier in bytes; 0 switches it off."""

    device_bytes: int = 2 * 2**30
    host_bytes: int = 4 * 2**30
    disk_bytes: int = 8 * 2**30


class _Kept(NamedTuple):
    """A value in memory, the milliseconds that it took to make, and its bytes."""

    value: Any
    made_ms: float
    nbytes: int


@dataclass
class _Count:
    """Counts of one stage.

    Attributes:
        hits: How often a value was found, by tier.
        misses: How often one was made.
        made_ms: Milliseconds that making took.
        saved_ms: Milliseconds that finding saved.
    """

    hits: Counter[str] = field(default_factory=Counter)
    misses: int = 0
    made_ms: float = 0.0
    saved_ms: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "hits": dict(self.hits),
            "misses": self.misses,
            "made_ms": self.made_ms,
            "saved_ms": self.saved_ms,
        }


class Hold:
    """A hold on entries: those that were asked for under it stay in memory until it is closed."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._names: set[str] = set()

    def close(self) -> None:
        """Let the entries go."""
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
    """A bounded store of values by key, in memory and on disk.

    Any number of threads may use it, and any number of processes one folder. Of several threads
    that ask for the same missing value one makes it.
    """

    def __init__(
        self,
        limits: Limits = Limits(),
        *,
        folder: str | os.PathLike[str] | None = None,
        salt: str = "",
        kinds: Sequence[type] = (),
    ) -> None:
        """Make an empty store; what the folder has is found again.

        Args:
            limits: The size of each tier in bytes.
            folder: Folder of the disk tier; None: no disk tier.
            salt: A tenant's secret: stores with another salt do not find its entries.
            kinds: Dataclasses and NamedTuples that values consist of, beside `storable` ones.
        """
        self.limits = limits = of_kind("limits", limits, Limits)
        self.disk: Disk | None = None
        with told_as(ConfigError, f"folder={shown(folder)} is no path of a folder"):
            place = None if folder is None else Path(folder)
        if place is not None and limits.disk_bytes > 0:
            self.disk = Disk(place, limits.disk_bytes)
        self._salt = salt
        self._own_kinds = tuple(kinds)
        self._kinds = kinds_of(kinds)
        self._lock = threading.RLock()
        self._held: Counter[str] = Counter()
        self._making: dict[str, Future[_Kept]] = {}
        self._counts: dict[str, _Count] = {}
        self._host = Tier(limits.host_bytes, _size, self._is_held, lambda name, kept: None)
        self._device = Tier(limits.device_bytes, _size, self._is_held, self._demote)

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
        """Return the value of a key, and make it if there is none.

        What `make` raises is raised here, and the next caller makes the value again.

        Args:
            key: The digest of what the value depends on.
            make: Makes the value.
            stage: The stage that the value belongs to, for the numbers.
            disk: Whether the value is worth a file.
            hold: Keeps the value in memory until it is closed.
            device: Where the value's tensors lie.

        Raises:
            TypeError: The value has a part that is not of the store's kinds.
        """
        name = self._name(key, device)
        while True:
            started = time.perf_counter()
            with self._lock:
                if hold is not None:
                    self._hold(hold, name)
                tier, kept = self._in_memory(name, device)
                if kept is not None:
                    self._count_hit(stage, tier, kept.made_ms, started)
                    return kept.value  # type: ignore[no-any-return]
                making = self._making.get(name)
                if making is None:
                    promise = self._making[name] = Future()
            if making is None:
                return self._find_or_make(name, make, promise, stage, disk, device)
            if wait_for(making) is None:
                kept = making.result()
                self._count_hit(stage, _tier_on(device), kept.made_ms, started)
                return kept.value  # type: ignore[no-any-return]

    def register(self, *kinds: type) -> None:
        """Also take values of these kinds. Raises TypeError if one has the name of another."""
        self._own_kinds = tuple(dict.fromkeys((*self._own_kinds, *kinds)))
        self._kinds = kinds_of(self._own_kinds)

    def know(self, *kinds: type) -> None:
        """Deprecated: use `register`."""
        warnings.warn("Store.know is now Store.register", DeprecationWarning, stacklevel=2)
        self.register(*kinds)

    def hold(self) -> Hold:
        """Return a hold, to be closed when its entries are no longer in use."""
        return Hold(self)

    def to_dict(self) -> Mapping[str, Any]:
        """Return numbers by stage and by tier, for results, `dragnoise info` and metrics."""
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

    def said(self) -> Mapping[str, Any]:
        """Deprecated: use `to_dict`."""
        warnings.warn("Store.said is now Store.to_dict", DeprecationWarning, stacklevel=2)
        return self.to_dict()

    def clear(self) -> None:
        """Forget what is in memory, and remove the folder's entries. Raises OSError."""
        with self._lock:
            for tier in (self._host, self._device):
                for name in list(tier):
                    del tier[name]
        if self.disk is not None:
            self.disk.clear()

    def _name(self, key: str, device: torch.device) -> str:
        content = f"{key} {device}".encode()
        return hashlib.blake2b(content, digest_size=32, key=self._naming).hexdigest()

    @cached_property
    def _naming(self) -> bytes:
        """What names are made with: the salt, and for a folder the user's key."""
        key = b"" if self.disk is None else self.disk.key
        salt = self._salt.encode()
        return hashlib.blake2b(salt, digest_size=32, key=key, person=b"names of entries").digest()

    def _find_or_make(
        self,
        name: str,
        make: Callable[[], T],
        promise: "Future[_Kept]",
        stage: str,
        disk: bool,
        device: torch.device,
    ) -> T:
        """Return the value from disk, or make it; who waits for the promise hears in any case."""
        try:
            started = time.perf_counter()
            kept = self._on_disk(name, device) if disk else None
            if kept is None:
                kept = self._make(name, make, stage, disk)
            else:
                self._count_hit(stage, "disk", kept.made_ms, started)
            with self._lock:
                tier = self._host if _tier_on(device) == "host" else self._device
                tier.keep(name, kept)
                del self._making[name]
            promise.set_result(kept)
            return kept.value  # type: ignore[no-any-return]
        except BaseException as failed:
            with self._lock:
                self._making.pop(name, None)
            if isinstance(failed, Exception):
                promise.set_exception(failed)
            else:
                promise.set_exception(RuntimeError("interrupted"))
            raise

    def _make(self, name: str, make: Callable[[], T], stage: str, disk: bool) -> _Kept:
        """Make a value, count it and write it to disk."""
        started = time.perf_counter()
        value = make()
        made_ms = (time.perf_counter() - started) * 1e3
        structure, tensors = flatten(value, self._kinds)
        with self._lock:
            count = self._counts.setdefault(stage, _Count())
            count.misses += 1
            count.made_ms += made_ms
        if disk and self.disk is not None:
            about = {"stage": stage, "made_ms": made_ms, "structure": structure}
            self.disk.write(name, about, tensors)
        return _Kept(value, made_ms, nbytes(value))

    def _in_memory(self, name: str, device: torch.device) -> tuple[str, _Kept | None]:
        """Return the tier and the entry; one that lies on the host is brought to its device."""
        if name in self._device:
            return "device", self._device[name]
        if name not in self._host:
            return "", None
        kept = self._host[name]
        if device.type != "cpu":

            def move(tensor: Tensor) -> Tensor:
                return tensor.to(device, non_blocking=True)

            kept = kept._replace(value=moved(kept.value, self._kinds, move))
            del self._host[name]
            self._device.keep(name, kept)
        return "host", kept

    def _on_disk(self, name: str, device: torch.device) -> _Kept | None:
        entry = None if self.disk is None else self.disk.read(name)
        if entry is None:
            return None
        about, tensors = entry
        placed = [tensor.to(device) for tensor in tensors]
        try:
            value = rebuild(about["structure"], placed, self._kinds)
            return _Kept(value, float(about["made_ms"]), nbytes(value))
        except (StructureError, LookupError, TypeError, ValueError, ArithmeticError):
            return None  # whole, but written by code that knows other kinds

    def _demote(self, name: str, kept: _Kept) -> None:
        """Move an entry that fell out of the device's memory to the host's."""
        if kept.nbytes <= self.limits.host_bytes:
            value = moved(kept.value, self._kinds, _pinned)
            self._host.keep(name, kept._replace(value=value))

    def _count_hit(self, stage: str, tier: str, made_ms: float, started: float) -> None:
        with self._lock:
            count = self._counts.setdefault(stage, _Count())
            count.hits[tier] += 1
            count.saved_ms += made_ms - (time.perf_counter() - started) * 1e3

    def _is_held(self, name: str) -> bool:
        return self._held[name] > 0

    def _hold(self, hold: Hold, name: str) -> None:
        if name not in hold._names:
            hold._names.add(name)
            self._held[name] += 1

    def _release(self, names: set[str]) -> None:
        with self._lock:
            self._held -= Counter(names)  # drops names that nobody holds any more
            names.clear()


def _tier_on(device: torch.device) -> str:
    """Return the tier in which values of that device are kept."""
    return "host" if device.type == "cpu" else "device"


def _size(kept: _Kept) -> int:
    """Return an entry's bytes, at least one: else a tier without room would keep empty values."""
    return max(1, kept.nbytes)


def _pinned(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor)
