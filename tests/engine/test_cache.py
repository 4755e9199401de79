"""The store: values come back as they were kept, bounded, once made, whoever asks; and no fault of a file or a disk gets into an edit."""

import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from dragnoise.engine.cache import Limits, Store, default_folder
from dragnoise.engine.cache.disk import Disk
from dragnoise.engine.cache.metrics import register
from dragnoise.engine.cache.structure import flatten, kinds_of, moved, nbytes
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
DTYPES = (
    *(
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.complex64,
        torch.complex128,
    ),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu, torch.bool),
    *(
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.uint8,
        torch.uint16,
        torch.uint32,
        torch.uint64,
    ),
)


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


# Values


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back_from_disk_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    bits = (
        torch.randint(0, 2, (96,), dtype=torch.uint8)
        if dtype == torch.bool
        else torch.randint(0, 255, (96,), dtype=torch.uint8)
    )
    value = bits.to(torch.bool) if dtype == torch.bool else bits.view(dtype)
    store(tmp_path).get_or_make(key(), lambda: value, stage="s")
    assert same(store(tmp_path).get_or_make(key(), never, stage="s"), value)


def layouts() -> dict[str, Tensor]:
    plain = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    return {
        "contiguous": plain,
        "channels_last": plain.contiguous(memory_format=torch.channels_last),
        "one channel": plain[:, :1].contiguous(memory_format=torch.channels_last),
        "transposed": plain.transpose(0, 3),
        "slice": plain[:, 1:2],
        "expanded": plain[:1, :1].expand(2, 3, 4, 5),
        "offset": plain[1],
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 2),
    }


@pytest.mark.parametrize("name", list(layouts()))
def test_every_layout_comes_back(name: str, tmp_path: Path) -> None:
    """With its strides, also where they have gaps or are 0: which kernel a later stage takes depends on them."""
    value = layouts()[name]
    store(tmp_path).get_or_make(key(), lambda: value, stage="s")
    found = store(tmp_path).get_or_make(key(), never, stage="s")
    assert same(found, value)
    assert found.data_ptr() % 64 == value.data_ptr() % 64  # and on its alignment
    assert same(moved(value, {}, torch.clone), value)


def test_what_is_expanded_is_kept_once(tmp_path: Path) -> None:
    store(tmp_path).get_or_make(key(), lambda: torch.ones(1, 1).expand(3000, 3000), stage="s")
    assert the_file(tmp_path).stat().st_size < 1000
    assert nbytes(store(tmp_path).get_or_make(key(), never, stage="s")) == 4


def test_views_of_one_storage_come_back_as_such(tmp_path: Path) -> None:
    """As a chunked map's parts have it: overlapping or not, of whatever dtype, in the storage's middle."""
    plain = torch.arange(2 * 8 * 4.0)[8:].view(7, 8)
    parts = (plain[1:], plain[2], plain[:, :3], plain[:, 3:], plain[3].view(torch.int16), plain[:0])
    value = (*parts, parts[1])
    store(tmp_path).get_or_make(key(), lambda: value, stage="s")
    found = store(tmp_path).get_or_make(key(), never, stage="s")
    assert same(found, value)
    assert found[1] is found[6]
    assert len({part.untyped_storage().data_ptr() for part in found}) == 1
    assert nbytes(found) == 56 * 4 + 32  # from the last whole multiple of 64 on


def test_nests_come_back_with_what_they_share(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    value = Nest(
        '\u00e9 "quoted"',
        (Pair(shared, None), Pair(shared, shared.view(2, 3))),
        (3, 4),
        True,
        0.1 + 0.2,
    )
    store(tmp_path).get_or_make(key(), lambda: value, stage="s")
    for found in (
        store(tmp_path).get_or_make(key(), never, stage="s"),
        moved(value, kinds_of(KINDS), torch.clone),
    ):
        assert same(found, value)
        assert found.pairs[0].one is found.pairs[1].one
        assert nbytes(found) == nbytes(value) == 24


@pytest.mark.parametrize(
    "wrong",
    [torch.eye(3).to_sparse(), torch.ones(2, dtype=torch.complex64).conj(), torch.nn.Linear(1, 1)],
)
def test_tensors_that_are_no_plain_memory_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"can(not)? be kept"):
        flatten(wrong, {})


def test_other_kinds_are_refused_and_nothing_is_left_behind(tmp_path: Path) -> None:
    found = store(tmp_path)
    for wrong in ({"a": 1}, [1], object(), Path()):
        with pytest.raises(TypeError, match="no kind that can be kept"):
            found.get_or_make(key(), lambda wrong=wrong: wrong, stage="s")  # type: ignore[misc]
    assert found.get_or_make(key(), lambda: 5, stage="s") == 5


