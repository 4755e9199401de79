"""The disk tier: one sealed file for an entry, known by its key; any number of processes share it.

A file is written under a temporary name, flushed and renamed: a reader sees it whole or not at
all. What is under an entry's name and is not that entry as this user wrote it is set aside, or let
be where it cannot be moved. Only a folder that refuses as a whole ends the tier.
"""

import os
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CacheWarning, ConfigError
from .entry import read_entry, read_head, seal_entry
from .folder import (
    Listed,
    file_name,
    listed,
    move,
    open_folder,
    open_own,
    put,
    remove,
    remove_abandoned,
)
from .sealed import BrokenError
from .secret import user_key

__all__ = ["Disk", "Entry", "default_folder"]

_ASIDE = "aside"
"""The folder inside the cache's folder for files that are damaged."""

_ASIDE_LIMIT = 16
"""Number of files that are kept there."""


def default_folder() -> Path:
    """Return DRAGNOISE_CACHE, else `dragnoise` in the user's cache folder; no folder is made.

    Raises ConfigError for a user without a home whose folder for temporary files somebody else has
    taken.
    """
    folder = os.environ.get("DRAGNOISE_CACHE")
    if folder:
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or _usual_cache()) / "dragnoise"


def _usual_cache() -> Path:
    try:
        return Path.home() / ".cache"
    except RuntimeError:  # no HOME, and no name either: a container's arbitrary user
        user = getattr(os, "getuid", int)()
    folder = Path(tempfile.gettempdir()) / f"cache-{user}"
    if folder.is_symlink() or (folder.exists() and folder.stat().st_uid != user):
        raise ConfigError(f"{str(folder)!r} is not this user's; set DRAGNOISE_CACHE to a folder")
    return folder


@dataclass(frozen=True)
class Entry:
    """An entry on disk.

    Attributes:
        path: The file.
        nbytes: Its size.
        used: When it was last read or written, in seconds since 1970.
        about: What its header says: stage, structure, milliseconds that it took to make; empty if
            the header cannot be read.
    """

    path: Path
    nbytes: int
    used: float
    about: dict[str, Any]


