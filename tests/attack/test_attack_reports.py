"""Files that are loaded: verdicts, plan headers."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from dragnoise.engine.backends.verdicts import Verdicts
from dragnoise.engine.errors import PlanError
from dragnoise.engine.exported import about_graph, about_plan
from tally import Tally

VERDICT = {"drag": {"eager": 2.0}, "vae": {"eager": 1.5}}
DEEP = "[" * 10**5


def test_flipped_verdicts(tmp_path: Path, tally: Tally) -> None:
    """`--backend auto` verdict: flips."""
    verdicts = Verdicts(tmp_path)
    verdicts.keep("a", VERDICT)
    path = tmp_path / "a.json"
    raw = path.read_bytes()
    assert verdicts.read("a") == VERDICT
    for chance in tally.lot(small=80, whole=500):
        flipped = bytearray(raw)
        flipped[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        tally.judge(verdicts.read("a") in (None, VERDICT), f"taken: {flipped!r}")


def test_things_that_are_no_verdicts(tmp_path: Path, tally: Tally) -> None:
    """Verdict: another's, FIFO, device, folder, nested, sparse 10 TB."""
    verdicts = Verdicts(tmp_path)
    verdicts.keep("other", VERDICT)
    (tmp_path / "other.json").rename(tmp_path / "renamed.json")
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "nested.json").write_text(DEEP)
    with (tmp_path / "sparse.json").open("wb") as sparse:
        sparse.truncate(10 * 10**12)
    for name in ("renamed", "fifo", "zero", "folder", "nested", "sparse", "nothing"):
        tally.judge(verdicts.read(name) is None, name)


def test_forged_reports_and_headers(tmp_path: Path, tally: Tally) -> None:
    """Reports and plan headers: wrong types, nested, 10 TB, FIFO."""
    extent = {"height": 64, "width": 64, "batch": 1}
    graph: dict[str, Any] = {
        "part": "down",
        "features": None,
        "model": "a",
        "adapter": "",
        "profile": {"least": extent, "usual": extent, "most": extent},
        "dtype": "fp32",
        "code": "c",
    }
    report: dict[str, Any] = {"graph": graph, "bytes": 5, "digest": "d", "check": {}}
    plan = {"graph": graph, "flavour": "f", "version": "1", "target": "t", "refittable": False}
    header: dict[str, Any] = {"built": plan, "bytes": 5, "digest": "d", "made": {}}
    changes: list[dict[str, Any]] = [
        {"bytes": "5"}, {"bytes": -1}, {"bytes": 10**400}, {"bytes": True}, {"bytes": 10**13},
        {"digest": 5}, {"digest": None}, {"digest": "d" * 1000}, {"check": 5, "made": 5},
        {"graph": 5, "built": 5}, {"graph": {}, "built": {}}, {"graph": [1], "built": [1]},
        {"graph": {**graph, "profile": 5}, "built": {**plan, "graph": 5}},
        {"graph": {**graph, "dtype": 5}, "built": {**plan, "version": {}}},
        {"graph": {**graph, "more": 5}, "built": {**plan, "more": 5}},
        {"graph": {**graph, "part": ["down"]}, "built": {**plan, "graph": {**graph, "part": 1}}},
    ]  # fmt: skip

    def write_plan(text: str, length: int | None = None) -> Path:
        raw = text.encode()
        size = (len(raw) if length is None else length).to_bytes(8, "little")
        (tmp_path / "a.plan").write_bytes(b"DRAGNOISE PLAN 1\n" + size + raw + b"12345")
        return tmp_path / "a.plan"

    def write_report(text: str) -> Path:
        (tmp_path / "a.json").write_text(text)
        return tmp_path / "a.onnx"

    about_graph(write_report(json.dumps(report)))
    about_plan(write_plan(json.dumps(header)))
    for change in changes:
        known = {name: value for name, value in change.items() if name in report}
        path = write_report(json.dumps({**report, **known}))
        if known:
            tally.refused(f"report {change}", partial(about_graph, path), PlanError)
        known = {name: value for name, value in change.items() if name in header}
        path = write_plan(json.dumps({**header, **known}))
        if known:
            tally.refused(f"plan {change}", partial(about_plan, path), PlanError)
    for text in (DEEP, "", "5", "[]", "null", "9" * 10**5):
        tally.refused(text[:9], partial(about_graph, write_report(text)), PlanError)
        tally.refused(text[:9], partial(about_plan, write_plan(text)), PlanError)
    tally.refused("length", partial(about_plan, write_plan("{}", 2**63)), PlanError)
    os.mkfifo(tmp_path / "fifo.json")
    os.mkfifo(tmp_path / "fifo.plan")
    for name in ("sparse.json", "sparse.plan"):
        with (tmp_path / name).open("wb") as sparse:
            sparse.truncate(10 * 10**12)
    for name in ("fifo", "sparse", "nothing"):
        tally.refused(name, partial(about_graph, tmp_path / f"{name}.onnx"), PlanError)
        tally.refused(name, partial(about_plan, tmp_path / f"{name}.plan"), PlanError)
