"""Files that are loaded: sessions and learning states."""

import copy
import math
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dragnoise.engine import CancelledError, SessionError
from dragnoise.engine.cache import seal, unseal
from sessions import FURTHER, POINTS, QUICK, editor, opened
from tally import WHOLE, Tally

Parts = tuple[dict[str, Any], list[Tensor]]
Change = Callable[[dict[str, Any], list[Tensor]], object]
"""Changes a file's header, which is JSON, and its spans of memory."""


@cache
def saved_session() -> bytes:
    """Return the bytes of a session with a drag and an adapter."""
    folder = Path(os.environ["PYTEST_SCRATCH"])
    session = opened(config=QUICK.replace(iterations=1))
    session.personalise(steps=1, rank=1)
    session.drag(POINTS)
    session.drag(POINTS, base="inverted")
    return session.save(folder / "session.safetensors").read_bytes()


@cache
def saved_learning() -> bytes:
    """Return the bytes of an interrupted training."""
    folder = Path(os.environ["PYTEST_SCRATCH"])
    session = opened()

    def stop(stage: str, done: int, of: int) -> None:
        if done == 2:
            raise CancelledError

    with pytest.raises(CancelledError):
        session.personalise(steps=5, rank=1, progress=stop)
    path = session.save_learning(folder / "learning.safetensors")
    assert path is not None
    return path.read_bytes()


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_SCRATCH", str(tmp_path))


def forged(raw: bytes, name: str, change: Change) -> bytes:
    """Return a file with a right digest over other contents."""
    header, spans = unseal(raw, name)
    header = copy.deepcopy(header)
    change(header, spans)
    return seal(name, header, spans)


def drags(path: Path) -> None:
    """Use a session that was restored, in all the ways that read what was in its file."""
    for base in ("last", "result", "source"):
        session = editor().restore(path)
        session.drag(FURTHER, base=base, config=session.config)
    session.undo()
    session.save(path.with_name("again.safetensors"))


def learns(path: Path) -> None:
    session = opened()
    session.resume_learning(path)
    session.personalise(steps=5, rank=1)


def about(name: str, value: Any) -> Change:
    """Set something that the file says of itself."""
    return lambda header, spans: header["about"].__setitem__(name, value)


def at(way: str, value: Any) -> Change:
    """Set a part of the structure: the numbers and names that lead there, with dots between."""

    def change(header: dict[str, Any], spans: list[Tensor]) -> None:
        *names, last = way.split(".")
        part: Any = header["structure"]
        for name in names:
            part = part[int(name) if isinstance(part, list) else name]
        part[int(last) if isinstance(part, list) else last] = value

    return change


def filled(way: str, value: float) -> Change:
    """Fill a tensor, in its span."""

    def change(header: dict[str, Any], spans: list[Tensor]) -> None:
        part: Any = header["structure"]
        for name in way.split("."):
            part = part[int(name) if isinstance(part, list) else name]
        number, dtype, size, stride, offset = part["tensor"]
        typed = spans[number].view(getattr(torch, dtype.removeprefix("torch.")))
        typed.as_strided(size, stride, offset).fill_(value)

    return change


def tensor(shape: list[int], dtype: str = "torch.float32", strides: list[int] | None = None) -> Any:
    return {"tensor": [0, dtype, shape, strides or [0] * len(shape), 0]}


SOURCE = "tuple.0.tuple.1.fields"
STATE = "tuple.1.tuple.2.fields"
MATRICES = "tuple.2.tuple.0.tuple"
LATENTS = f"{SOURCE}.inversions.tuple.0.tuple.1.tuple"
CONFIG = '{"kind": "DragConfig", "values": %s}'

