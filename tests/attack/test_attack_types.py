"""Callers from Python."""

import itertools
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from dragnoise.engine import (
    Adapter,
    DragConfig,
    Editor,
    Image,
    Mask,
    PersonaliseConfig,
    PictureLimits,
    Points,
    Session,
    Store,
)
from golden_cases import MODEL
from sessions import PICTURE, POINTS, QUICK
from tally import WHOLE, Tally


class Thing:
    """A thing of no kind that is known."""


WRONG: dict[str, Any] = {
    "None": None,
    "True": True,
    "-1": -1,
    "0": 0,
    "10**400": 10**400,
    "2.5": 2.5,
    "nan": float("nan"),
    "1j": 1j,
    "text": "no such thing",
    "empty": "",
    "null": "a\0b",
    "bytes": b"\xff\xfe",
    "list": [1, [2], "3"],
    "tuple": (),
    "dict": {"a": 1},
    "set": {1},
    "type": int,
    "thing": Thing(),
    "generator": itertools.count,
}


@cache
def editor() -> Editor:
    return Editor.from_pretrained(MODEL, device="cpu", check_pictures=False)


def session() -> Session:
    return editor().open(PICTURE, config=QUICK)


def drag(**given: Any) -> Any:
    return session().drag(**{"points": POINTS, **given})


def stream(**given: Any) -> Any:
    return list(session().drag_stream(**{"points": POINTS, **given}))


def edit(**given: Any) -> Any:
    return editor().edit(**{"image": PICTURE, "points": POINTS, "config": QUICK, **given})


def opened(**given: Any) -> Any:
    return editor().open(**{"image": PICTURE, **given})


def generate(**given: Any) -> Any:
    small = {"size": (64, 64), "config": QUICK}
    return editor().generate(**{"prompt": "a ring", **small, **given})


def personalise(**given: Any) -> Any:
    few = PersonaliseConfig(steps=1, rank=1, batch=1)
    return session().personalise(**{"config": few, **given})


def loaded(**given: Any) -> Any:
    return Editor.from_pretrained(**{"source": MODEL, "device": "cpu", **given})


def made(**given: Any) -> Any:
    return Editor(editor().model, **given)


OPTIONS = ("mask", "config", "method", "progress", "timeout_s", "priority")
CALLS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "drag": (drag, ("points", "base", "record", "on_iteration", *OPTIONS)),
    "drag_stream": (stream, ("points", "base", "previews", *OPTIONS)),
    "edit": (
        edit,
        ("image", "points", "prompt", "negative_prompt", "adapter", "adapter_scale", *OPTIONS),
    ),
    "open": (opened, ("image", "prompt", "config", "adapter", "adapter_scale", "undo_bytes")),
    "generate": (
        generate,
        (
            "prompt",
            "negative_prompt",
            "size",
            "seed",
            "config",
            "progress",
            "timeout_s",
            "priority",
        ),
    ),
    "prepare": (
        lambda **given: session().prepare(**given),
        ("config", "method", "progress", "timeout_s"),
    ),
    "personalise": (personalise, ("config", "progress", "on_loss", "timeout_s", "steps", "lr")),
    "use_adapter": (
        lambda **given: session().use_adapter(**{"adapter": None, **given}),
        ("adapter", "scale"),
    ),
    "save": (lambda **given: session().save(**given), ("path",)),
    "restore": (lambda **given: editor().restore(**given), ("path",)),
    "save_learning": (lambda **given: session().save_learning(**given), ("path",)),
    "resume_learning": (lambda **given: session().resume_learning(**given), ("path",)),
    "from_pretrained": (
        loaded,
        ("source", "device", "dtype", "config", "variant", "allow_pickle"),
    ),
    "Editor": (
        made,
        (
            "backend",
            "attention",
            "poll_every",
            "observers",
            "cache",
            "exported",
            "build_missing",
            "limits",
            "check_pictures",
            "generator",
        ),
    ),
    "Image.of": (lambda image: Image.of(image), ("image",)),
    "Mask.of": (lambda mask: Mask.of(mask, PICTURE.width, PICTURE.height), ("mask",)),
    "Points.of": (lambda points: Points.of(points), ("points",)),
    "Adapter.load": (lambda path: Adapter.load(path), ("path",)),
    "Store": (Store, ("folder", "limits", "salt")),
    "PictureLimits": (PictureLimits, ("picture_pixels", "picture_side", "edit_pixels")),
    "DragConfig": (DragConfig, ("iterations", "lr", "steps")),
}
CALLED = ("progress", "on_iteration", "on_loss")
"""What these raise is the caller's own."""

TRIES = [
    (call, argument, value)
    for call, (_, arguments) in CALLS.items()
    for argument in arguments
    for value in WRONG
    if not (argument in CALLED and callable(WRONG[value]))
]


@pytest.mark.filterwarnings("ignore")
def test_wrong_types(tally: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong Python types as every argument of everything that can be called.

    Each is refused in one line by an error of ours, or taken as what it can stand for.
    """
    monkeypatch.chdir(tmp_path)
    for number, (call, argument, value) in enumerate(TRIES):
        if WHOLE or number % 20 == 3:
            work = partial(CALLS[call][0], **{argument: WRONG[value]})
            tally.refused_or(f"{call}({argument}={value})", work, lambda result: True)
