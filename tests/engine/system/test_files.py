"""Files are written whole or not at all, and refused before any work is done."""

import os
from pathlib import Path

import pytest

from dragnoise.engine.errors import OutputError
from dragnoise.engine.system.files import writable, write_whole


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
    ],
)
def test_refusals(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match=says):
        writable(tmp_path / name)


def test_the_old_file_stays_if_the_new_one_fails(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_whole(target, lambda part: part.write_text("old"))
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask

    def full(part: Path) -> None:
        part.write_text("half of the n")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        write_whole(target, full)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
