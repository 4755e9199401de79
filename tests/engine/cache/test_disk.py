"""The disk tier: no fault of a file or a disk gets into an edit."""

import errno
import fcntl
import json
import multiprocessing
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dragnoise.engine.cache import Disk, default_folder
from dragnoise.engine.errors import CacheWarning
from stored_values import (
    kept,
    key,
    never,
    same,
    store,
    tensor,
    the_file,
    told_once,
    unwarned,
    write_and_read,
)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    path, raw, value = kept(tmp_path)
    chance = random.Random(0)
    for length in [0, 7, 8, len(raw) - 1, *(chance.randrange(len(raw)) for _ in range(196))]:
        path.write_bytes(raw[:length])
        with told_once():
            found = store(tmp_path).get_or_make(key(), lambda: value, stage="s")
        assert found is value  # made again, and written again
        assert (tmp_path / "aside" / path.name).stat().st_size == length
    assert same(store(tmp_path).get_or_make(key(), never, stage="s"), value)


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path, raw, _ = kept(tmp_path)
    chance = random.Random(1)
    disk = Disk(tmp_path, 2**20)
    for _ in range(1000):
        place = chance.randrange(8 * len(raw))
        flipped = bytearray(raw)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with unwarned():
            assert disk.read(path.stem) is None, place
        assert not path.exists()
    path.write_bytes(raw)
    assert disk.read(path.stem) is not None


def test_a_foreign_entry_is_set_aside(tmp_path: Path) -> None:
    """Sound, but of another key: somebody renamed it."""
    path, raw, value = kept(tmp_path)
    store(tmp_path).get_or_make(key(1), lambda: 1, stage="s")
    (other,) = set(tmp_path.glob("*.safetensors")) - {path}
    other.write_bytes(raw)
    with told_once():
        assert store(tmp_path).get_or_make(key(1), lambda: 1, stage="s") == 1
    assert same(store(tmp_path).get_or_make(key(), never, stage="s"), value)


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    path, raw, _ = kept(tmp_path)
    foreign = tmp_path / "model.safetensors"
    foreign.write_bytes(b"x")
    disk = Disk(tmp_path, len(raw))
    assert disk.nbytes()[1] == 1
    disk.write(key(1), {}, [tensor()])  # the first entry has to go
    assert not path.exists()
    assert disk.clear() == 1
    assert disk.verify() == (0, [])
    store(tmp_path).get_or_make(key(), tensor, stage="s")
    assert disk.clear() == 1
    assert foreign.exists()


def test_the_folder_is_bounded_and_the_longest_unused_goes(tmp_path: Path) -> None:
    one = store(tmp_path)
    one.get_or_make(key(0), tensor, stage="s")
    size = the_file(tmp_path).stat().st_size
    found = store(tmp_path, disk_bytes=3 * size + 30, host_bytes=0)
    for number in range(1, 3):
        found.get_or_make(key(number), tensor, stage="s")
        for path in tmp_path.glob("*.safetensors"):
            os.utime(path, (path.stat().st_mtime - 10,) * 2)
    found.get_or_make(key(0), never, stage="s")  # now the last one used
    found.get_or_make(key(3), tensor, stage="s")
    for number in (0, 2, 3):
        found.get_or_make(key(number), never, stage="s")
    assert found.to_dict()["tiers"]["disk"]["evictions"] == 1
    assert found.to_dict()["tiers"]["disk"]["bytes"] <= found.limits.disk_bytes


def test_eight_processes_write_the_same_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["dragnoise.engine.cache"]
    )  # loads PyTorch once, not eight times
    with context.Pool(8) as pool:
        seen = pool.starmap(write_and_read, [(str(tmp_path), number, 125) for number in range(8)])
    assert sum(seen) == 1000
    assert [path.name for path in tmp_path.iterdir()] == [f"{key()}.safetensors"]


