"""The disk tier: one safetensors file an entry, known by its content's key, shared by as many processes as like.

A file is written under a temporary name, flushed and renamed: a reader sees it whole or not at all. Its header holds a digest of all the file's
bytes, itself taken as noughts, because safetensors notices a truncated file but not a flipped bit. What is corrupt or foreign is set aside.
"""

import contextlib
import hashlib
import json
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

import safetensors
from safetensors.torch import load, save
from torch import Tensor

from ..errors import CacheWarning

__all__ = ["BrokenError", "Disk", "Entry", "default_folder", "seal", "unseal"]

_SUFFIX, _ASIDE, _ASIDE_KEPT = ".safetensors", "aside", 16
_PART, _ABANDONED_S = (".dragnoise-", ".part"), 3600.0
"""How unfinished files begin and end, and how old one must be for its writer to be dead."""

_FORMAT = "dragnoise 2"
_BLANK = "0" * 64


def default_folder() -> Path:
    """DRAGNOISE_CACHE, else `dragnoise` in the user's cache folder. Nothing is made by asking."""
    told = os.environ.get("DRAGNOISE_CACHE")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(told) if told else Path(cache) / "dragnoise"


@dataclass(frozen=True)
class Entry:
    """A file of ours. about: what its header says (stage, structure, milliseconds that it took to make)."""

    path: Path
    nbytes: int
    used: float
    about: dict[str, Any]


class BrokenError(ValueError):
    """The bytes are no entry, or not this one."""


class Disk:
    """A folder of entries, at most `limit` bytes together with those set aside, which go first; then the longest unused.

    Without the folder's cooperation (full, read-only, gone) editing goes on: `state` says why it is off.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit, self.state = folder, limit, "on"
        self.evictions = 0
        self._seen: tuple[int, int] | None = None
        self._warned = False
        self._lock = threading.Lock()

    def read(self, name: str) -> tuple[dict[str, Any], list[Tensor]] | None:
        """(about, tensors) of an entry, checked; None where there is none that can be trusted."""
        path = self._path(name)
        try:
            raw = path.read_bytes()
            found = unseal(raw, name)
        except FileNotFoundError:
            return None
        except BrokenError as broken:
            self._set_aside(path, str(broken))
            return None
        except OSError as refused:
            self._off(refused)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return found

    def write(self, name: str, about: dict[str, Any], tensors: Sequence[Tensor]) -> None:
        """Whole or not at all. Larger than the limit: not kept."""
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
            self._off(refused)
        self._seen = None

    def entries(self) -> Iterator[Entry]:
        """Every file of ours, the longest unused first; of what cannot be read, without what it says."""
        for used, nbytes, path in self._files():
            try:
                about = _header(_head(path))[0]
            except (OSError, BrokenError):
                about = {}
            yield Entry(path, nbytes, used, about)

    def verify(self) -> tuple[int, list[Path]]:
        """(how many are sound, which were not and were set aside)"""
        sound, broken = 0, []
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
        """Remove every file of ours, also what was set aside; how many they were. Raises OSError."""
        ours = [path for _, _, path in self._files(_ASIDE) + self._files()] + self._abandoned(
            _ABANDONED_S
        )
        for path in ours:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (self.folder / _ASIDE).rmdir()
        return len(ours)

    def nbytes(self) -> tuple[int, int]:
        """(bytes, entries)"""
        sizes = [size for _, size, _ in self._files()]
        self._seen = sum(sizes), len(sizes)
        return self._seen

    def last_seen(self) -> tuple[int, int]:
        """The same as of our last write, or look: without listing the folder after every edit."""
        return self.nbytes() if self._seen is None else self._seen

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{_SUFFIX}"

    def _files(self, below: str = "") -> list[tuple[float, int, Path]]:
        """(last used, bytes, path) of every entry, the longest unused first. Files of other names are nobody's business of ours."""
        found = []
        with contextlib.suppress(OSError), os.scandir(self.folder / below) as listed:
            for file in listed:
                stem = file.name.removesuffix(_SUFFIX)
                if (
                    file.name.endswith(_SUFFIX)
                    and len(stem) == 64
                    and set(stem) <= set("0123456789abcdef")
                ):
                    with contextlib.suppress(FileNotFoundError):
                        said = file.stat(follow_symlinks=False)
                        if stat.S_ISREG(said.st_mode):
                            found.append((said.st_mtime, said.st_size, Path(file.path)))
        return sorted(found)

    def _abandoned(self, older_s: float) -> list[Path]:
        """Unfinished files whose writer was killed."""
        found = []
        for path in self.folder.glob("*".join(_PART)):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > older_s:
                    found.append(path)
        return found

    def _make_room(self, wanted: int) -> None:
        for path in self._abandoned(_ABANDONED_S):
            path.unlink(missing_ok=True)
        files = self._files(_ASIDE) + self._files()
        total = sum(size for _, size, _ in files) + wanted
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
            for _, _, old in self._files(_ASIDE)[:-_ASIDE_KEPT]:
                old.unlink(missing_ok=True)
            self._make_room(0)
        self._warn(
            f"{path.name} in the cache {str(self.folder)!r} is not used ({why}); it was set aside and is computed again"
        )

    def _off(self, refused: OSError) -> None:
        self.state = f"off: {refused.strerror or refused}"
        self._warn(
            f"the cache {str(self.folder)!r} is not used any more ({refused}); editing goes on without it"
        )

    def _warn(self, said: str) -> None:
        """Once: who edits a hundred pictures does not want to hear it a hundred times."""
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:
            warnings.warn(said, CacheWarning, stacklevel=4)


