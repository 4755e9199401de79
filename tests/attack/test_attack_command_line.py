"""Command line."""

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import PIL.Image
import pytest

from command_line import ON_GOLDEN
from dragnoise.engine.cli import main
from tally import WHOLE, Tally

Choices: TypeAlias = Sequence[str | None]

NAMES: Choices = ("", ".", "/", "..", "~", "~/a.png", "https://a.example/b.png", "nowhere/a.png")
NAMES = (*NAMES, "n" * 300 + ".png", "n\0.png", "folder", "fifo", "-", "p.png/", "loop", "gone")
PICTURES: Choices = ("p.png", "p.png", "p.png", "s.jpg", "a.gif", "text.png", "empty.png", *NAMES)
OUTPUTS: Choices = (None, None, "o.png", "o.JPG", "o.webp", "o.tif", "o.doc", "p.png", "link.png")
OUTPUTS = (*OUTPUTS, "mask.png", "hard.png", "fifo.png", "é.png", "caf\udce9.png", *NAMES)
OUTPUTS = (*OUTPUTS, "n" * 251 + ".png", "n" * 252 + ".png")
ADAPTERS: Choices = (None, None, "a.safetensors", "b.SAFETENSORS", "p.png", "o.png", *NAMES)
NUMBERS: Choices = (None, None, "0", "1", "2", "-1", "1e308", "nan", "inf", "x", "9" * 400, "")
MODEL: dict[str, Choices] = {
    "--threads": (None, None, None, "1", "0", "-1", "257", "99999999999", "x"),
    "--device": (None, "cpu", "cuda:99", "mps", ""),
    "--dtype": (None, None, "float32", "bfloat16", "int8", ""),
    "--backend": (None, None, "eager", "nothing", ""),
    "--cache": (None, None, "cache", "p.png", "n" * 300),
    "--model": (None, None, None, "folder", "p.png", *NAMES),
}
DRAG: dict[str, Choices] = {
    "--drag": ("8,8:20,20", "8,8:20,20", "8,8:8,8", "1,1:999,9", "x", "", "1e999,1:2,2"),
    "--mask": (None, None, "mask.png", *PICTURES),
    "--lr": NUMBERS,
    "--lam": NUMBERS,
    "--method": (None, None, "baseline", "other"),
    "--json": (None, ""),
}
COMMANDS: Mapping[str, tuple[bool, Mapping[str, Choices]]] = {
    "edit": (
        True,
        DRAG
        | MODEL
        | {"-o": OUTPUTS, "--adapter": ADAPTERS, "--adapter-scale": NUMBERS}
        | {"--trajectory": (None, None, "t.gif", "a.gif", "t.mp4", *NAMES)},
    ),
    "generate": (
        False,
        DRAG
        | MODEL
        | {"-o": OUTPUTS, "--seed": NUMBERS}
        | {"--size": ("64x64", "64x64", "0x0", "65x64", "80000000x80000000", "x", "9" * 5000)},
    ),
    "personalise": (
        True,
        MODEL
        | {"-o": ADAPTERS, "--state": ADAPTERS, "--rank": ("1", "0", "x", "99999999999")}
        | {"--lr": NUMBERS, "--json": (None, "")},
    ),
    "cache": (False, {"ls": ("",), "--folder": (None, "cache", "p.png", *NAMES)}),
}
"""By command: whether it takes a picture, and what every option may be given."""

QUICK: Mapping[str, Sequence[str]] = {
    "edit": ("--steps", "3", "--iterations", "1"),
    "generate": ("--prompt", "x", "--steps", "3", "--iterations", "1"),
    "personalise": ("--steps", "1", "--batch", "1"),
    "cache": (),
}


OUTPUT_OPTIONS = ("-o", "--trajectory", "--state")


