"""The seam: the only place where stages are run, watched, and their results kept.

A stage's positional arguments are what its result depends on, so they are its key; keyword
arguments only watch. A session remembers its last results by the identity of what they were made
of, without reading a tensor. Behind that, where there is a store, results are known by content: a
value that a stage made by the key it was made under, what comes from outside by its digest. What is
not finite is an error, and is neither kept nor remembered.
"""

import dataclasses
import logging
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import torch

from .cache import Hold, Store
from .cache.digest import UndigestedError, digest, environment_digest
from .cache.switches import switches
from .system.finite import check_finite
from .system.timers import Observer
from .system.worker import check_current

__all__ = ["Run", "StageCache", "kept"]

_log = logging.getLogger("dragnoise")

P = ParamSpec("P")
T = TypeVar("T")

REMEMBERED = 2
"""Results of a function that a session remembers: people compare two settings or pictures."""

_ON_DISK: dict[Callable[..., Any], bool] = {}
"""Stages whose results are kept, and whether on disk too; filled by `kept`."""


def kept(*, on_disk: bool) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Mark a stage whose results are worth keeping.

    Args:
        on_disk: Whether a file is worth it: not where computing is quicker than reading.
    """

    def mark(stage: Callable[P, T]) -> Callable[P, T]:
        _ON_DISK[stage] = on_disk
        return stage

    return mark


@dataclass(frozen=True, eq=False)
class _Same:
    """A thing known by identity: tensors compare by their numbers otherwise."""

    thing: object

    def __hash__(self) -> int:
        return id(self.thing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.thing is self.thing


@dataclass(frozen=True, eq=False)
class _Entry:
    """A remembered result, its key in the store, and what holds it there; both None without one."""

    value: Any
    key: str | None = None
    hold: Hold | None = None


class StageCache:
    """A session's memory of results, with the editor's store behind it.

    Args:
        store: Where results are kept for other sessions and processes; None: nowhere.
        device: Where results lie.
        tenant: Whose results they are: another tenant's are not found.
    """

    def __init__(
        self, store: Store | None = None, device: torch.device | None = None, tenant: str = ""
    ) -> None:
        self.store = store
        self._tenant = tenant
        self._device = device or torch.device("cpu")
        self._remembered: dict[Callable[..., Any], OrderedDict[Hashable, _Entry]] = {}
        self._keys: dict[int, str] = {}
        self._undigested: set[str] = set()

    def get_or_run(
        self, function: Callable[..., T], inputs: tuple[Any, ...], make: Callable[[], T]
    ) -> T:
        """Return the function's result on these inputs, remembered, kept or made now."""
        entries = self._remembered.setdefault(function, OrderedDict())
        name = self._name(inputs)
        if name in entries:
            entries.move_to_end(name)
            value: T = entries[name].value
            return value
        entry = self._kept(function, inputs, make)
        self._remember(entries, name, entry)
        made: T = entry.value
        return made

    def put(self, function: Callable[..., Any], inputs: tuple[Any, ...], value: object) -> None:
        """Remember a result that is at hand."""
        entries = self._remembered.setdefault(function, OrderedDict())
        name = self._name(inputs)
        self._remember(entries, name, _Entry(value))

    def _name(self, inputs: tuple[Any, ...]) -> Hashable:
        """Return what a result is remembered by: what it was made of, and under what switches."""
        return switches(self._device), *map(_identity, inputs)

    def _kept(
        self, stage: Callable[..., Any], inputs: tuple[Any, ...], make: Callable[[], Any]
    ) -> _Entry:
        if self.store is None or stage not in _ON_DISK:
            return _Entry(make())
        key = self._store_key(stage, inputs)
        if key is None:
            return _Entry(make())
        hold = self.store.hold()
        try:
            value = self.store.get_or_make(
                key,
                make,
                stage=stage.__name__,
                disk=_ON_DISK[stage],
                hold=hold,
                device=self._device,
            )
        except BaseException:
            hold.close()
            raise
        return _Entry(value, key, hold)

    def _store_key(self, stage: Callable[..., Any], inputs: tuple[Any, ...]) -> str | None:
        """Return the content's key, or None for inputs whose content cannot be told: said once."""
        name = f"{stage.__module__}.{stage.__qualname__}"
        try:
            key = digest(name, environment_digest(self._device), *inputs, known=self._key_of)
            return f"{self._tenant} {key}" if self._tenant else key
        except UndigestedError as unknown:
            if name not in self._undigested:
                self._undigested.add(name)
                _log.warning("results of %s are not kept: %s", stage.__name__, unknown)
            return None

    def _remember(
        self, entries: OrderedDict[Hashable, _Entry], name: Hashable, entry: _Entry
    ) -> None:
        entries[name] = entry
        forgotten = None
        if len(entries) > REMEMBERED:
            _, forgotten = entries.popitem(last=False)
        if forgotten is not None and forgotten.hold is not None:
            forgotten.hold.close()
        if self.store is not None:
            self._keys = dict(self._known_keys())

    def _known_keys(self) -> Iterator[tuple[int, str]]:
        """Yield the members of every remembered value, then the values themselves.

        A stage may be given one of several latents. What is also a value by itself (the clean
        latent of a trajectory is what encoding gave) is known as that.
        """
        entries = [entry for known in self._remembered.values() for entry in known.values()]
        for entry in entries:
            if entry.key is not None:
                for name, member in _members(entry.value):
                    yield id(member), f"{entry.key} {name}"
        for entry in entries:
            if entry.key is not None:
                yield id(entry.value), entry.key

    def _key_of(self, value: object) -> str | None:
        return self._keys.get(id(value))

    def close(self) -> None:
        """Forget everything, and let the store evict it."""
        for entries in self._remembered.values():
            for entry in entries.values():
                if entry.hold is not None:
                    entry.hold.close()
        self._remembered = {}
        self._keys = {}

    def __del__(self) -> None:
        self.close()


