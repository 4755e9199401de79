"""Measure how a picture follows a pointer, and what a frame costs beside whole drags."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dragnoise.engine import PRESETS, DragConfig, Editor, Image, Mask, Points
from dragnoise.engine.cli.demo import samples
from dragnoise.engine.methods import METHODS
from dragnoise.engine.session.session import Session
from dragnoise.export.peak_memory import resident_of_process

from ..measure.edits import Case
from ..measure.models import model
from ..measure.timing import Spread, ratio
from ..report.machine import machine
from ..report.record import number
from .pointer import hand_path, read_path
from .replay import Arrivals, Replay, replay

__all__ = ["follow", "tables"]

_SAMPLE = "boat"
_WARM_UP = 60
"""Events before anything is measured: allocations, kernels and a graph are there then."""


def follow(
    name: str,
    device: str,
    dtype: str,
    *,
    size: int | None,
    preset: str,
    events: int,
    rate_hz: int,
    reach_px: int,
    rounds: int,
    counts: bool,
    recorded: Path | None,
    watch: Callable[[str], object],
) -> dict[str, Any]:
    """Return the record of a replayed pointer and of the ratios. Raises DragnoiseError."""
    path = None if recorded is None else read_path(recorded)
    editor = Editor(model(name, device, dtype), check_pictures=False)
    image, points, mask = _subject(name, size)
    places = path or hand_path(
        points.handles[0], (image.width, image.height), events, rate_hz, reach_px
    )
    watch(f"a pointer of {len(places)} events ...")
    replayed, first_ms, grown = _replayed(editor, image, points, mask, preset, places, rate_hz)
    times = _times(editor, image, points, mask, preset, rounds, watch)
    return {
        "bench": "live",
        "model": Path(name).name,
        "variant": preset,
        "size": f"{image.width}x{image.height}",
        "dtype": dtype,
        "settings": dict(PRESETS[preset].changes),
        "rate_hz": rate_hz,
        "first_frame_ms": first_ms,
        "grown_bytes_per_1000_events": grown,
        "pointer": replayed.to_dict(),
        "times_ms": {name: Spread.of(each).to_dict() for name, each in times.items()},
        "ratios": _ratios(times),
        "next_tflop": _counted(preset, watch) if counts else {},
        "machine": machine(editor.model.device),
    }


def _subject(name: str, size: int | None) -> tuple[Image, Points, Mask]:
    """Return a picture, a drag and its mask: a sample of the embedded model, or soft noise."""
    if name == "embedded" and size is None:
        sample = next(each for each in samples() if each.name == _SAMPLE)
        image = Image.of(sample.image)
        assert sample.mask is not None
        return image, sample.points, Mask.of(sample.mask, image.width, image.height)
    side = size or (128 if name == "embedded" else 512)
    inputs = Case((side, side), True, DragConfig(), DragConfig()).inputs()
    assert inputs["mask"] is not None
    return inputs["image"], inputs["points"], inputs["mask"]


def _replayed(
    editor: Editor,
    image: Image,
    points: Points,
    mask: Mask,
    preset: str,
    path: Sequence[Any],
    rate_hz: float,
) -> tuple[Replay, float, float | None]:
    """Return what came of a path, the first frame's milliseconds, and the bytes grown meanwhile."""
    begun = time.perf_counter()
    session = editor.open(image)
    arrivals = Arrivals()
    with session.live(points.handles, mask=mask, preset=preset, on_frame=arrivals.note) as live:
        live.move(points.handles[0])
        live.frame()
        first_ms = (time.perf_counter() - begun) * 1e3
        replay(live, arrivals, path[:_WARM_UP], rate_hz)
        before = resident_of_process()
        replayed = replay(live, arrivals, path, rate_hz)
        after = resident_of_process()
    grown = None if before is None or after is None else (after - before) * 1000 / len(path)
    return replayed, first_ms, grown


def _times(
    editor: Editor,
    image: Image,
    points: Points,
    mask: Mask,
    preset: str,
    rounds: int,
    watch: Callable[[str], object],
) -> dict[str, list[float]]:
    """Return milliseconds of the next drags on a prepared picture and of a frame, alternately."""
    sessions = {name: editor.open(image) for name in ("published", "fast")}
    times: dict[str, list[float]] = {name: [] for name in (*sessions, "frame")}
    for done in range(rounds + 1 if rounds else 0):  # the first prepares
        watch(f"round {done} of {rounds} ...")
        for name, each in _round(editor, sessions, image, points, mask, preset):
            if done:
                times[name].append(each)
    return {name: each for name, each in times.items() if each}


def _round(
    editor: Editor,
    sessions: Mapping[str, Session],
    image: Image,
    points: Points,
    mask: Mask,
    preset: str,
) -> Iterator[tuple[str, float]]:
    for name, session in sessions.items():
        yield name, session.drag(points, mask=mask, preset=name).timings_ms["total"]
    with editor.open(image).live(points.handles, mask=mask, preset=preset) as live:
        for target in (points.handles, points.handles, points.targets):  # prepares, captures
            live.move(target)
            frame = live.frame()
        yield "frame", frame.latency_ms


def _ratios(times: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return how many times faster the later of two is, by "slow / quick"."""
    pairs = (("published", "frame"), ("published", "fast"), ("fast", "frame"))
    return {
        f"{slow} / {quick}": ratio(times[slow], times[quick]).to_dict()
        for slow, quick in pairs
        if times
    }


def _counted(preset: str, watch: Callable[[str], object]) -> dict[str, float]:
    """Count a next drag of Stable Diffusion 1.5 at 512 x 512, with a mask, in 10^12 operations.

    DragNoise with all its iterations, `fast`, and a frame.
    """
    from ..work.work import Case as Counted
    from ..work.work import trace

    watch("counted work ...")
    found = {}
    for name, row in (("published", "published"), ("fast", "fast"), ("frame", preset)):
        chosen = PRESETS[row]
        settings: Any = METHODS[chosen.method].settings().replace(**chosen.changes)
        work = trace(Counted(method=chosen.method)).work(
            settings.iterations, active_steps=settings.active_steps, successive=True
        )
        found[name] = work.total.flops / 1e12
    return found


def tables(document: Mapping[str, Any]) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield titles and tables of a record, the first row the columns' names."""
    pointer = document["pointer"]
    title = f"live: {document['model']} {document['size']}, preset {document['variant']}"
    rows = [["", "p50", "p95", "p99"]]
    for name, what in (
        ("latency_ms", "from a move to its frame (ms)"),
        ("event_ms", "from any move to a frame as new (ms)"),
        ("move_ms", "move() held its caller (ms)"),
    ):
        marks = pointer[name]
        rows.append([what, *(number(marks[mark]) if marks else "-" for mark in rows[0][1:])])
    yield title, rows
    grown = document["grown_bytes_per_1000_events"]
    yield (
        f"{pointer['events']} events at {document['rate_hz']} a second",
        [
            ["frames a second", "stale", "settled", "first frame (ms)", "grown kB / 1000 events"],
            [
                number(pointer["frames_per_s"]),
                str(pointer["stale"]),
                "yes" if pointer["settled"] else "no",
                number(document["first_frame_ms"]),
                "-" if grown is None else number(grown / 1e3),
            ],
        ],
    )
    if document["ratios"]:
        cells = [[name, number(each["median"])] for name, each in document["ratios"].items()]
        yield "how many times faster, alternately in one run", [["", "times"], *cells]
