"""The user's key: one for all processes, and nobody else's."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dragnoise.engine.cache.secret import user_key
from stored_values import key, never, store, tensor, the_file, told_once


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the key lies of a user with a home."""
    monkeypatch.delenv("DRAGNOISE_CACHE_KEY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "dragnoise" / "cache.key"


def test_it_is_made_once_for_the_user_alone(state: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(user_key, [tmp_path] * 40))
    assert keys == {state.read_bytes()}
    assert len(state.read_bytes()) == 32
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.parent.stat().st_mode) == 0o700
    assert list(state.parent.iterdir()) == [state]


@pytest.mark.parametrize("unsound", ["short", "long", "readable", "writable", "link to such"])
def test_one_that_others_may_know_or_have_made_is_replaced(
    unsound: str, state: Path, tmp_path: Path
) -> None:
    first = user_key(tmp_path)
    if unsound == "link to such":
        state.rename(state.with_name("other"))
        state.symlink_to("other")
        state.chmod(0o644)
    elif unsound in ("readable", "writable"):
        state.chmod(0o644 if unsound == "readable" else 0o620)
    else:
        state.write_bytes(b"" if unsound == "short" else first + b"1")
    second = user_key(tmp_path)
    assert second != first
    assert user_key(tmp_path) == second
    assert stat.S_IMODE(state.stat().st_mode) == 0o600


def test_a_named_file_comes_first(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAGNOISE_CACHE_KEY", str(tmp_path / "named"))
    assert user_key(tmp_path) == (tmp_path / "named").read_bytes()
    assert not state.exists()


@pytest.mark.parametrize("home", ["", "relative", "/proc/nowhere", "/dev/null", "/null\0byte"])
def test_without_a_home_it_lies_in_the_caches_folder(
    home: str, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "\0" in home:
        monkeypatch.setattr("os.path.expanduser", lambda path: home)
        monkeypatch.delenv("XDG_STATE_HOME")
    else:
        monkeypatch.setenv("XDG_STATE_HOME", home or "~nobody-there")
    folder = tmp_path / "cache"
    assert user_key(folder) == (folder / f".key-{os.geteuid()}").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    store(folder).get_or_make(key(), tensor, stage="s")
    store(folder).get_or_make(key(), never, stage="s")


def test_where_nothing_can_be_written_every_process_has_its_own(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert user_key(tmp_path / "file") != user_key(tmp_path / "file")


def test_anothers_entries_are_not_found_and_a_planted_one_is_made_again(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    store(folder).get_or_make(key(), lambda: 1, stage="s")
    mine = the_file(folder)
    state.rename(tmp_path / "kept")
    store(folder).get_or_make(key(), lambda: 2, stage="s")
    (theirs,) = set(folder.glob("*.safetensors")) - {mine}
    (tmp_path / "kept").rename(state)
    mine.write_bytes(theirs.read_bytes())
    with told_once():
        assert store(folder).get_or_make(key(), lambda: 3, stage="s") == 3