SESSIONS: dict[str, Change] = {
    "no about": lambda header, spans: header.pop("about"),
    "about is a list": lambda header, spans: header.__setitem__("about", [1]),
    "no structure": lambda header, spans: header.pop("structure"),
    "structure is a number": lambda header, spans: header.__setitem__("structure", 5),
    "a nest": lambda header, spans: header.__setitem__("structure", nest(300)),
    "at is a text": about("at", "1"),
    "at is negative": about("at", -1),
    "at is far off": about("at", 10**30),
    "at is true": about("at", True),
    "config is no JSON": about("config", "{"),
    "config is a nest": about("config", "[" * 5000 + "]" * 5000),
    "config is a number": about("config", 5),
    "config's kind is a list": about("config", '{"kind": [], "values": {}}'),
    "config's kind is another": about("config", '{"kind": "Editor", "values": {}}'),
    "config's value is endless": about("config", CONFIG % f'{{"lr": 1{"0" * 400}}}'),
    "config's value is NaN": about("config", CONFIG % '{"lr": NaN}'),
    "config's values are a list": about("config", CONFIG % "[1]"),
    "config's name is another": about("config", CONFIG % '{"__class__": 1}'),
    "undo_bytes is negative": about("undo_bytes", -1),
    "undo_bytes is a text": about("undo_bytes", "many"),
    "scale is NaN": about("adapter_scale", math.nan),
    "scale is a text": about("adapter_scale", "1"),
    "scale is endless": about("adapter_scale", 10**400),
    "model is a list": about("model", []),
    "no environment": lambda header, spans: header["about"].pop("environment"),
    "more is said": about("more", 1),
    "no sources": at("tuple.0", {"tuple": []}),
    "no states": at("tuple.1", {"tuple": []}),
    "one value": lambda header, spans: header["structure"]["tuple"].pop(),
    "a source is a number": at("tuple.0.tuple.0", {"value": 5}),
    "a source is an adapter": at(
        "tuple.0.tuple.0",
        {"kind": "Adapter", "fields": {"matrices": {"tuple": []}, "file": {"value": ""}}},
    ),
    "an unknown kind": at("tuple.0.tuple.0.kind", "Editor"),
    "pixels are floats": at(f"{SOURCE}.pixels", tensor([64, 64, 3])),
    "pixels are flat": at(f"{SOURCE}.pixels", tensor([64], "torch.uint8")),
    "pixels are a bomb": at(f"{SOURCE}.pixels", tensor([20_000, 20_000, 3], "torch.uint8")),
    "pixels overflow": at(f"{SOURCE}.pixels", tensor([2**62, 2**62, 3], "torch.uint8")),
    "no pixel": at(f"{SOURCE}.pixels", tensor([0, 64, 3], "torch.uint8")),
    "pixels are None": at(f"{SOURCE}.pixels", {"value": None}),
    "a span that is not there": at(f"{SOURCE}.pixels.tensor.0", 99),
    "an offset that is not there": at(f"{SOURCE}.pixels.tensor.4", 10**9),
    "a dtype that is none": at(f"{SOURCE}.pixels.tensor.1", "torch.nn"),
    "prompt is a number": at(f"{SOURCE}.prompt", {"value": 5}),
    "prompt is half a letter": at(f"{SOURCE}.prompt", {"value": "\ud800"}),
    "prompt is a list": at(f"{SOURCE}.prompt", {"value": ["a"]}),
    "inversions are a text": at(f"{SOURCE}.inversions", {"value": "none"}),
    "an inversion without a key": at(f"{SOURCE}.inversions.tuple.0.tuple.0", {"value": 5}),
    "an inversion of nothing": at(f"{SOURCE}.inversions.tuple.0.tuple.1", {"tuple": []}),
    "latents are too few": lambda header, spans: header["structure"]["tuple"][0]["tuple"][1][
        "fields"
    ]["inversions"]["tuple"][0]["tuple"][1]["tuple"].pop(),
    "a latent of another shape": at(f"{LATENTS}.0.tensor.2", [1, 4, 8, 1]),
    "a latent of three axes": at(f"{LATENTS}.3", tensor([4, 8, 8])),
    "a latent of integers": at(f"{LATENTS}.3.tensor.1", "torch.int32"),
    "a latent is NaN": filled(f"{LATENTS}.3", math.nan),
    "a latent is infinite": filled(f"{LATENTS}.0", math.inf),
    "a trajectory that is none": at(f"{SOURCE}.trajectory", {"tuple": [tensor([1])]}),
    "a trajectory without settings": at(f"{SOURCE}.trajectory", {"tuple": [tensor([1, 4, 8, 8])]}),
    "seed is negative": at(f"{SOURCE}.seed", {"value": -1}),
    "a state's source is far": at(f"{STATE}.source", {"value": 7}),
    "a state's source is negative": at(f"{STATE}.source", {"value": -1}),
    "a state's source is a text": at(f"{STATE}.source", {"value": "0"}),
    "a state's picture is small": at(f"{STATE}.pixels.tensor.2", [8, 8, 3]),
    "a drag without tensors": at(f"{STATE}.tensors", {"tuple": []}),
    "tensors without a drag": at(f"{STATE}.key", {"value": ""}),
    "a drag of five tensors": lambda header, spans: header["structure"]["tuple"][1]["tuple"][2][
        "fields"
    ]["tensors"]["tuple"].append(tensor([1])),
    "an optimum of another shape": at(f"{STATE}.tensors.tuple.1", tensor([1, 8, 1, 1])),
    "optimum and start of another shape": lambda header, spans: [
        at(f"{STATE}.tensors.tuple.{n}", tensor([1, 2, 1, 1]))(header, spans) for n in (0, 1)
    ],
    "an optimum of NaN": filled(f"{STATE}.tensors.tuple.1", math.nan),
    "handles are floats": at(f"{STATE}.tensors.tuple.3.tensor.1", "torch.float64"),
    "handles are far off": filled(f"{STATE}.tensors.tuple.3", 10**12),
    "handles are a little off": filled(f"{STATE}.tensors.tuple.3", 40),
    "handles are negative": filled(f"{STATE}.tensors.tuple.3", -1),
    "handles are too few": at(f"{STATE}.tensors.tuple.3.tensor.2", [1, 1]),
    "matrices are numbers": at(MATRICES, [{"value": 1}, {"value": 2}, {"value": 3}]),
    "a layer that is not there": at(f"{MATRICES}.0", {"value": "down_blocks.9"}),
    "a layer twice": lambda header, spans: header["structure"]["tuple"][2]["tuple"].append(
        header["structure"]["tuple"][2]["tuple"][0]
    ),
    "a matrix is NaN": filled(f"{MATRICES}.1", math.nan),
    "a matrix of one axis": at(f"{MATRICES}.1.tensor.2", [4]),
    "a matrix of another rank": at(f"{MATRICES}.1.tensor.2", [4, 2]),
    "a matrix of no rank": at(f"{MATRICES}.1.tensor.2", [0, 32]),
}  # fmt: skip
"""Forged contents; each has a right digest."""