class Disk:
    """A folder of entries that is bounded in bytes.

    Files that were set aside count and go first, then the longest unused entry. If the folder
    refuses (full, read-only, gone), editing goes on and `state` says why the tier is off. Entries
    of other users in the folder are neither read nor removed, and do not count.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        """Use this folder; `limit` is the most bytes of all files together."""
        self.folder = folder
        self.limit = limit
        self.state = "on"
        self.evictions = 0
        self._last_seen: tuple[int, int] | None = None
        self._warned = False
        self._lock = threading.Lock()

    @cached_property
    def key(self) -> bytes:
        """The user's key, with which entries are sealed."""
        return user_key(self.folder)

    def read(self, name: str) -> tuple[dict[str, Any], list[Tensor]] | None:
        """Return `(about, tensors)` of an entry, or None if there is none that can be trusted."""
        try:
            with open_folder(self.folder) as folder:
                return self._read(folder, name)
        except FileNotFoundError:
            return None
        except OSError as refused:
            self._switch_off(refused)
            return None

    def write(self, name: str, about: dict[str, Any], tensors: Sequence[Tensor]) -> None:
        """Write an entry, whole or not at all; one that is larger than the limit is not kept."""
        if self.state != "on":
            return
        raw = seal_entry(name, about, tensors, self.key)
        if len(raw) > self.limit:
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open_folder(self.folder) as folder:
                if self._make_room(folder, len(raw)):
                    put(folder, file_name(name), raw)
        except BrokenError as blocked:
            self._warn_of(file_name(name), str(blocked), "it is let be")
        except OSError as refused:
            self._switch_off(refused)
        self._last_seen = None

    def entries(self) -> Iterator[Entry]:
        """Yield every entry, the longest unused first."""
        with self._opened() as folder:
            if folder is None:
                return
            for file in _regular(folder):
                about: dict[str, Any] = {}
                with suppress(OSError, BrokenError), open_own(folder, file.name) as content:
                    about = read_head(content, Path(file.name).stem, self.key)
                yield Entry(self.folder / file.name, file.nbytes, file.used, about)

    def verify(self) -> tuple[int, list[Path]]:
        """Check every file; return the number of sound ones and the paths of the others."""
        sound = 0
        broken: list[Path] = []
        with self._opened() as folder:
            if folder is None:
                return sound, broken
            for file in _regular(folder):
                try:
                    with open_own(folder, file.name) as content:
                        read_entry(content, Path(file.name).stem, self.key)
                    sound += 1
                except FileNotFoundError:
                    continue
                except (BrokenError, OSError) as wrong:
                    self._set_aside(folder, file.name, str(wrong))
                    broken.append(self.folder / file.name)
        return sound, broken

    def clear(self) -> int:
        """Remove every file of ours, also those set aside; return their number. Raises OSError."""
        removed = 0
        with self._opened() as folder, self._aside(folder) as aside:
            for place in (aside, folder):
                for file in _names(place):
                    os.unlink(file.name, dir_fd=place)
                    removed += 1
            if folder is not None:
                removed += remove_abandoned(folder)
                with suppress(OSError):
                    os.rmdir(_ASIDE, dir_fd=folder)
        self._last_seen = None
        return removed

    def nbytes(self) -> tuple[int, int]:
        """Return the bytes of all entries, and their number."""
        with self._opened() as folder:
            sizes = [file.nbytes for file in _regular(folder)]
        self._last_seen = (sum(sizes), len(sizes))
        return self._last_seen

    def last_seen(self) -> tuple[int, int]:
        """Return size and number when last known, without listing the folder after every edit."""
        return self.nbytes() if self._last_seen is None else self._last_seen

    @contextmanager
    def _opened(self) -> Iterator[int | None]:
        """Open the folder; None if there is none that can be read."""
        with ExitStack() as opened:
            folder = None
            with suppress(OSError):
                folder = opened.enter_context(open_folder(self.folder))
            yield folder

    @contextmanager
    def _aside(self, folder: int | None) -> Iterator[int | None]:
        """Open the folder for what is damaged; None if there is none, or a link in its place."""
        with ExitStack() as opened:
            aside = None
            if folder is not None:
                with suppress(OSError):
                    aside = opened.enter_context(open_folder(_ASIDE, inside=folder))
            yield aside

    def _read(self, folder: int, name: str) -> tuple[dict[str, Any], list[Tensor]] | None:
        file = file_name(name)
        try:
            with open_own(folder, file) as content:
                contents = read_entry(content, name, self.key)
                _touch(content.fileno())
                return contents
        except FileNotFoundError:
            return None
        except BrokenError as broken:
            self._set_aside(folder, file, str(broken))
        except OSError as refused:
            self._set_aside(folder, file, refused.strerror or str(refused))
        return None

    def _make_room(self, folder: int, nbytes: int) -> bool:
        """Remove what is too much; return whether there is room for so many bytes more."""
        remove_abandoned(folder)
        with self._aside(folder) as aside:
            files = [(aside, file) for file in _names(aside)]
            # A file that is longer than all may be together was never ours: it goes first.
            files += sorted(
                ((folder, file) for file in _regular(folder)),
                key=lambda placed: placed[1].nbytes <= self.limit,
            )
            total = sum(file.nbytes for _, file in files) + nbytes
            for place, file in files:
                if total <= self.limit:
                    break
                if place is not None and remove(place, file.name):
                    self.evictions += place == folder
                    total -= file.nbytes
        return total <= self.limit

    def _set_aside(self, folder: int, name: str, why: str) -> None:
        moved = False
        with suppress(OSError):
            moved = self._move_aside(folder, name)
        end = "it was set aside" if moved else "it is let be"
        self._warn_of(name, why, f"{end} and is computed again")

    def _move_aside(self, folder: int, name: str) -> bool:
        """Move what has an entry's name; return whether it could be. Raises OSError."""
        with suppress(FileExistsError):
            os.mkdir(_ASIDE, 0o700, dir_fd=folder)
        with self._aside(folder) as aside:
            if aside is None or not move(name, folder, aside):
                return False
            for old in _names(aside)[:-_ASIDE_LIMIT]:
                remove(aside, old.name)
        self._make_room(folder, 0)
        return True

    def _switch_off(self, refused: OSError) -> None:
        self.state = f"off: {refused.strerror or refused}"
        self._warn(
            f"the cache {str(self.folder)!r} is not used any more ({refused}); "
            "editing goes on without it"
        )

    def _warn_of(self, name: str, why: str, end: str) -> None:
        self._warn(f"{name} in the cache {str(self.folder)!r} is not used ({why}); {end}")

    def _warn(self, message: str) -> None:
        """Warn once per folder."""
        with self._lock:
            warned = self._warned
            self._warned = True
        if not warned:
            warnings.warn(message, CacheWarning, stacklevel=4)


def _touch(handle: int) -> None:
    """Note that an entry was used, unless its time is that of a file outside too."""
    with suppress(OSError):
        if os.fstat(handle).st_nlink == 1:
            os.utime(handle)


def _names(folder: int | None) -> list[Listed]:
    """Return what is ours in a folder, the longest unused first; nothing if it cannot be read."""
    with suppress(OSError):
        return [] if folder is None else listed(folder)
    return []


def _regular(folder: int | None) -> list[Listed]:
    """Return the regular files among them."""
    return [file for file in _names(folder) if file.regular]