def test_killed_in_the_middle_of_a_write(tmp_path: Path) -> None:
    """A process dies between writing and renaming: there is no entry, the next one makes it."""
    code = f"""
import os, signal
from dragnoise.engine.cache import Store
import torch
real = os.fsync
def dying(handle):
    real(handle)
    print("written", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
os.fsync = dying
Store(folder={str(tmp_path)!r}).get_or_make({key()!r}, lambda: torch.ones(1000), stage="s")
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == "written\n"
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    found = store(tmp_path)
    assert same(found.get_or_make(key(), lambda: torch.ones(1000), stage="s"), torch.ones(1000))
    assert same(store(tmp_path).get_or_make(key(), never, stage="s"), torch.ones(1000))
    assert found.to_dict()["tiers"]["disk"]["entries"] == 1
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}


def test_only_what_a_dead_writer_left_is_removed(tmp_path: Path) -> None:
    names = [".dragnoise-dead.part", ".dragnoise-alive.part", ".other-dead.part"]
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".dragnoise-folder.part").mkdir()
    (tmp_path / ".dragnoise-link.part").symlink_to(tmp_path / names[2])
    os.mkfifo(tmp_path / ".dragnoise-fifo.part")
    with (tmp_path / names[1]).open("rb") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        found = store(tmp_path)
        found.get_or_make(key(), tensor, stage="s")
        assert [(tmp_path / name).exists() for name in names] == [False, True, True]
    found.get_or_make(key(1), tensor, stage="s")
    assert [(tmp_path / name).exists() for name in names] == [False, False, True]
    assert found.to_dict()["tiers"]["disk"]["state"] == "on"


FILLED = """
import warnings, sys
warnings.simplefilter("always")
from dragnoise.engine.cache import Store
import torch
found = Store(folder=sys.argv[1])
for number in range(8):
    def make():
        return torch.full((65536,), float(number))

    value = found.get_or_make(f"{number:064x}", make, stage="s")
    assert float(value[0]) == number