def nest(depth: int) -> Any:
    part: Any = {"value": 1}
    for _ in range(depth):
        part = {"tuple": [part]}
    return part


def test_forged_sessions(tmp_path: Path, tally: Tally) -> None:
    """Session forged."""
    path = tmp_path / "forged.safetensors"
    path.write_bytes(saved_session())
    drags(path)
    for name, change in SESSIONS.items():
        path.write_bytes(forged(saved_session(), "session", change))
        tally.refused(name, partial(drags, path), SessionError)


LEARNING: dict[str, Change] = {
    "config is a list": about("config", []),
    "config's name is another": about("config", {"secret": 1}),
    "config's rank is none": about("config", {"rank": 0}),
    "config's rate is endless": about("config", {"lr": 10**400}),
    "key is a number": about("key", 5),
    "no key": lambda header, spans: header["about"].pop("key"),
    "value is a number": lambda header, spans: header.__setitem__("structure", {"value": 5}),
    "value is an adapter": lambda header, spans: header.__setitem__(
        "structure",
        {"kind": "Adapter", "fields": {"matrices": {"tuple": []}, "file": {"value": ""}}},
    ),
    "step is a text": at("fields.step", {"value": "1"}),
    "step is negative": at("fields.step", {"value": -1}),
    "step is far off": at("fields.step", {"value": 10**30}),
    "step is past the last": at("fields.step", {"value": 6}),
    "matrices are a bomb": at("fields.matrices", tensor([10**9])),
    "matrices of another length": at("fields.matrices", tensor([10], strides=[1])),
    "matrices are None": at("fields.matrices", {"value": None}),
    "matrices are integers": at("fields.matrices.tensor.1", "torch.int32"),
    "matrices are NaN": filled("fields.matrices", math.nan),
    "moments of another length": at("fields.first", tensor([10], strides=[1])),
    "the second moment is negative": filled("fields.second", -1.0),
    "the second moment is infinite": filled("fields.second", math.inf),
    "the loss is NaN": at("fields.smoothed", {"value": math.nan}),
    "the loss is a text": at("fields.smoothed", {"value": "low"}),
    "the best is NaN": at("fields.best", {"value": math.nan}),
    "waited is negative": at("fields.waited", {"value": -5}),
}