# Memory


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), max_size=40), st.integers(4, 12))
def test_memory_is_bounded_and_the_longest_unused_goes(
    asked: list[tuple[int, int]], room: int
) -> None:
    """Against a list: an entry's size belongs to its number; what does not fit at all is made anew every time."""
    found = store(host_bytes=4 * room)
    sizes: dict[int, int] = {}
    model: list[int] = []
    for number, size in asked:
        size = sizes.setdefault(number, size)
        made: list[int] = []

        def make(size: int = size, made: list[int] = made) -> Tensor:
            made.append(1)
            return tensor(size=size)

        found.get_or_make(key(number), make, stage="s")
        assert bool(made) == (number not in model)
        if number in model:
            model.remove(number)
        if size <= room:
            while sum(sizes[kept] for kept in model) + size > room:
                model.pop(0)
            model.append(number)
        numbers = found.to_dict()["tiers"]["host"]
        assert (numbers["bytes"], numbers["entries"]) == (
            4 * sum(sizes[kept] for kept in model),
            len(model),
        )


def test_what_is_held_is_never_evicted() -> None:
    found = store(host_bytes=3 * 32)
    with found.hold() as hold:
        for number in range(3):
            found.get_or_make(key(number), tensor, stage="s", hold=hold)
        found.get_or_make(key(3), tensor, stage="s")  # no room, so not kept
        for number in range(3):
            found.get_or_make(key(number), never, stage="s")
    found.get_or_make(key(4), tensor, stage="s")
    assert found.to_dict()["tiers"]["host"]["evictions"] == 1
    assert not any(found._held.values())


def test_nothing_goes_for_what_would_not_fit_all_the_same() -> None:
    found = store(host_bytes=3 * 32)
    with found.hold() as hold:
        for number in range(2):
            found.get_or_make(key(number), tensor, stage="s", hold=hold)
        found.get_or_make(key(2), tensor, stage="s")
        found.get_or_make(key(3), lambda: tensor(size=16), stage="s")
        found.get_or_make(key(2), never, stage="s")
    assert found.to_dict()["tiers"]["host"]["evictions"] == 0


def test_a_tier_without_room_keeps_nothing() -> None:
    found = store(host_bytes=0)
    found.get_or_make(key(), lambda: "no tensor in it", stage="s")
    assert found.to_dict()["tiers"]["host"]["entries"] == 0


def test_numbers(tmp_path: Path) -> None:
    def slow() -> Tensor:
        time.sleep(0.02)
        return tensor()

    first = store(tmp_path)
    first.get_or_make(key(), slow, stage="invert")
    first.get_or_make(key(), never, stage="invert")
    again = store(tmp_path)
    again.get_or_make(key(), never, stage="invert")
    said = first.to_dict()["stages"]["invert"]
    assert (said["hits"], said["misses"]) == ({"host": 1}, 1)
    assert said["made_ms"] >= 20
    assert 0 != said["saved_ms"] < said["made_ms"]  # what making took, less what finding took
    assert again.to_dict()["stages"]["invert"]["hits"] == {"disk": 1}
    tier = again.to_dict()["tiers"]["disk"]
    assert (tier["entries"], tier["state"], tier["evictions"]) == (1, "on", 0)
    assert tier["bytes"] == the_file(tmp_path).stat().st_size


def test_metrics() -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    found, registry = store(), CollectorRegistry()
    register(found, registry)
    found.get_or_make(key(), tensor, stage="invert")
    found.get_or_make(key(), never, stage="invert")
    text = generate_latest(registry).decode()
    assert 'dragnoise_cache_hits_total{stage="invert",tier="host"} 1.0' in text
    assert 'dragnoise_cache_misses_total{stage="invert"} 1.0' in text
    assert 'dragnoise_cache_bytes{tier="host"} 32.0' in text


# Threads