class Ended(NamedTuple):
    """How a run of the command line ended; error: what it raised, if it did."""

    code: object
    out: str
    err: str
    error: str


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with inputs of every sort; it is the current one."""
    home = tmp_path / "work"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("DRAGNOISE_CACHE", str(tmp_path / "kept"))
    _fill(home)
    return home


def _fill(home: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 40, 3), dtype=np.uint8)
    picture = PIL.Image.fromarray(pixels)
    for name in ("p.png", "s.jpg", "a.gif"):
        picture.save(home / name)
    PIL.Image.new("L", (40, 32), 255).save(home / "mask.png")
    (home / "text.png").write_text("no picture")
    (home / "empty.png").touch()
    (home / "folder").mkdir()
    (home / "link.png").symlink_to("p.png")
    (home / "hard.png").hardlink_to(home / "p.png")
    (home / "loop").symlink_to("loop")
    (home / "gone").symlink_to("nowhere/at/all")
    for name in ("fifo", "fifo.png"):
        os.mkfifo(home / name)


def _words(chance: random.Random) -> list[str]:
    """Return a random command: every option may be left out, most are given what is right."""
    command = chance.choice(["edit", "edit", "edit", "generate", "personalise", "cache"])
    takes_picture, options = COMMANDS[command]
    words = [command, *(["--device", "cpu"] if command != "cache" else []), *QUICK[command]]
    if command != "cache":
        words += ON_GOLDEN
    if takes_picture:
        words.append(str(chance.choice(PICTURES) if chance.random() < 0.15 else "p.png"))
    for option, choices in options.items():
        right = next((choice for choice in choices if choice is not None), "")
        given = chance.choice(choices) if chance.random() < 0.12 else None
        if option in ("--drag", "--size", "--rank", "ls") and given is None:
            given = right
        if given is not None:
            words += [option] if option in ("--json", "ls") else [option, given]
    return words


def _run(words: list[str]) -> Ended:
    out, err = io.StringIO(), io.StringIO()
    code: object = None
    error = ""
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("always")
        try:
            code = main(words)
        except SystemExit as ended:
            code = ended.code
        except BaseException as raw:  # noqa: BLE001 that is what is looked for
            error = f"{type(raw).__name__}: {str(raw)[:100]}"
    return Ended(code, out.getvalue(), err.getvalue(), error)


def _digests(home: Path, names: Sequence[str]) -> dict[str, str]:
    return {name: hashlib.sha256((home / name).read_bytes()).hexdigest() for name in names}


def _faults(words: list[str], ended: Ended, home: Path, before: Mapping[str, str]) -> list[str]:
    """Return what is wrong about how a run ended."""
    faults = []
    if ended.error:
        faults.append(f"raised {ended.error}")
    elif ended.code not in (0, 2):
        faults.append(f"exit code {ended.code}")
    said = [line for line in ended.err.splitlines() if ": warning: " not in line]
    if ended.code == 2 and len(said) != 1 and not ended.err.startswith("usage: "):
        faults.append(f"{len(said)} lines: {said[:2]}")
    if left := [path.name for path in home.rglob(".dragnoise-*")]:
        faults.append(f"left {left}")
    named = _named_outputs(words)
    kept = {name: content for name, content in before.items() if name not in named}
    if _digests(home, list(kept)) != kept:
        faults.append("a file changed that was not named as an output")
    if ended.code == 0 and words[0] != "cache":
        faults += _missing(words, ended)
    return faults


def _named_outputs(words: Sequence[str]) -> set[str]:
    """Return the files that a command may replace: its outputs, unless it reads them, too."""
    after = {place + 1 for place, word in enumerate(words) if word in OUTPUT_OPTIONS}
    outputs = {word for place, word in enumerate(words) if place in after}
    return outputs - {word for place, word in enumerate(words) if place not in after}


def _missing(words: list[str], ended: Ended) -> list[str]:
    """Return what a run that ended well says it wrote, and did not, or that is black."""
    if "--json" in words:
        written = json.loads(ended.out, parse_constant=_no_number)["written"]
    else:
        written = [line[6:] for line in ended.out.splitlines() if line.startswith("wrote ")]
    faults = [] if written else ["says of no file that it was written"]
    for name in written:
        file = Path(name)
        if not file.is_file():
            faults.append(f"{name!r} is not there")
        elif file.suffix.lower() != ".safetensors" and not np.asarray(PIL.Image.open(file)).any():
            faults.append(f"{name!r} is black")
    return faults


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _fill_again(home: Path) -> None:
    """Put everything back as it was, for the next try."""
    for path in home.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    _fill(home)


def test_random_combinations(folder: Path, tally: Tally) -> None:
    """Command line, random combinations."""
    inputs = ["p.png", "s.jpg", "a.gif", "mask.png", "text.png", "empty.png"]
    before = _digests(folder, inputs)
    codes: dict[object, int] = {}
    for chance in tally.lot(small=15, whole=1150):
        words = _words(chance)
        ended = _run(words)
        codes[ended.code] = codes.get(ended.code, 0) + 1
        faults = _faults(words, ended, folder, before)
        shown = [word if len(word) < 40 else f"{word[:20]}...({len(word)})" for word in words]
        tally.judge(not faults, f"{shown}: {faults}")
        _fill_again(folder)
    tally.remark = ", ".join(f"exit code {code}: {number}" for code, number in codes.items())


def test_names_of_files(folder: Path, tally: Tally) -> None:
    """Odd names as every file argument of every command."""
    drag = ["--drag", "8,8:20,20"]
    for name in (str(name) for name in NAMES[:: 1 if WHOLE else 5]):
        tries = [
            ["edit", *drag, "--", name],
            ["edit", "p.png", *drag, "--mask", name],
            ["edit", "p.png", *drag, "--adapter", name],
            ["edit", "p.png", *drag, "--trajectory", name],
            ["edit", "p.png", *drag, "-o", name],
            ["edit", "p.png", *drag, "--model", name],
            ["edit", "p.png", *drag, "--model", "x.safetensors", "--model-config", name],
            ["generate", "--prompt", "x", "-o", name],
            ["personalise", "--", name],
            ["personalise", "p.png", "-o", name],
            ["personalise", "p.png", "--state", name],
        ]
        for words in tries:
            ended = _run(words)
            lines = 1 if ended.err.startswith("usage: ") else ended.err.count("\n")
            well = not ended.error and ended.code == 2 and lines == 1
            tally.judge(well, f"{words[:2]} {words[-2:]}: {ended}")
