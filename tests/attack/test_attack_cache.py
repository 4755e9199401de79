"""Cache folder."""

import multiprocessing
import os
import random
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from dragnoise.engine.cache import Disk
from forged_entries import FORGED
from kept_edit import KeptEdit, cold, edited, same_bits
from sessions import ONE_BIT
from stored_values import write_for_ever
from tally import WHOLE, Tally


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> KeptEdit:
    """Return the entries of one edit, made once."""
    return KeptEdit(tmp_path_factory.mktemp("made") / "cache")


@pytest.fixture
def kept(made: KeptEdit) -> KeptEdit:
    """Return the same, as they were when they were made."""
    made.restore()
    return made


def _damage(tally: Tally, kept: KeptEdit, name: str, damaged: bytes, path: Path) -> None:
    """Write these bytes in an entry's place, and judge the next edit."""
    kept.restore()
    path.write_bytes(damaged)
    well, otherwise = kept.judged(lost=1)
    tally.judge(well, f"{name} of {path.name[:8]}: {otherwise}")


def test_truncated(kept: KeptEdit, tally: Tally) -> None:
    """Truncated at random offsets."""
    for chance in tally.lot(1, 200):
        path = chance.choice(kept.entries())
        raw = kept.sound[path.name]
        length = chance.randrange(len(raw))
        _damage(tally, kept, f"{length} bytes", raw[:length], path)


def test_one_bit(kept: KeptEdit, tally: Tally) -> None:
    """One bit flipped (40 % in headers)."""
    for chance in tally.lot(2, 1000):
        path = chance.choice(kept.entries())
        raw = bytearray(kept.sound[path.name])
        header = 8 + int.from_bytes(raw[:8], "little")
        place = chance.randrange(header if chance.random() < 0.4 else len(raw))
        raw[place] ^= 1 << chance.randrange(8)
        _damage(tally, kept, f"bit in byte {place}", bytes(raw), path)


def test_appended(kept: KeptEdit, tally: Tally) -> None:
    """Bytes appended."""
    for chance in tally.lot(1, 100):
        path = chance.choice(kept.entries())
        more = chance.randbytes(chance.randrange(1, 5000))
        _damage(tally, kept, f"{len(more)} more", kept.sound[path.name] + more, path)


def test_zero_length(kept: KeptEdit, tally: Tally) -> None:
    """Zero length."""
    for path in kept.entries() if WHOLE else kept.entries()[:1]:
        _damage(tally, kept, "empty", b"", path)


def test_swapped(kept: KeptEdit, tally: Tally, tmp_path: Path) -> None:
    """Two entries swapped, another key's, another picture's contents."""
    edited(tmp_path / "other", ONE_BIT)
    others = [
        path.read_bytes()
        for path in (tmp_path / "other").glob("*.safetensors")
        if path.name not in kept.sound  # the prompt's is the same
    ]
    pairs = [
        (path, raw)
        for path in kept.entries()
        for raw in (*kept.sound.values(), *others)
        if raw != kept.sound[path.name]
    ]
    for path, raw in pairs if WHOLE else random.Random(0).sample(pairs, 2):
        _damage(tally, kept, "another's contents", raw, path)


def test_forged(kept: KeptEdit, tally: Tally) -> None:
    """Forged entries of 28 kinds, on each of 4."""
    assert len(FORGED) == 28
    tries = [(kind, path) for kind in FORGED for path in kept.entries()]
    for kind, path in tries if WHOLE else random.Random(0).sample(tries, 2):
        _damage(tally, kept, kind, FORGED[kind](kept.sound[path.name]), path)


def _socket(path: Path) -> None:
    at = os.open(path.parent, os.O_RDONLY)  # the path alone may be too long for a socket
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{at}/{path.name}")
    os.close(at)


def _endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 * 10**12)


def _device(path: Path) -> None:
    with suppress(PermissionError):  # only root can make one; nothing lies there otherwise
        os.mknod(path, 0o20666, os.makedev(1, 5))


IN_PLACE: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "full folder": lambda path: (path / "below").mkdir(parents=True),
    "link to a copy outside": lambda path: path.symlink_to(_outside(path) / path.name),
    "link to a foreign file": lambda path: path.symlink_to(_outside(path) / "foreign"),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path.name),
    "link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "link to a FIFO": lambda path: path.symlink_to(_outside(path) / "fifo"),
    "FIFO": os.mkfifo,
    "socket": _socket,
    "device": _device,
    "sparse 10 TB file": _endless,
}


def _outside(path: Path) -> Path:
    return path.parent.parent / "outside"


@contextmanager
def _untouched(kept: KeptEdit) -> Iterator[None]:
    """Fail if anything outside the folder is changed."""
    outside = kept.folder.parent / "outside"
    outside.mkdir(exist_ok=True)
    for name, raw in {**kept.sound, "foreign": b"foreign"}.items():
        (outside / name).write_bytes(raw)
    if not (outside / "fifo").exists():
        os.mkfifo(outside / "fifo")
    before = [(path, path.lstat().st_mtime_ns, path.lstat().st_size) for path in outside.iterdir()]
    yield
    after = [(path, path.lstat().st_mtime_ns, path.lstat().st_size) for path in outside.iterdir()]
    assert before == after


