"""The command line as a person uses it: what it writes, what it says, how it ends."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from dragnoise.engine import Image, stages
from dragnoise.engine.cli.main import main
from golden_cases import GOLDEN, MODEL

QUICK = [
    "--model",
    str(MODEL),
    "--device",
    "cpu",
    "--steps",
    "10",
    "--strength",
    "0.3",
    "--iterations",
    "3",
]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return Image(
        np.asarray(PIL.Image.open(GOLDEN / "images" / "face_256x256.png").convert("RGB"))[
            64:160, 64:155
        ]
    ).save(tmp_path / "face.png")


def run(*words: Any) -> int:
    return main([str(word) for word in words])


def test_edit_writes_beside_the_image_and_prints_a_table(
    picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = picture.read_bytes()
    assert run("edit", picture, "--drag", "40,40:60,50", *QUICK) == 0
    out = capsys.readouterr()
    for word in ("invert (s)", "drag (s)", "total (s)", "face_dragged.png"):
        assert word in out.out
    assert out.err == ""
    made = Image.of(picture.parent / "face_dragged.png")
    assert (made.width, made.height) == (91, 96)
    assert sorted(os.listdir(picture.parent)) == ["face.png", "face_dragged.png"]
    assert picture.read_bytes() == before


def test_json_trajectory_mask_and_settings(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = tmp_path / "mask.png"
    PIL.Image.new("L", (91, 96), 255).save(mask)
    words = [
        "--mask",
        mask,
        "--prompt",
        "a disc",
        "--lr",
        "0.5",
        "--lam",
        "0",
        "--end-step",
        "2",
        "--r-m",
        "2",
        "--r-p",
        "4",
    ]
    gif, out = tmp_path / "way.gif", tmp_path / "out.jpg"
    code = run(
        "edit",
        picture,
        "--drag",
        "40,40:60,50",
        "--drag",
        "10,9:10,9",
        *QUICK,
        *words,
        "-o",
        out,
        "--trajectory",
        gif,
        "--json",
    )
    assert code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["written"] == [str(out), str(gif)]
    assert said["iterations"] == len(said["losses"]) == 3
    assert [pair["target"] for pair in said["points"]] == [[60, 50], [10, 9]]
    config = said["settings"]["config"]
    assert {name: config[name] for name in ("lr", "lam", "end_step", "r_m", "r_p")} == {
        "lr": 0.5,
        "lam": 0,
        "end_step": 2,
        "r_m": 2,
        "r_p": 4,
    }
    assert set(said["timings_ms"]) == {
        "embed",
        "encode",
        "condition",
        "invert",
        "start",
        "drag",
        "propagate",
        "decode",
        "total",
    }
    with PIL.Image.open(gif) as animation:
        assert getattr(animation, "n_frames", 1) == 4
    assert out.exists()


def test_the_same_words_give_the_same_picture(picture: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        assert run("edit", picture, "--drag", "40,40:60,50", *QUICK, "-o", tmp_path / name) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere.png", "--drag", "1,1:2,2"], "no file at 'nowhere.png'"),
        (["{image}", "--drag", "1,1"], "'1,1' is not a drag"),
        (["{image}", "--drag", "1,1:500,2"], "outside the 91x96 image"),
        (["{image}", "--drag", "1,1:9,9", "--mask", "{image}x"], "no file at"),
        (["{image}", "--drag", "1,1:9,9", "-o", "{image}"], "is the input image"),
        (["{image}", "--drag", "1,1:9,9", "-o", "{folder}/none/out.png"], "does not exist"),
        (["{image}", "--drag", "1,1:9,9", "-o", "{folder}/out.doc"], "known kind"),
        (["{image}", "--drag", "1,1:9,9", "--trajectory", "{folder}/out.mp4"], "use one of .gif"),
        (["{image}", "--drag", "1,1:9,9", "--strength", "2"], "strength must be"),
        (["{image}", "--drag", "1,1:9,9", "--end-step", "11", "--steps", "10"], "end_step must be"),
        (["{image}", "--drag", "1,1:9,9", "--model", "{folder}/none"], "no model at"),
        (["{image}", "--drag", "1,1:9,9", "--device", "mps"], "'mps' is not supported"),
        (["{image}", "--drag", "1,1:9,9", "--dtype", "int8"], "'int8' is not supported"),
        (["{image}", "--drag", "1,1:9,9", "--threads", "0"], "--threads must be"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(
    words: list[str], says: str, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [word.format(image=picture, folder=picture.parent) for word in words]
    assert run("edit", *filled) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert says in out.err
    assert out.err.startswith("dragnoise: error: ")
    assert out.err.count("\n") == 1
    assert os.listdir(picture.parent) == ["face.png"]


def test_an_interrupt_leaves_no_file(
    picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dragnoise.engine.stages.decode", interrupted)
    assert run("edit", picture, "--drag", "40,40:60,50", *QUICK) == 130
    assert "interrupted" in capsys.readouterr().err
    assert os.listdir(picture.parent) == ["face.png"]


def test_warnings_are_one_line_on_stderr(
    picture: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    """In a process of its own, as pytest has its own ways with warnings."""
    words = [
        sys.executable,
        "-m",
        "dragnoise.engine.cli",
        "edit",
        str(picture),
        "--drag",
        "40,40:60,50",
        *QUICK,
        "--prompt",
        "disc " * 200,
        "--json",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
    assert done.stderr.startswith("dragnoise: warning: the prompt has")
    assert done.stderr.count("\n") == 1
    assert json.loads(done.stdout)["iterations"] == 3


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", "--device", "cpu", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["native"] == "built"
    assert found["torch"] != "-"
    assert found["model parameters"] > 1e6
    assert run("info", "--device", "cpu", "--model", MODEL) == 0
    assert "model parameters" in capsys.readouterr().out


def test_help_does_not_load_pytorch() -> None:
    """The first word of help comes at once."""
    code = "import sys, dragnoise.engine.cli as c\ntry: c.main(['edit', '--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "False"
    assert "--drag X,Y:X,Y" in done.stdout


def test_demo_writes_a_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two of the shipped samples, with the embedded model and its own settings."""
    from dragnoise.engine.cli import demo

    shipped = demo.samples()
    assert len(shipped) >= 3
    monkeypatch.setattr(demo, "samples", lambda: shipped[:2])
    assert run("demo", "-o", tmp_path / "sheets", "--device", "cpu", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    names = [sample.name for sample in shipped[:2]]
    assert list(said["edits"]) == names
    assert sorted(os.listdir(tmp_path / "sheets")) == sorted(
        [f"{name}_{which}.png" for name in names for which in ("before", "after")] + ["sheet.png"]
    )
    for name in names:
        before, after = (
            Image.of(tmp_path / "sheets" / f"{name}_{which}.png").pixels.astype(int)
            for which in ("before", "after")
        )
        assert np.abs(after - before).max() > 64


def test_demo_refuses_a_file_as_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run("demo", "-o", tmp_path / "file") == 2
    assert "cannot be made" in capsys.readouterr().err


def test_cache_and_adapter_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image is learned, dragged with what was learned, and dragged again without inverting it; then the cache is looked at and emptied."""
    picture, folder, adapter = (
        tmp_path / "a.png",
        tmp_path / "cache",
        tmp_path / "a_adapter.safetensors",
    )
    PIL.Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    ).save(picture)
    common = ["--model", str(MODEL), "--cache", str(folder), "--json", "--device", "cpu"]
    learn = ["personalise", str(picture), "--steps", "2", "--rank", "2", "--batch", "1", *common]
    assert main(learn) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["written"] == [str(adapter)]
    assert (len(said["losses"]), said["rank"], said["settings"]["lr"]) == (2, 2, 5e-4)
    drag = [
        "edit",
        str(picture),
        "--drag",
        "20,20:40,40",
        "--steps",
        "10",
        "--strength",
        "0.2",
        "--iterations",
        "1",
    ]
    runs = []
    for _ in range(2):
        assert main([*drag, "--adapter", str(adapter), *common]) == 0
        runs.append(json.loads(capsys.readouterr().out))
    assert "invert" in runs[0]["timings_ms"]
    assert "invert" not in runs[1]["timings_ms"]
    assert runs[1]["cache"]["stages"]["invert"]["hits"] == {"disk": 1}
    assert runs[0]["settings"]["adapter"][1] == 1.0
    assert main(["cache", "ls", "--folder", str(folder)]) == 0
    listed = capsys.readouterr().out
    for stage in ("embed", "encode", "invert", "personalise"):
        assert f"  {stage} " in listed
    assert main(["cache", "verify", "--folder", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "folder": str(folder),
        "sound": 4,
        "set_aside": [],
    }
    broken = next(folder.glob("*.safetensors"))
    broken.write_bytes(broken.read_bytes()[:-1])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["cache", "verify", "--folder", str(folder)]) == 1
    said_so = capsys.readouterr()
    assert "3 sound, 1 set aside" in said_so.out
    assert "its digest does not match" in said_so.err
    assert main(["cache", "clear", "--folder", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == 4
    assert list(folder.iterdir()) == []


def test_an_interrupted_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, state = tmp_path / "a.png", tmp_path / "state.safetensors"
    PIL.Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    ).save(picture)
    learn = [
        "personalise",
        str(picture),
        "--steps",
        "4",
        "--rank",
        "2",
        "--batch",
        "1",
        "--model",
        str(MODEL),
    ]
    learn += ["--json", "--state", str(state), "--device", "cpu"]
    turn, turns = stages.Training.turn, []

    def interrupted(training: stages.Training) -> float:
        turns.append(training.step)
        if len(turns) == 3:
            raise KeyboardInterrupt
        return turn(training)

    whole = [*learn[:-4], "--json", "-o", str(tmp_path / "whole.safetensors"), "--device", "cpu"]
    assert main(whole) == 0
    capsys.readouterr()
    monkeypatch.setattr(stages.Training, "turn", interrupted)
    assert main(learn) == 2
    assert f"interrupted; go on with --state {str(state)!r}" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(learn) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["losses"]) == 2
    assert not state.exists()
    written = Path(said["written"][0])
    assert written.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
