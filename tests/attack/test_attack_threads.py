"""Concurrency."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragnoise.engine import CancelledError, Editor, EditResult, Image, Limits, Session, Store
from dragnoise.engine.errors import SessionError
from kept_edit import same_bits
from sessions import OTHERS, PICTURE, POINTS, QUICK, editor
from tally import WHOLE, Tally

CONFIG = QUICK.replace(iterations=2)
THREADS = 8


@cache
def _picture(number: int) -> Image:
    """Return one of eight pictures that differ."""
    return Image(np.roll(PICTURE.pixels, 5 * number, axis=1))


@cache
def _cold(number: int = 0, others: bool = False) -> EditResult:
    """Return an edit that nothing disturbs."""
    points = OTHERS if others else POINTS
    return editor().edit(_picture(number), points, prompt="a face", config=CONFIG)


def _opened(one: Editor | None = None, number: int = 0) -> Session:
    return (one or editor()).open(_picture(number), prompt="a face", config=CONFIG)


@pytest.mark.parametrize("stored", [False, True], ids=["alone", "evicting"])
def test_many_threads_one_editor(stored: bool, tally: Tally, tmp_path: Path) -> None:
    """8 threads, one editor, 8 pictures; without a store, and with one that evicts."""
    limits = Limits(device_bytes=60_000, host_bytes=60_000, disk_bytes=200_000)
    store = Store(limits, folder=tmp_path) if stored else None
    one = Editor(editor().model, cache=store)
    tries = 80 if WHOLE else 3 if stored else 1
    with ThreadPoolExecutor(THREADS) as pool:
        results = pool.map(lambda number: _opened(one, number % THREADS).drag(POINTS), range(tries))
        for number, result in enumerate(results):
            tally.judge(same_bits(result, _cold(number % THREADS)), f"picture {number % THREADS}")
    if store is not None:
        size = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
        tally.remark = f"{size} bytes on disk"
        assert size <= limits.disk_bytes
        assert sum(store._held.values()) == 0


def test_many_threads_one_session(tally: Tally) -> None:
    """8 threads on one session, undo and redo from a ninth."""
    session = _opened()
    ended = threading.Event()

    def restless() -> None:
        while not ended.wait(0.01):
            for move in (session.undo, session.redo):
                with suppress(SessionError):  # there is nothing to undo
                    move()

    ninth = threading.Thread(target=restless)
    ninth.start()
    with ThreadPoolExecutor(THREADS) as pool:
        tries = range(48 if WHOLE else 4)
        results = list(pool.map(lambda _: session.drag(POINTS, base="source"), tries))
    ended.set()
    ninth.join()
    for result in results:
        tally.judge(same_bits(result, _cold()), "other bits")


def test_cancelled_at_random_moments(tally: Tally) -> None:
    """Cancelled at random moments; the next drag is right."""
    session = _opened()
    cancelled = 0
    for chance in tally.lot(2, 200):
        timer = threading.Timer(chance.random() * 0.3, session.cancel)
        timer.start()
        try:
            session.drag(POINTS, base="source")
        except CancelledError:
            cancelled += 1
        timer.join()
        if WHOLE and chance.random() < 0.75:
            continue
        tally.judge(same_bits(session.drag(POINTS, base="source"), _cold()), "other bits")
    tally.remark = f"{cancelled} cancelled"


RAISED: tuple[type[BaseException], ...] = (
    *(ValueError, KeyError, OSError, MemoryError, RuntimeError, GeneratorExit),
    *(KeyboardInterrupt, SystemExit),
)


def test_callbacks_that_raise(tally: Tally) -> None:
    """Exceptions of 8 kinds from progress, on_iteration, the stream's consumer."""

    def progress(session: Session, fail: Callable[..., None]) -> None:
        session.drag(POINTS, base="source", progress=fail)

    def on_iteration(session: Session, fail: Callable[..., None]) -> None:
        session.drag(POINTS, base="source", on_iteration=fail)

    def consumer(session: Session, fail: Callable[..., None]) -> None:
        for event in session.drag_stream(POINTS, base="source"):
            fail(event)

    session = _opened()
    for chance in tally.lot(2, 200):
        kind = chance.choice(RAISED)
        way = chance.choice((progress, on_iteration, consumer))
        reached: list[object] = []

        def fail(*said: Any, kind: type[BaseException] = kind, at: list[object] = reached) -> None:
            at.append(said)
            raise kind("of a callback")

        with suppress(kind):
            way(session, fail)
            tally.judge(False, f"{kind.__name__} from {way.__name__} is lost")
        assert reached
        if not WHOLE or chance.random() < 0.25:
            tally.judge(same_bits(session.drag(POINTS, base="source"), _cold()), way.__name__)


def test_observers_that_raise(tally: Tally) -> None:
    """Observers that raise."""
    failing: list[str] = []

    @contextmanager
    def observe(stage: str) -> Iterator[None]:
        if stage in failing:
            raise OSError("of an observer")
        yield

    session = _opened(Editor(editor().model, observers=(observe,)))
    for chance in tally.lot(1, 40):
        failing[:] = [chance.choice(("encode", "invert", "drag", "propagate", "decode"))]
        with suppress(OSError):
            session.drag(POINTS, base="source")
        failing.clear()
        tally.judge(same_bits(session.drag(POINTS, base="source"), _cold()), "other bits")


def test_two_sessions_stream(tally: Tally) -> None:
    """Two sessions streaming: interleaved in one thread, and in two threads."""

    def last(session: Session, points: Any) -> EditResult:
        *_, event = session.drag_stream(points)
        assert event.result is not None
        return event.result

    for _ in tally.lot(1, 10):
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(last, _opened(), points) for points in (POINTS, OTHERS)]
        for others, future in enumerate(futures):
            tally.judge(same_bits(future.result(), _cold(others=bool(others))), "other bits")
    streams = [_opened().drag_stream(POINTS), _opened().drag_stream(OTHERS)]
    results: list[EditResult | None] = [None, None]
    while streams_left := [number for number in (0, 1) if results[number] is None]:
        for number in streams_left:
            results[number] = next(streams[number]).result
    for others, result in enumerate(results):
        assert result is not None
        tally.judge(same_bits(result, _cold(others=bool(others))), "interleaved: other bits")
