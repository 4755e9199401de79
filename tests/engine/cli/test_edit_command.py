"""`dragnoise edit` as a person uses it: what it writes, what it says, how it ends."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

from command_line import DRAG, QUICK, printed, run
from dragnoise.engine import Image
from golden_cases import MODEL


def test_it_writes_beside_the_image_and_prints_a_table(
    picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = picture.read_bytes()
    assert run("edit", picture, *DRAG, *QUICK) == 0
    out = capsys.readouterr()
    for word in ("invert (s)", "drag (s)", "total (s)", "face_dragged.png"):
        assert word in out.out
    assert out.err == ""
    edited = Image.of(picture.parent / "face_dragged.png")
    assert (edited.width, edited.height) == (91, 96)
    assert sorted(os.listdir(picture.parent)) == ["face.png", "face_dragged.png"]
    assert picture.read_bytes() == before


def test_json_trajectory_mask_and_settings(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = tmp_path / "mask.png"
    gif = tmp_path / "way.gif"
    out = tmp_path / "out.jpg"
    half = PIL.Image.new("L", (91, 96), 255)
    half.paste(0, (0, 80, 91, 96))
    half.save(mask)
    words = [*DRAG, "--drag", "10,9:10,9", "--mask", mask, "--prompt", "a disc"]
    words += shlex.split("--lr 0.5 --lam 0 --end-step 2 --r-m 2 --r-p 4 --json")
    assert run("edit", picture, *words, *QUICK, "-o", out, "--trajectory", gif) == 0
    document = printed(capsys)
    assert document["written"] == [str(out), str(gif)]
    assert document["iterations"] == len(document["losses"]) == 3
    assert [pair["target"] for pair in document["points"]] == [[60, 50], [10, 9]]
    config = document["settings"]["config"]
    changed = {"lr": 0.5, "lam": 0, "end_step": 2, "r_m": 2, "r_p": 4}
    assert config | changed == config
    stages = "embed encode condition invert start drag propagate decode total"
    assert set(document["timings_ms"]) == set(stages.split())
    with PIL.Image.open(gif) as animation:
        assert getattr(animation, "n_frames", 1) == 5  # the points, three previews, the result
    assert out.exists()


def test_the_same_words_give_the_same_picture(picture: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        assert run("edit", picture, *DRAG, *QUICK, "-o", tmp_path / name) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_another_method(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("edit", picture, *DRAG, *QUICK, "--method", "baseline", "--json") == 0
    assert printed(capsys)["settings"]["method"] == "baseline"


def test_pixels_are_moved_without_a_model(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grip, out = tmp_path / "grip.png", tmp_path / "out.png"
    held = PIL.Image.new("L", (91, 96), 0)
    held.paste(255, (30, 34, 50, 54))
    held.save(grip)
    words = ["--drag", "40,44:60,50", "--grip", grip, "--method", "warp", "--json", "-o", out]
    assert run("edit", picture, *words, "--device", "cpu", "--no-check") == 0
    assert set(printed(capsys)["timings_ms"]) == {"aim", "drag", "total"}
    before, after = Image.of(picture).pixels, Image.of(out).pixels
    assert (after[40:60, 50:70] == before[34:54, 30:50]).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nowhere.png --drag 1,1:2,2", "no file at 'nowhere.png'"),
        ("{image} --drag 1,1", "'1,1' is not a drag"),
        ("{image} --drag 1,1:9,9 --drag 1,1", "'1,1' is not a drag"),
        ("{image} --drag 1,1:500,2", "outside the 91x96 image"),
        ("{image} --drag 1,1:9,9 --mask {image}x", "no file at"),
        ("{image} --drag 1,1:9,9 --grip {image}", "takes no --grip; leave it out, or choose"),
        ("{image} --drag 1,1:9,9 --method fast --grip {image}x", "no file at"),
        ("{image} --drag 1,1:9,9 -o {image}", "is the input image"),
        ("{image} --drag 1,1:9,9 -o {folder}/none/out.png", "does not exist"),
        ("{image} --drag 1,1:9,9 -o {folder}/out.doc", "known kind"),
        ("{image} --drag 1,1:9,9 --trajectory {folder}/out.mp4", "use one of .gif"),
        ("{image} --drag 1,1:9,9 --strength 2", "strength must be"),
        ("{image} --drag 1,1:9,9 --end-step 11 --steps 10", "end_step must be"),
        ("{image} --drag 1,1:9,9 --model {folder}/none", "no model at"),
        ("{image} --drag 1,1:9,9 --device mps", "'mps' is not supported"),
        ("{image} --drag 1,1:9,9 --dtype int8", "'int8' is not supported"),
        ("{image} --drag 1,1:9,9 --threads 0", "--threads must be"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(
    words: str, message: str, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [word.format(image=picture, folder=picture.parent) for word in words.split()]
    assert run("edit", *filled) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert message in out.err
    assert out.err.startswith("dragnoise: error: ")
    assert out.err.count("\n") == 1
    assert os.listdir(picture.parent) == ["face.png"]


def test_an_interrupt_leaves_no_file(
    picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dragnoise.engine.pipelines.diffusion.decode", interrupted)
    assert run("edit", picture, *DRAG, *QUICK) == 130
    assert "interrupted" in capsys.readouterr().err
    assert os.listdir(picture.parent) == ["face.png"]


def test_warnings_are_one_line_on_stderr(picture: Path) -> None:
    """In a process of its own, as pytest has its own ways with warnings."""
    command = [sys.executable, "-m", "dragnoise.engine.cli", "edit", str(picture), *DRAG, *QUICK]
    command += ["--prompt", "disc " * 200, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stderr.startswith("dragnoise: warning: the prompt has")
    assert done.stderr.count("\n") == 1
    assert json.loads(done.stdout)["iterations"] == 3


def test_a_pickle_is_refused_with_an_option_that_there_is(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "sd.ckpt"
    torch.save({"a": torch.zeros(1)}, checkpoint)
    words = ["edit", picture, *DRAG, "--model", checkpoint, "--device", "cpu"]
    assert run(*words) == 2
    assert "--allow-pickle" in capsys.readouterr().err
    assert run(*words, "--allow-pickle", "--model-config", MODEL) == 2
    assert "lack conv_in.bias" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--variant", "fp16"), "no network in .* has weights of the variant 'fp16'"),
        (("--prompt", "a \udcff boat"), "prompt has a half of a character at position 2"),
    ],
)
def test_variants_and_undecodable_prompts(
    picture: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, str], said: str
) -> None:
    assert run("edit", picture, *DRAG, *QUICK, *words) == 2
    error = capsys.readouterr().err
    assert re.search(said, error)
    assert error.count("\n") == 1