def test_forged_learning(tmp_path: Path, tally: Tally) -> None:
    """Learning state forged."""
    path = tmp_path / "forged.safetensors"
    path.write_bytes(saved_learning())
    learns(path)
    for name, change in LEARNING.items():
        path.write_bytes(forged(saved_learning(), "learning", change))
        tally.refused(name, partial(learns, path), SessionError)


@pytest.mark.parametrize(
    ("content", "read", "small", "whole"),
    [
        (saved_session, lambda path: editor().restore(path), 20, 700),
        (saved_learning, lambda path: opened().resume_learning(path), 10, 250),
    ],
    ids=["session", "learning"],
)
def test_flipped_and_cut(
    tmp_path: Path,
    tally: Tally,
    content: Callable[[], bytes],
    read: Callable[[Path], object],
    small: int,
    whole: int,
) -> None:
    """Session and learning state: bit flips, truncations."""
    path = tmp_path / "broken.safetensors"
    raw = content()
    header = 8 + int.from_bytes(raw[:8], "little")
    for chance in tally.lot(small, whole):
        place = chance.randrange(header if chance.random() < 0.4 else len(raw))
        broken = bytearray(raw)
        if chance.random() < 0.3:
            broken = broken[:place]
        else:
            broken[place] ^= 1 << chance.randrange(8)
        path.write_bytes(broken)
        tally.refused(f"at {place}", partial(read, path), SessionError)


def test_things_that_are_no_sessions(tmp_path: Path, tally: Tally) -> None:
    """Session: FIFO, folder, pickle, text, empty, huge header, sparse 10 TB."""
    raw = saved_session()
    contents = {
        "empty": b"",
        "text": b"a session",
        "pickle": b"\x80\x04cos\nsystem\n(S'false'\ntR.",
        "a header of 2^63": (2**63).to_bytes(8, "little") + raw[8:],
        "a header of 2^64 - 1": (2**64 - 1).to_bytes(8, "little") + raw[8:],
        "a header of 100 MB": (10**8).to_bytes(8, "little") + raw[8:],
        "more than it": raw + b"more",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.write(raw)
        sparse.truncate(10 * 10**12)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in (*contents, "sparse", "fifo", "zero", ".", "nothing"):
        path = tmp_path / name
        tally.refused(name, partial(editor().restore, path), SessionError)
        tally.refused(name, partial(opened().resume_learning, path), SessionError)


def test_other_layouts(tmp_path: Path, tally: Tally) -> None:
    """Session and learning state of an older and a newer layout, of none."""
    path = tmp_path / "other.safetensors"
    for raw, name, read in (
        (saved_session(), "session", lambda: editor().restore(path)),
        (saved_learning(), "learning", lambda: opened().resume_learning(path)),
    ):
        for version in (0, 1, 99, 10**30, -1, None, "2", 2.0, [2]):

            def another(
                header: dict[str, Any], spans: list[Tensor], version: Any = version
            ) -> None:
                header["version"] = version
                header["structure"] = "whatever that release has"

            path.write_bytes(forged(raw, name, another))
            tally.refused(f"{name} {version}", read, SessionError)


def test_nothing_private_is_told(tmp_path: Path, tally: Tally) -> None:
    """A canary as prompt, in everything that is said of forged sessions."""
    path = tmp_path / "forged.safetensors"
    raw = forged(saved_session(), "session", at(f"{SOURCE}.prompt", {"value": "canary"}))
    for name, change in list(SESSIONS.items())[:: 1 if WHOLE else 6]:
        path.write_bytes(forged(raw, "session", change))
        try:
            editor().restore(path)
        except SessionError as error:
            chain = [str(error), str(error.__cause__)]
            tally.judge(not any("canary" in text for text in chain), f"{name}: {chain}")
        else:
            tally.judge(True, "")