def test_other_things_in_place_of_an_entry(kept: KeptEdit, tally: Tally) -> None:
    """Folder, link, loop, FIFO, socket, device, sparse file of 10 TB in place of an entry."""
    tries = [(kind, name) for kind in IN_PLACE for name in kept.sound]
    few = ("folder", "link to a copy outside", "FIFO", "sparse 10 TB file")
    chosen = tries if WHOLE else list(zip(few, kept.sound, strict=True))
    for kind, name in chosen:
        kept.restore()
        with _untouched(kept):
            (kept.folder / name).unlink()
            IN_PLACE[kind](kept.folder / name)
            well, otherwise = kept.judged(lost=1)
            disk = Disk(kept.folder, 2**40)
            disk.verify()
            list(disk.entries())
            disk.clear()
        tally.judge(well, f"{kind}: {otherwise}")


def test_aside_is_a_link(kept: KeptEdit, tally: Tally) -> None:
    """`aside` is a link to another folder, a file, a FIFO."""
    places: dict[str, Callable[[Path], object]] = {
        "link": lambda path: path.symlink_to(_outside(path)),
        "file": Path.touch,
        "FIFO": os.mkfifo,
    }
    for kind, make in places.items() if WHOLE else [("link", places["link"])]:
        kept.restore()
        with _untouched(kept):
            make(kept.folder / "aside")
            kept.entries()[0].write_bytes(b"broken")
            well, otherwise = kept.judged(lost=1)
            Disk(kept.folder, 2**40).clear()
        tally.judge(well, f"{kind}: {otherwise}")


def test_odd_times(kept: KeptEdit, tally: Tally) -> None:
    """Times of 1902, 2100 and others."""
    for seconds in (-2145916800, 4102444800, 0, 2**33) if WHOLE else (4102444800,):
        kept.restore()
        for path in kept.entries():
            os.utime(path, (seconds, seconds))
        well, otherwise = kept.judged(lost=0)
        tally.judge(well, f"{seconds} s: {otherwise}")


def test_old_parts(kept: KeptEdit, tally: Tally) -> None:
    """Old `.part` that is a folder, a link, a FIFO, a dead writer's."""
    kinds: dict[str, Callable[[Path], object]] = {
        "folder": Path.mkdir,
        "link": lambda path: path.symlink_to(_outside(path) / "foreign"),
        "FIFO": os.mkfifo,
        "dead": Path.touch,
    }
    kept.restore()
    with _untouched(kept):
        for kind, make in kinds.items():
            part = kept.folder / f".dragnoise-{kind}.part"
            make(part)
            os.utime(part, (0, 0), follow_symlinks=False)
        kept.entries()[0].unlink()  # so that one is written
        well, otherwise = kept.judged(lost=1)
    for kind in kinds:
        left = os.path.lexists(kept.folder / f".dragnoise-{kind}.part")
        tally.judge(well and left == (kind != "dead"), f"{kind}: {otherwise}, left {left}")


def test_killed(tally: Tally, tmp_path: Path) -> None:
    """Two processes, SIGKILL of both at random moments."""
    checked = 0
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dragnoise.engine.cache"])  # loads PyTorch once
    for chance in tally.lot(1, 30):
        folder = tmp_path / "cache"
        writers = [context.Process(target=write_for_ever, args=(str(folder),)) for _ in range(2)]
        for writer in writers:
            writer.start()
        while not list(folder.glob("*.safetensors")):
            time.sleep(0.01)
        time.sleep(chance.random() / 2)
        for writer in writers:
            writer.kill()
            writer.join()
        disk = Disk(folder, 2**30)
        sound, broken = disk.verify()
        checked += sound
        disk.write("f" * 64, {}, [torch.zeros(1)])
        parts = list(folder.glob(".*.part"))
        tally.judge(not broken and not parts and disk.state == "on", f"{broken}, {parts}")
    tally.remark = f"{checked} entries checked after the kills"


def test_file_size_limit(kept: KeptEdit, tally: Tally) -> None:
    """File size limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for path in kept.entries():
        path.unlink()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        result = edited(kept.folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    state = result.cache["tiers"]["disk"]["state"]
    well = same_bits(result, cold()) and state == "off: File too large"
    tally.judge(well and not os.listdir(kept.folder), state)


SWITCHES: dict[str, Callable[[], object]] = {
    "oneDNN off": lambda: torch.backends.mkldnn.set_flags(_enabled=False),
    "denormal numbers flushed": lambda: torch.set_flush_denormal(True),
    "other threads": lambda: torch.set_num_threads(2),
    "no flash attention": lambda: torch.backends.cuda.enable_flash_sdp(False),
    "oneDNN with bfloat16": lambda: setattr(torch.backends.mkldnn, "fp32_precision", "bf16"),
}


def _put_back() -> None:
    torch.backends.mkldnn.set_flags(_enabled=True)
    torch.set_flush_denormal(False)
    torch.set_num_threads(1)
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.mkldnn.fp32_precision = "none"


def test_under_another_switch(kept: KeptEdit, tally: Tally) -> None:
    """Made under another setting of PyTorch, used without it."""
    torch.set_num_threads(1)
    for name in SWITCHES if WHOLE else ["oneDNN off"]:
        for path in kept.entries():
            path.unlink()
        try:
            SWITCHES[name]()
            edited(kept.folder)
        finally:
            _put_back()
        well, otherwise = kept.judged(lost=len(kept.sound))
        tally.judge(well, f"{name}: {otherwise}")
        kept.restore()