def seal(name: str, about: dict[str, Any], tensors: Sequence[Tensor]) -> bytes:
    """A safetensors file that says its name, what it is about (JSON) and its own digest."""
    said = json.dumps({"format": _FORMAT, "name": name, "written": time.time(), **about})
    raw = save(
        {str(number): tensor.cpu() for number, tensor in enumerate(tensors)},
        metadata={"about": said, "digest": _BLANK},
    )
    return raw.replace(_field(_BLANK), _field(_digest(raw)), 1)


def unseal(raw: bytes, name: str) -> tuple[dict[str, Any], list[Tensor]]:
    """(about, tensors) of a file of that name. Raises BrokenError unless every byte is as it was written."""
    about, digest = _header(raw)
    if about.get("format") != _FORMAT or about.get("name") != name:
        raise BrokenError("it is of another format or another entry")
    if _digest(raw.replace(_field(digest), _field(_BLANK), 1)) != digest:
        raise BrokenError("its digest does not match")
    try:
        found = load(raw)
        tensors = [
            found.pop(str(number)).clone() for number in range(len(found))
        ]  # where PyTorch would have put them
    except (safetensors.SafetensorError, ValueError, KeyError) as wrong:
        raise BrokenError(str(wrong)) from wrong
    return about, tensors


def _head(path: Path) -> bytes:
    """As much of a file as its header takes."""
    with path.open("rb") as file:
        length = file.read(8)
        return length + file.read(
            min(int.from_bytes(length, "little"), os.fstat(file.fileno()).st_size)
        )


def _header(raw: bytes) -> tuple[dict[str, Any], str]:
    """(what the header says, the digest)"""
    try:
        said = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
        about, digest = json.loads(said["about"]), said["digest"]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as wrong:
        raise BrokenError("its header cannot be read") from wrong
    if not isinstance(about, dict) or not isinstance(digest, str) or len(digest) != 64:
        raise BrokenError("its header is not ours")
    return about, digest


def _field(digest: str) -> bytes:
    """The digest as it stands in the header; what stands in strings has its quotes escaped."""
    return f'"digest":"{digest}"'.encode()


def _digest(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=32).hexdigest()


def _replace(target: Path, raw: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=_PART[0], suffix=_PART[1], dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as part:
            part.write(raw)
            part.flush()
            os.fsync(part.fileno())
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)
