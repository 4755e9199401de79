"""Sessions in a folder: back after a restart or a kill, whatever else lies there."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragnoise.engine import OutputError, Session
from dragnoise.engine.serve import ServiceError, create_app
from dragnoise.engine.serve.client import RemoteSession
from dragnoise.engine.serve.kept import Folder
from dragnoise.engine.serve.settings import ServeSettings
from services import DRAG, FACE, LAYER, QUICK, Running, eventually, service
from sessions import editor


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the service look every 20 ms for what has changed."""
    monkeypatch.setattr("dragnoise.engine.serve.service._SWEEP_S", 0.02)


def worked_on(running: Running) -> tuple[str, bytes, Any]:
    """Drag a session; return its id, its picture and its state, when it has been saved."""
    with running.client() as client:
        session = client.open(FACE, prompt="a face")
        session.set_mask(LAYER)
        session.drag(DRAG, settings=QUICK)
        held = next(held for held in running.inside.table if held.id == session.id)
        eventually(lambda: not held.unsaved and not held.is_in_use)
        return session.id, session.image(), session.state()


def check(session: RemoteSession, picture: bytes, state: Any) -> None:
    assert session.state() == state
    assert session.image() == picture
    assert session.mask() == LAYER
    assert session.undo().can_redo


def test_a_session_outlives_a_kill_and_an_end(tmp_path: Path) -> None:
    """What lies in the folder at any moment is enough; and a service that ends adds the rest."""
    with service(state=str(tmp_path / "state")) as first:
        id, picture, state = worked_on(first)
        shutil.copytree(tmp_path / "state", tmp_path / "killed")
    for folder in ("killed", "state"):
        with service(state=str(tmp_path / folder)) as second, second.client() as client:
            assert len(second.inside.table) == 0
            check(client.session(id), picture, state)
            assert client.session(id).drag(DRAG, settings=QUICK).state.version == 4


def test_a_session_that_rests_comes_back(tmp_path: Path) -> None:
    with service(state=str(tmp_path), idle_s=0.05) as running, running.client() as client:
        id, picture, state = worked_on(running)
        eventually(lambda: len(running.inside.table) == 0)
        check(client.session(id), picture, state)


def test_without_a_folder_a_session_that_rests_is_gone() -> None:
    with service(idle_s=0.05) as running, running.client() as client:
        session = client.open(FACE)
        with session.live() as live:
            live.until("ready")
            eventually(lambda: len(running.inside.table) == 1)
            assert session.state().version == 1  # a connection keeps it
        eventually(lambda: len(running.inside.table) == 0)
        with pytest.raises(ServiceError, match="not_found"):
            session.state()


def test_more_sessions_than_memory_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dragnoise.engine.serve.table._EVICT_S", 0.0)
    with service(state=str(tmp_path), sessions=2) as running, running.client() as client:
        sessions = [client.open(FACE, prompt=f"{number}") for number in range(6)]
        assert len(running.inside.table) == 2
        for number, session in enumerate(sessions):
            assert session.state().prompt == f"{number}"


def test_a_deleted_session_leaves_nothing(tmp_path: Path) -> None:
    with service(state=str(tmp_path)) as running, running.client() as client:
        id, _, _ = worked_on(running)
        assert {path.name for path in tmp_path.iterdir()} == {
            f"{id}.json",
            f"{id}.safetensors",
            f"{id}.mask.png",
        }
        client.session(id).delete()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_costs_nothing_but_the_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save = Session.save

    def full(*args: object) -> None:
        raise OutputError(f"'x' could not be written ({errno.ENOSPC})")

    with service(state=str(tmp_path), idle_s=0.05) as running, running.client() as client:
        monkeypatch.setattr(Session, "save", full)
        session = client.open(FACE)
        eventually(lambda: '"event": "save_failed"' in caplog.text)
        assert session.drag(DRAG, settings=QUICK).state.version == 2
        assert list(tmp_path.iterdir()) == []
        monkeypatch.setattr(Session, "save", save)  # there is room again
        eventually(lambda: (tmp_path / f"{session.id}.json").exists())


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dragnoise.engine.serve.service._SWEEP_S", 0.02)
        with service(state=str(folder)) as running:
            id, _, _ = worked_on(running)
    return folder, id


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "the session is cut": (".safetensors", cut),
    "the session is gone": (".safetensors", Path.unlink),
    "the mask is gone": (".mask.png", Path.unlink),
    "the mask is cut": (".mask.png", cut),
    "about is no document": (".json", lambda path: path.write_text("{")),
    "about is a list": (".json", lambda path: path.write_text("[]")),
    "about has no version": (".json", lambda path: path.write_text("{}")),
    "about is deep": (".json", lambda path: path.write_text("[" * 50_000)),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_is_not_found(tmp_path: Path, kept: tuple[Path, str], what: str) -> None:
    folder, id = kept
    shutil.copytree(folder, tmp_path / "state")
    there = Folder(tmp_path / "state", 1e6)
    assert there.restore(id, editor(), 2**20) is not None
    suffix, damage = DAMAGE[what]
    damage(tmp_path / "state" / f"{id}{suffix}")
    assert there.restore(id, editor(), 2**20) is None


def test_only_ours_that_are_old_are_removed(kept: tuple[Path, str], tmp_path: Path) -> None:
    folder, id = kept
    shutil.copytree(folder, tmp_path / "state")
    others = ["notes.json", f"{id}.txt", f"{id[:-1]}.json", "x.safetensors"]
    for name in others:
        (tmp_path / "state" / name).write_text("{}")
    there = Folder(tmp_path / "state", 1e6)
    there.forget_old()
    assert there.restore(id, editor(), 2**20) is not None
    Folder(tmp_path / "state", -1.0).forget_old()
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == sorted(others)


@pytest.mark.parametrize("id", ["..", "../x", "", "/etc/passwd", "0" * 31, "0" * 33, "A" * 32])
def test_an_id_is_no_path(tmp_path: Path, id: str) -> None:
    (tmp_path / f"{id.strip('./')}.json").parent.mkdir(parents=True, exist_ok=True)
    assert Folder(tmp_path, 1e6).restore(id, editor(), 2**20) is None


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another"):
        create_app(editor(), ServeSettings(state=str(tmp_path / "file" / "state")))