def _members(value: Any) -> Iterable[tuple[object, object]]:
    if isinstance(value, tuple):
        return enumerate(value)
    return vars(value).items() if dataclasses.is_dataclass(value) else ()


def _identity(given: Any) -> Hashable:
    """A key for an input: settings, numbers and texts by value, everything else by identity."""
    by_value = isinstance(given, Hashable) and not isinstance(given, torch.Tensor)
    return given if by_value else _Same(given)


class Run:
    """Runs stages: watches them, and keeps the results of those that are marked `kept`.

    Args:
        observers: Entered with a stage's name around every stage that really runs.
        cache: A session's memory; None remembers nothing.
    """

    def __init__(self, observers: Sequence[Observer] = (), cache: StageCache | None = None) -> None:
        self._observers = tuple(observers)
        self._cache = cache

    def __call__(self, stage: Callable[P, T], *inputs: P.args, **watch: P.kwargs) -> T:
        """Return the stage's result on these inputs, which are its key.

        Raises:
            NumbersError: The result has numbers that are not finite.
        """

        def make() -> T:
            check_current()  # between two stages: few of them look while they run
            with self.watched(stage.__name__):
                result = stage(*inputs, **watch)
            return check_finite(stage.__name__, result)

        if self._cache is None or stage not in _ON_DISK:
            return make()
        return self._cache.get_or_run(stage, inputs, make)

    def once(self, function: Callable[..., T], *inputs: Any) -> T:
        """Return a function's result, remembered for the session, without watching it."""
        if self._cache is None:
            return function(*inputs)
        return self._cache.get_or_run(function, inputs, lambda: function(*inputs))

    def watching(self, stage: str, steps: Iterator[T]) -> Generator[T, None, None]:
        """Yield every item; the making of each is watched, its consumer is not."""
        while True:
            with self.watched(stage):
                try:
                    item = next(steps)
                except StopIteration:
                    return
            yield item

    @contextmanager
    def watched(self, stage: str) -> Generator[None, None, None]:
        """Enter the observers around work that belongs to a stage."""
        with ExitStack() as watched:
            for observe in self._observers:
                watched.enter_context(observe(stage))
            yield