print(found.to_dict()["tiers"]["disk"]["state"], found.to_dict()["tiers"]["disk"]["entries"])
"""


def test_a_disk_that_fills(tmp_path: Path) -> None:
    """A tmpfs of 1 MiB takes three of eight entries of 256 KiB; the edits go on.

    Where nothing can be mounted: a limit on file sizes, which refuses writes likewise.
    """
    mounted = "mount -t tmpfs -o size=1m tmpfs '{0}' && exec '{1}' -W always -c \"$CODE\" '{0}'"
    limited = "trap '' XFSZ; ulimit -f 64; exec '{1}' -W always -c \"$CODE\" '{0}'"
    can = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs -o size=1m tmpfs '{tmp_path}'"],
        capture_output=True,
        check=False,
    )
    how = ["unshare", "-rm", "sh", "-c", mounted] if can.returncode == 0 else ["sh", "-c", limited]
    how[-1] = how[-1].format(tmp_path, sys.executable)
    ended = subprocess.run(
        how, capture_output=True, text=True, check=False, env=os.environ | {"CODE": FILLED}
    )
    assert ended.returncode == 0, ended.stderr
    state, entries = ended.stdout.rsplit(" ", 1)
    assert state.startswith("off: ")
    assert int(entries) == (3 if can.returncode == 0 else 0)
    assert ended.stderr.count("CacheWarning") == 1


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_folder_that_refuses(
    reason: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr("os.fsync", refuse)
    found = store(tmp_path)
    with told_once():
        for number in range(3):
            assert found.get_or_make(key(number), partial(int, number), stage="s") == number
    assert found.to_dict()["tiers"]["disk"]["state"] == f"off: {os.strerror(reason)}"
    assert list(tmp_path.iterdir()) == []
    assert found.get_or_make(key(1), never, stage="s") == 1


def test_a_folder_that_is_a_file_or_gone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with told_once():
            assert store(folder).get_or_make(key(), lambda: 1, stage="s") == 1
    gone = store(tmp_path / "made")
    gone.get_or_make(key(), lambda: 1, stage="s")
    the_file(tmp_path / "made").unlink()
    (tmp_path / "made").rmdir()
    gone.get_or_make(key(1), lambda: 1, stage="s")  # made again
    assert gone.to_dict()["tiers"]["disk"]["state"] == "on"


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DRAGNOISE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "dragnoise"
    assert not default_folder().exists()
    monkeypatch.setenv("DRAGNOISE_CACHE", str(tmp_path / "told"))
    assert default_folder() == tmp_path / "told"


def test_of_what_was_set_aside_only_ours_is_removed(tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    aside.mkdir()
    foreign = [aside / f"mine-{number}.txt" for number in range(20)] + [aside / "model.safetensors"]
    for path in foreign:
        path.write_text("mine")
    path, raw, value = kept(tmp_path)
    path.write_bytes(raw[:-1])
    with told_once():
        store(tmp_path).get_or_make(key(), lambda: value, stage="s")
    assert (aside / path.name).exists()
    assert Disk(tmp_path, 2**20).clear() == 2
    assert sorted(aside.iterdir()) == sorted(foreign)
    assert not path.exists()


def test_what_is_set_aside_counts_and_goes_first(tmp_path: Path) -> None:
    path, raw, _ = kept(tmp_path)
    disk = Disk(tmp_path, 3 * len(raw))
    for number in range(8):
        broken = tmp_path / f"{key(number + 1)}.safetensors"
        broken.write_bytes(raw[:-1])
        with unwarned():
            assert disk.read(broken.stem) is None
        assert sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors")) <= disk.limit
    assert disk.read(path.stem) is not None
    assert disk.evictions == 0


def test_verify_and_list_pass_over_what_is_no_file(tmp_path: Path) -> None:
    path, raw, _ = kept(tmp_path)
    (tmp_path / f"{key(1)}.safetensors").mkdir()
    (tmp_path / f"{key(2)}.safetensors").symlink_to(path)
    disk = Disk(tmp_path, 2**20)
    assert disk.verify() == (1, [])
    (listed,) = disk.entries()
    assert (listed.path, listed.nbytes, listed.about["stage"]) == (path, len(raw), "s")


def test_a_file_that_cannot_be_read_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path, _, value = kept(tmp_path)
    found = store(tmp_path)
    with monkeypatch.context() as patch, told_once():
        patch.setattr("dragnoise.engine.cache.disk.read_entry", refuse)
        assert found.get_or_make(key(), lambda: value, stage="s") is value
    assert found.to_dict()["tiers"]["disk"]["state"] == "on"
    assert (tmp_path / "aside" / path.name).exists()
    disk = Disk(tmp_path, 2**20)
    assert disk.verify() == (1, [])
    monkeypatch.setattr("dragnoise.engine.cache.disk.read_entry", refuse)
    with told_once():
        assert disk.verify() == (0, [path])


def test_a_header_without_a_bottom_is_set_aside(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"about": "[" * 100_000, "digest": "0" * 64}}).encode()
    path = tmp_path / f"{key()}.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with told_once():
        assert Disk(tmp_path, 2**20).read(key()) is None
    assert not path.exists()


def _endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 * 10**12)


def _longer(path: Path) -> None:
    """A sound header before ten terabytes of nothing."""
    with path.open("r+b") as file:
        file.truncate(10 * 10**12)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        at = os.open(path.parent, os.O_RDONLY)  # the path alone may be too long for a socket
        try:
            made.bind(f"/proc/self/fd/{at}/{path.name}")
        finally:
            os.close(at)


HOSTILE: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a folder": Path.mkdir,
    "a full folder": lambda path: (path / "below").mkdir(parents=True),
    "a socket": _socket,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a loop": lambda path: path.symlink_to(path.name),
    "a link to an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a link to a file": lambda path: path.symlink_to(path.parent.parent / "outside"),
    "a link to a folder": lambda path: path.symlink_to(path.parent.parent),
    "an endless file": _endless,
    "an empty file": Path.touch,
}


@pytest.mark.parametrize("there", [True, False], ids=["aside", "no place aside"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_one_bad_name_is_one_entry(kind: str, there: bool, tmp_path: Path) -> None:
    """It is set aside, or let be, and nothing else happens: not to the tier, not outside."""
    outside = tmp_path / "outside"
    cache = tmp_path / "cache"
    path, raw, value = kept(cache)
    path.rename(outside)
    before = outside.stat().st_mtime_ns
    HOSTILE[kind](path)
    if not there:
        (cache / "aside").write_text("a file of this name")
    disk = Disk(cache, 2**20)
    assert disk.nbytes()[1] <= 1
    assert [entry.about for entry in disk.entries()] in ([], [{}])
    for number in range(2):
        found = store(cache)
        with unwarned():
            assert same(found.get_or_make(key(), lambda: value, stage="s"), value)
            assert found.get_or_make(key(1), lambda: 1, stage="s") == 1
        assert found.to_dict()["tiers"]["disk"]["state"] == "on"
        assert found.to_dict()["stages"]["s"]["hits"].get("disk", 0) >= number
    with unwarned():
        assert disk.verify()[0] >= 1
        assert disk.clear() >= 1
    assert disk.verify() == (0, [])
    assert outside.read_bytes() == raw
    assert outside.stat().st_mtime_ns == before


def test_verify_survives_bad_names(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    for number, make in enumerate(HOSTILE.values()):
        make(tmp_path / "cache" / f"{key(number)}.safetensors")
    disk = Disk(tmp_path / "cache", 2**62)
    with told_once():
        sound, broken = disk.verify()
    assert (sound, len(broken)) == (0, 2)  # those that are files
    disk.clear()
    assert {path.is_dir() for path in disk.folder.glob("*.safetensors")} == {True}


def test_a_sound_header_before_a_wrong_length(tmp_path: Path) -> None:
    path, raw, value = kept(tmp_path)
    _longer(path)
    with told_once():
        assert store(tmp_path).get_or_make(key(), lambda: value, stage="s") is value
    assert path.stat().st_size < 2 * len(raw)


@pytest.mark.parametrize("target", ["outside", "nowhere", "aside"])
def test_aside_is_never_a_link(target: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    foreign = [outside / f"{key(number)}.safetensors" for number in range(20)]
    for file in foreign:
        file.write_bytes(b"foreign")
    path, raw, value = kept(tmp_path / "cache")
    (tmp_path / "cache" / "aside").symlink_to(outside if target == "outside" else target)
    path.write_bytes(raw[:-1])
    disk = Disk(tmp_path / "cache", 2 * len(raw))
    with unwarned():
        assert disk.verify() == (0, [path])
    with pytest.warns(CacheWarning, match="it is let be and is computed again"):
        store(tmp_path / "cache").get_or_make(key(), lambda: value, stage="s")
    for number in range(1, 4):
        disk.write(key(number), {}, [tensor()])
    assert disk.clear() >= 1
    assert sorted(outside.iterdir()) == foreign
    assert {file.read_bytes() for file in foreign} == {b"foreign"}


def test_a_file_that_was_never_ours_goes_before_entries(tmp_path: Path) -> None:
    path, raw, _ = kept(tmp_path)
    endless = tmp_path / f"{key(1)}.safetensors"
    _endless(endless)
    disk = Disk(tmp_path, 3 * len(raw))
    disk.write(key(2), {}, [tensor()])
    assert not endless.exists()
    assert path.exists()


def test_a_hard_link_outside_keeps_its_time(tmp_path: Path) -> None:
    """Its contents are sound, so it is used; but its time belongs to the other name too."""
    path, _, value = kept(tmp_path / "cache")
    os.utime(path, (1e9, 1e9))
    (tmp_path / "outside").hardlink_to(path)
    assert same(store(tmp_path / "cache").get_or_make(key(), never, stage="s"), value)
    assert (tmp_path / "outside").stat().st_mtime == 1e9


def test_a_folder_that_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    path, _, _ = kept(tmp_path / "deep" / "cache")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.fixture
def reachable() -> Iterator[Path]:
    """Return a folder that every user can reach: pytest's own lie in one that is its user's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Be another user than root for a while."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_where_nothing_can_be_moved_nothing_is_said_to_be(reachable: Path) -> None:
    path, raw, _ = kept(reachable)
    path.write_bytes(raw[:-1])
    with _as_nobody():
        disk = Disk(reachable, 2**20)
        with pytest.warns(CacheWarning, match="Permission denied.*; it is let be"):
            assert disk.read(path.stem) is None
        assert disk.state == "on"
        assert disk.verify() == (0, [])
        assert disk.nbytes() == (0, 0)
    assert path.exists()


def test_users_that_share_a_folder_keep_to_their_own(
    reachable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = reachable / "shared"
    path, raw, _ = kept(shared)
    shared.chmod(0o777)
    with _as_nobody(), unwarned():
        monkeypatch.setenv("DRAGNOISE_CACHE_KEY", str(shared / ".key"))
        for hits in ({}, {"disk": 1}):
            found = store(shared, disk_bytes=2 * len(raw))
            assert found.get_or_make(key(), lambda: 2, stage="s") == 2
            assert found.to_dict()["stages"]["s"]["hits"] == hits
            assert found.to_dict()["tiers"]["disk"]["state"] == "on"
        for number in range(1, 6):
            found.get_or_make(key(number), tensor, stage="s")
        assert found.to_dict()["tiers"]["disk"]["evictions"] >= 1
        assert found.disk is not None
        found.disk.clear()
    assert path.read_bytes() == raw
