"""The disk tier: one sealed file for an entry, known by its key; any number of processes share it.

A file is written under a temporary name, flushed and renamed: a reader sees it whole or not at
all. Files that are damaged or foreign are set aside.
"""

import contextlib
import os
import stat
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CacheWarning, ConfigError
from .sealed import BrokenError, read_about, seal, unseal

__all__ = ["Disk", "Entry", "default_folder"]

_SUFFIX = ".safetensors"

_ASIDE = "aside"
"""The folder inside the cache's folder for files that are damaged."""

_ASIDE_LIMIT = 16
"""Number of files that are kept there."""

_PART_PREFIX = ".dragnoise-"
_PART_SUFFIX = ".part"

_ABANDONED_S = 3600.0
"""Age at which an unfinished file's writer is taken for dead."""


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
    refuses (full, read-only, gone), editing goes on and `state` says why the tier is off.
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

    def read(self, name: str) -> tuple[dict[str, Any], list[Tensor]] | None:
        """Return `(about, tensors)` of an entry, or None if there is none that can be trusted."""
        path = self._path(name)
        try:
            contents = unseal(path.read_bytes(), name)
        except FileNotFoundError:
            return None
        except BrokenError as broken:
            self._set_aside(path, str(broken))
            return None
        except OSError as refused:
            self._switch_off(refused)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return contents

    def write(self, name: str, about: dict[str, Any], tensors: Sequence[Tensor]) -> None:
        """Write an entry, whole or not at all; one that is larger than the limit is not kept."""
        if self.state != "on":
            return
        raw = seal(name, about, tensors)
        if len(raw) > self.limit:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._make_room(len(raw))
            _replace(self._path(name), raw)
        except OSError as refused:
            self._switch_off(refused)
        self._last_seen = None

    def entries(self) -> Iterator[Entry]:
        """Yield every entry, the longest unused first."""
        for used, nbytes, path in self._files():
            try:
                about = read_about(path)
            except (OSError, BrokenError):
                about = {}
            yield Entry(path, nbytes, used, about)

    def verify(self) -> tuple[int, list[Path]]:
        """Check every file; return the number of sound ones and the paths of those set aside."""
        sound = 0
        broken = []
        for _, _, path in self._files():
            try:
                unseal(path.read_bytes(), path.stem)
                sound += 1
            except FileNotFoundError:
                continue
            except (BrokenError, OSError) as wrong:
                self._set_aside(path, str(wrong))
                broken.append(path)
        return sound, broken

    def clear(self) -> int:
        """Remove every file of ours, also those set aside; return their number. Raises OSError."""
        files = [path for _, _, path in self._files(_ASIDE) + self._files()]
        files += self._abandoned()
        for path in files:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (self.folder / _ASIDE).rmdir()
        return len(files)

    def nbytes(self) -> tuple[int, int]:
        """Return the bytes of all entries, and their number."""
        sizes = [size for _, size, _ in self._files()]
        self._last_seen = (sum(sizes), len(sizes))
        return self._last_seen

    def last_seen(self) -> tuple[int, int]:
        """Return size and number when last known, without listing the folder after every edit."""
        return self.nbytes() if self._last_seen is None else self._last_seen

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{_SUFFIX}"

    def _files(self, below: str = "") -> list[tuple[float, int, Path]]:
        """Return (last used, bytes, path) of every entry, the longest unused first.

        Files with other names than ours are ignored.
        """
        files = []
        with contextlib.suppress(OSError), os.scandir(self.folder / below) as listing:
            for file in listing:
                if not _is_ours(file.name):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = file.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        files.append((status.st_mtime, status.st_size, Path(file.path)))
        return sorted(files)

    def _abandoned(self) -> list[Path]:
        """Return unfinished files whose writer was killed."""
        paths = []
        for path in self.folder.glob(f"{_PART_PREFIX}*{_PART_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    paths.append(path)
        return paths

    def _make_room(self, nbytes: int) -> None:
        for path in self._abandoned():
            path.unlink(missing_ok=True)
        files = self._files(_ASIDE) + self._files()
        total = sum(size for _, size, _ in files) + nbytes
        for _, size, path in files:
            if total <= self.limit:
                return
            path.unlink(missing_ok=True)
            self.evictions += path.parent == self.folder
            total -= size

    def _set_aside(self, path: Path, why: str) -> None:
        aside = self.folder / _ASIDE
        with contextlib.suppress(OSError):
            aside.mkdir(exist_ok=True)
            path.replace(aside / path.name)
            for _, _, old in self._files(_ASIDE)[:-_ASIDE_LIMIT]:
                old.unlink(missing_ok=True)
            self._make_room(0)
        self._warn(
            f"{path.name} in the cache {str(self.folder)!r} is not used ({why}); "
            "it was set aside and is computed again"
        )

    def _switch_off(self, refused: OSError) -> None:
        self.state = f"off: {refused.strerror or refused}"
        self._warn(
            f"the cache {str(self.folder)!r} is not used any more ({refused}); "
            "editing goes on without it"
        )

    def _warn(self, message: str) -> None:
        """Warn once per folder."""
        with self._lock:
            warned = self._warned
            self._warned = True
        if not warned:
            warnings.warn(message, CacheWarning, stacklevel=4)


def _is_ours(name: str) -> bool:
    stem = name.removesuffix(_SUFFIX)
    return name.endswith(_SUFFIX) and len(stem) == 64 and set(stem) <= set("0123456789abcdef")


def _replace(target: Path, raw: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=_PART_PREFIX, suffix=_PART_SUFFIX, dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as part:
            part.write(raw)
            part.flush()
            os.fsync(part.fileno())
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)
