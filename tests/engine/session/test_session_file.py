"""A session as a file."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from dragnoise.engine import (
    Editor,
    Image,
    InputWarning,
    OutputError,
    SessionError,
)
from golden_cases import MODEL
from sessions import (
    FURTHER,
    OTHERS,
    PICTURE,
    POINTS,
    QUICK,
    assert_same,
    editor,
    opened,
    same,
)

RESTORED = """
import sys, json
from dragnoise.engine import Editor
stages = []
from contextlib import contextmanager
@contextmanager
def seen(stage):
    stages.append(stage)
    yield
editor = Editor.from_pretrained(sys.argv[1], device="cpu", observers=[seen])
session = editor.restore(sys.argv[2])
result = session.drag([((20, 20), (44, 37))], base="last")
result.image.save(sys.argv[3])
session.undo(); session.undo()
print(json.dumps([sorted(set(stages)), session.image.pixels[:3, :3, 0].tolist()]))
"""


def test_another_process_goes_on_without_inverting(tmp_path: Path) -> None:
    session = opened()
    first = session.drag(POINTS)
    path = session.save(tmp_path / "mine.safetensors")
    expected = session.drag(FURTHER, base="last")
    how = [sys.executable, "-c", RESTORED, str(MODEL), str(path), str(tmp_path / "out.png")]
    ended = subprocess.run(how, capture_output=True, text=True, check=True)
    assert '"drag"' in ended.stdout
    assert not {"encode", "invert"} & set(ended.stdout.replace('"', " ").replace(",", " ").split())
    assert same(Image.of(tmp_path / "out.png"), expected)
    assert str(PICTURE.pixels[:3, :3, 0].tolist()) in ended.stdout
    restored = editor().restore(path)
    assert same(restored.image, first)
    assert restored.config == QUICK


def test_a_generated_pictures_session_is_restored(tmp_path: Path) -> None:
    made = editor().generate("a face", size=(64, 64), config=QUICK.replace(guidance=2.0))
    session = editor().open(made)
    session.drag(POINTS)
    restored = editor().restore(session.save(tmp_path / "s.safetensors"))
    assert_same(restored.drag(OTHERS), session.drag(OTHERS))
    assert_same(restored.drag(POINTS, base="result"), session.drag(POINTS, base="result"))


def test_a_file_that_is_no_session(tmp_path: Path) -> None:
    session = opened()
    session.drag(POINTS)
    path = session.save(tmp_path / "s.safetensors")
    raw = path.read_bytes()
    for broken in (b"", raw[:-1], raw[:200], bytes([*raw[:-9], raw[-9] ^ 4, *raw[-8:]])):
        path.write_bytes(broken)
        with pytest.raises(SessionError, match="no session can be read from"):
            editor().restore(path)
    path.write_bytes(raw)
    with pytest.raises(SessionError, match="no session can be read from"):
        editor().restore(tmp_path / "none.safetensors")
    with pytest.raises(SessionError, match="saved with other weights, precision or backend"):
        Editor.from_pretrained(MODEL, device="cpu", backend="eager").restore(path)
    with pytest.raises(OutputError, match=r"use one of \.safetensors"):
        session.save(tmp_path / "s.bin")


def test_elsewhere_a_session_is_restored_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened()
    first = session.drag(POINTS)
    path = session.save(tmp_path / "s.safetensors")
    monkeypatch.setattr(
        "dragnoise.engine.session.file.environment_digest", lambda device: "another machine"
    )
    with pytest.warns(
        InputWarning, match="another machine, with other versions or another number of threads"
    ):
        restored = editor().restore(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(restored.image, first)