def test_threads_that_ask_for_the_same_make_it_once() -> None:
    found, made, gate = (
        store(host_bytes=0),
        [],
        threading.Event(),
    )  # nothing is kept: waiters get what was made all the same

    def make() -> Tensor:
        made.append(1)
        gate.wait(10)
        return tensor()

    got: list[Tensor] = []
    threads = [
        threading.Thread(target=lambda: got.append(found.get_or_make(key(), make, stage="s")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    while not made:
        time.sleep(0.001)
    assert found.get_or_make(key(1), lambda: 1, stage="s") == 1  # another key waits for nobody
    time.sleep(0.05)
    gate.set()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len({id(value) for value in got}) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_poisons_nothing(error: type[BaseException]) -> None:
    found, order, gate = store(), [], threading.Event()

    def fails() -> Tensor:
        order.append("fails")
        gate.wait(10)
        raise error("no")

    def first() -> None:
        with pytest.raises(error):
            found.get_or_make(key(), fails, stage="s")

    got: list[Tensor] = []
    failing = threading.Thread(target=first)
    failing.start()
    while not order:
        time.sleep(0.001)
    waiting = threading.Thread(
        target=lambda: got.append(found.get_or_make(key(), tensor, stage="s"))
    )
    waiting.start()
    time.sleep(0.02)
    gate.set()
    failing.join()
    waiting.join()
    assert same(got[0], tensor())
    assert found.to_dict()["stages"]["s"]["misses"] == 1


# Files


def test_salts_keep_tenants_apart(tmp_path: Path) -> None:
    store(tmp_path, salt="a").get_or_make(key(), lambda: 1, stage="s")
    assert store(tmp_path, salt="b").get_or_make(key(), lambda: 2, stage="s") == 2
    assert store(tmp_path, salt="a").get_or_make(key(), never, stage="s") == 1
    names = {path.stem for path in tmp_path.iterdir()}
    assert len(names) == 2
    assert key() not in names


def kept(folder: Path) -> tuple[Path, bytes, Nest]:
    value = Nest("n", (Pair(torch.arange(16.0), None),), (1, 2), False, 0.5)
    store(folder).get_or_make(key(), lambda: value, stage="s")
    return the_file(folder), the_file(folder).read_bytes(), value


@contextmanager
def told_once() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    assert [warning.category for warning in told] == [CacheWarning]


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
    disk._warned = True
    for _ in range(1000):
        place = chance.randrange(8 * len(raw))
        flipped = bytearray(raw)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
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
    kept(tmp_path)
    foreign = tmp_path / "model.safetensors"
    foreign.write_bytes(b"x")
    disk = Disk(tmp_path, 1)
    assert disk.nbytes()[1] == 1
    disk._make_room(10)
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


def _write_and_read(folder: str, number: int, times: int) -> int:
    """Writes the same key over and over, and checks whatever is there to read. How often there was something."""
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


def test_eight_processes_write_the_same_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(8) as pool:
        seen = pool.starmap(_write_and_read, [(str(tmp_path), number, 125) for number in range(8)])
    assert sum(seen) == 1000
    assert [path.name for path in tmp_path.iterdir()] == [f"{key()}.safetensors"]


def test_killed_in_the_middle_of_a_write(tmp_path: Path) -> None:
    """The process dies between writing and renaming: there is no entry, and the next process makes one."""
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
    (part,) = tmp_path.glob(".*.part")
    os.utime(
        part, (part.stat().st_mtime - 7200,) * 2
    )  # its writer is long dead: the next write takes it away
    found.get_or_make(key(1), tensor, stage="s")
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}


FILLED = """
import warnings, sys
warnings.simplefilter("always")
from dragnoise.engine.cache import Store
import torch
found = Store(folder=sys.argv[1])
for number in range(8):
    value = found.get_or_make(f"{number:064x}", lambda: torch.full((65536,), float(number)), stage="s")
    assert float(value[0]) == number
print(found.to_dict()["tiers"]["disk"]["state"], found.to_dict()["tiers"]["disk"]["entries"])
"""


def test_a_disk_that_fills(tmp_path: Path) -> None:
    """A tmpfs of 1 MiB takes three of eight entries of 256 KiB; the edits go on. Where nothing can be mounted: a limit on file sizes, which refuses
    writes likewise."""
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
            assert found.get_or_make(key(number), lambda number=number: number, stage="s") == number  # type: ignore[misc]
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
    disk._warned = True
    for number in range(8):
        broken = tmp_path / f"{key(number + 1)}.safetensors"
        broken.write_bytes(raw[:-1])
        assert disk.read(broken.stem) is None
        assert sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors")) <= disk.limit
    assert disk.read(path.stem) is not None
    assert disk.evictions == 0


def test_verify_and_list_pass_over_what_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, raw, _ = kept(tmp_path)
    (tmp_path / f"{key(1)}.safetensors").mkdir()
    (tmp_path / f"{key(2)}.safetensors").symlink_to(path)
    disk = Disk(tmp_path, 2**20)
    assert disk.verify() == (1, [])
    (listed,) = disk.entries()
    assert (listed.path, listed.nbytes, listed.about["stage"]) == (path, len(raw), "s")

    def refuse(self: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with told_once():
        assert disk.verify() == (0, [path])


def test_a_header_without_a_bottom_is_set_aside(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"about": "[" * 100_000, "digest": "0" * 64}}).encode()
    path = tmp_path / f"{key()}.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with told_once():
        assert Disk(tmp_path, 2**20).read(key()) is None
    assert not path.exists()


@pytest.mark.gpu
def test_what_falls_out_of_a_devices_memory_comes_back(tmp_path: Path) -> None:
    device = torch.device("cuda")
    found = store(tmp_path, device_bytes=2 * 4096)
    values = [
        torch.randn(1, 8, 8, 16, device=device).contiguous(memory_format=torch.channels_last)
        for _ in range(3)
    ]
    for number, value in enumerate(values):
        found.get_or_make(key(number), lambda value=value: value, stage="s", device=device)  # type: ignore[misc]
    assert found.to_dict()["tiers"]["host"]["entries"] == 1
    back = found.get_or_make(key(0), never, stage="s", device=device)
    assert back.device.type == "cuda"
    assert same(back.cpu(), values[0].cpu())
    assert back.stride() == values[0].stride()
