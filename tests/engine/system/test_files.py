"""Files are written whole or not at all, and refused before any work is done."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dragnoise.engine.errors import OutputError
from dragnoise.engine.system.files import (
    Outputs,
    unfinished_folder,
    writable,
    writable_folder,
    write_whole,
)


def test_a_file_of_a_known_kind_can_be_written(tmp_path: Path) -> None:
    assert writable(tmp_path / "a.PNG") == tmp_path / "a.PNG"
    assert writable(str(tmp_path / "a.json"), (".json",)) == tmp_path / "a.json"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a.gif", r"known kind of file; use one of \.png, "),
        ("a", "known kind"),
        ("below/a.png", "does not exist; make it first"),
        ("folder.png", "is a folder"),
        ("fifo.png", "is a FIFO, socket or device"),
        ("n" * 252 + ".png", "File name too long"),
        ("n\0.png", "null byte"),
        ("a.png/", "name of a folder"),
        ("", "known kind"),
    ],
)
def test_refusals(name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "fifo.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=says) as refused:
        writable(name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("length", [244, 250, 255])
def test_long_names_are_written(length: int, tmp_path: Path) -> None:
    target = writable(tmp_path / ("n" * (length - 4) + ".png"))
    assert write_whole(target, lambda part: part.write_text("x")).read_text() == "x"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("old")
    for name, to in (("a.png", outside), ("b.png", tmp_path / "nowhere")):
        link = tmp_path / name
        link.symlink_to(to)
        write_whole(writable(link), lambda part: part.write_text("new"))
        assert not link.is_symlink()
    assert outside.read_text() == "old"


@pytest.mark.parametrize("name", ["file", "file/below", "n" * 300, "a/" + "n" * 300, "n\0", ""])
def test_what_is_no_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError):
        writable_folder(name)
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_to_be_made_is_not_made_yet(tmp_path: Path) -> None:
    assert writable_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from dragnoise.engine.system.files import unfinished_folder, write_whole
def die(path):
    print(path, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "file":
    write_whole(Path(sys.argv[1], "a.json"), die)
with unfinished_folder(Path(sys.argv[1])) as path:
    Path(path, "part").touch()
    die(path)
"""


@pytest.mark.parametrize("what", ["file", "folder"])
def test_the_next_writer_removes_what_a_killed_one_left(what: str, tmp_path: Path) -> None:
    words = [sys.executable, "-c", KILLED, str(tmp_path), what]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    (left,) = tmp_path.iterdir()
    assert str(left) == done.stdout.strip()
    writable(tmp_path / "b.png")
    assert list(tmp_path.iterdir()) == []


def test_what_is_being_written_stays(tmp_path: Path) -> None:
    """A running process's files, those of other names, and links."""
    foreign = tmp_path / ".dragnoise-mine"
    link = tmp_path / ".dragnoise-0123456789abcdef"
    foreign.touch()
    link.symlink_to(foreign)

    def write(part: Path) -> None:
        with unfinished_folder(tmp_path) as folder:
            writable(tmp_path / "b.png")
            assert part.exists()
            assert folder.exists()
        part.write_text("whole")

    assert write_whole(tmp_path / "a.png", write).read_text() == "whole"
    assert sorted(os.listdir(tmp_path)) == sorted([foreign.name, link.name, "a.png"])


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(part: Path) -> None:
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a.json", interrupted)
    assert list(tmp_path.iterdir()) == []


def test_the_umask_is_never_changed(tmp_path: Path) -> None:
    """Files that another thread makes meanwhile are not writable for all."""
    done = threading.Event()
    modes = set()

    def make() -> None:
        for number in range(10**9):
            handle = os.open(tmp_path / f"{number}.x", os.O_CREAT | os.O_WRONLY, 0o666)
            modes.add(os.fstat(handle).st_mode & 0o777)
            os.close(handle)
            (tmp_path / f"{number}.x").unlink()
            if done.is_set():
                break

    maker = threading.Thread(target=make)
    maker.start()
    for _ in range(100):
        write_whole(tmp_path / "a.json", lambda part: part.write_text("x"))
    done.set()
    maker.join()
    assert len(modes) == 1


@pytest.mark.parametrize("how", ["path", "relative", "link", "hard link", "dotted"])
def test_no_output_is_an_input(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "a.png"
    source.touch()
    (tmp_path / "link.png").symlink_to("a.png")
    (tmp_path / "hard.png").hardlink_to(source)
    names: dict[str, Any] = {
        "path": source,
        "relative": "a.png",
        "link": "link.png",
        "hard link": "hard.png",
        "dotted": f"../{tmp_path.name}/a.png",
    }
    outputs = Outputs()
    outputs.add("-o", names[how])
    with pytest.raises(OutputError, match="is the input mask"):
        outputs.check_apart({"image": "b.png", "adapter": None, "mask": source})
    outputs.check_apart({"image": "b.png"})


def test_outputs_are_two_files_and_spare_a_models_weights(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    weights = tmp_path / "model" / "x.safetensors"
    weights.touch()
    outputs = Outputs()
    outputs.add("-o", weights, (".safetensors",))
    with pytest.raises(OutputError, match="is the input model"):
        outputs.check_apart({"model": tmp_path / "model"})
    outputs = Outputs()
    outputs.add("-o", tmp_path / "a.safetensors", ())
    outputs.add("--state", tmp_path / "model" / ".." / "a.safetensors", ())
    with pytest.raises(OutputError, match="-o and --state are both"):
        outputs.check_apart({})


def test_what_was_written_is_known(tmp_path: Path) -> None:
    outputs = Outputs()
    old = tmp_path / "old.png"
    old.touch()
    targets = [outputs.add(name, tmp_path / f"{name}.png") for name in ("old", "new", "later")]
    assert outputs.written() == []
    for target in targets[:2]:
        write_whole(target, lambda part: part.write_text("x"))
    assert outputs.written() == targets[:2]


def test_the_old_file_stays_if_the_new_one_fails(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_whole(target, lambda part: part.write_text("old"))
    plain = tmp_path / "plain"
    plain.touch()
    assert target.stat().st_mode == plain.stat().st_mode
    plain.unlink()

    def full(part: Path) -> None:
        part.write_text("half of the n")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        write_whole(target, full)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
