"""Interrupts beside working threads."""

import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch

from dragnoise.engine import Adapter, DragConfig, Editor
from dragnoise.engine.diffusion.lora.adapter import AdapterUse, projections
from dragnoise.engine.session.session import Session
from dragnoise.engine.system.worker import Worker
from golden_cases import MODEL
from tally import Tally

LONG_S = 30.0
PICTURE = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
QUICK = DragConfig(steps=4, strength=0.5, iterations=1)


@pytest.fixture(autouse=True)
def alarms_interrupt() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def interrupted(work: Callable[[], object], after_s: float) -> bool:
    """Repeat the work until a timer's interrupt ends it, and return whether one did."""
    try:
        signal.setitimer(signal.ITIMER_REAL, after_s)
        while True:
            work()
    except KeyboardInterrupt:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def threads_at(work: Callable[[int], object], count: int) -> Iterator[list[int]]:
    """Let threads repeat the work; yield how often each has done it."""
    ended = threading.Event()
    done = [0] * count

    def repeat(number: int) -> None:
        while not ended.is_set():
            work(number)
            done[number] += 1

    threads = [threading.Thread(target=repeat, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    yield done
    ended.set()
    for thread in threads:
        thread.join(LONG_S)
    assert not any(thread.is_alive() for thread in threads), "a thread waits for ever"


def goes_on(done: list[int]) -> bool:
    """Whether every thread does its work once more."""
    before = list(done)
    waited = threading.Event()
    for _ in range(int(LONG_S * 100)):
        if all(now > then for now, then in zip(done, before, strict=True)):
            return True
        waited.wait(0.01)
    return False


def adapters_of(editor: Editor) -> list[AdapterUse]:
    name, layer = min(projections(editor.model.unet.network).items())
    return [
        AdapterUse(
            Adapter(
                ((name, torch.full((1, layer.in_features), by), torch.ones(layer.out_features, 1)),)
            )
        )
        for by in (0.1, 0.2)
    ]


def test_handing_in_jobs(tally: Tally) -> None:
    """Handing in jobs in a tight loop, two threads do so too."""
    worker = Worker()

    def work(_: int = 0) -> None:
        assert worker.submit(lambda job: 3, what="a number").result() == 3

    with threads_at(work, 2) as done:
        for number, chance in enumerate(tally.lot(small=100, whole=2100)):
            held = interrupted(work, chance.uniform(0.0002, 0.005))
            if number % 20 == 19:
                tally.judge(goes_on(done), f"after {number} interrupts everyone waits")
            else:
                tally.judge(held, "not interrupted")


def test_switching_adapters(tally: Tally) -> None:
    """Entering and leaving adapters in a tight loop, three threads do so too."""
    editor = Editor.from_pretrained(MODEL, device="cpu")
    plain = {n: w.clone() for n, w in editor.model.unet.network.named_parameters()}
    uses = [*adapters_of(editor), AdapterUse()]

    def enter(number: int = 2) -> None:
        with editor.adapters.active(uses[number]):
            pass

    with threads_at(enter, 3) as done:
        for number, chance in enumerate(tally.lot(small=60, whole=2100)):
            held = interrupted(enter, chance.uniform(0.0002, 0.01))
            if number % 20 == 19:
                tally.judge(goes_on(done), f"after {number} interrupts everyone waits")
            else:
                tally.judge(held, "not interrupted")
    enter()
    now = editor.model.unet.network.named_parameters()
    assert all(torch.equal(weight, plain[name]) for name, weight in now)


def drag(session: Session) -> bytes:
    return session.drag("20,20:30,30").image.pixels.tobytes()


def stream(session: Session) -> None:
    for _ in session.drag_stream("20,20:30,30", previews=1):
        pass


def opened(editor: Editor, use: AdapterUse) -> Session:
    session = editor.open(PICTURE, config=QUICK)
    session.use_adapter(use.adapter)
    return session


def test_drags_alone(tally: Tally) -> None:
    """A drag or a stream, one thread."""
    editor = Editor.from_pretrained(MODEL, device="cpu")
    session = opened(editor, adapters_of(editor)[0])
    expected = drag(session)
    for number, chance in enumerate(tally.lot(small=4, whole=1200)):
        work = chance.choice([drag, stream])
        interrupted(partial(work, session), after(chance))
        tally.judge(drag(session) == expected, f"{number}: another picture")


def test_drags_beside_others(tally: Tally) -> None:
    """A drag or a stream, another thread edits with another adapter."""
    editor = Editor.from_pretrained(MODEL, device="cpu")
    mine, theirs = (opened(editor, use) for use in adapters_of(editor))
    expected = {session: drag(session) for session in (mine, theirs)}
    wrong: list[int] = []

    def edit(_: int) -> None:
        if drag(theirs) != expected[theirs]:
            wrong.append(1)

    with threads_at(edit, 1) as done:
        for number, chance in enumerate(tally.lot(small=3, whole=2170)):
            work = chance.choice([drag, stream])
            interrupted(partial(work, mine), after(chance))
            tally.judge(drag(mine) == expected[mine], f"{number}: another picture")
            assert goes_on(done), f"after {number} interrupts everyone waits"
    tally.judge(not wrong, f"the other thread had {len(wrong)} other pictures")


def after(chance: random.Random) -> float:
    """Return seconds: often at once, where locks are taken, else anywhere in a drag."""
    return chance.choice([chance.uniform(0.0002, 0.005), chance.uniform(0.0002, 0.5)])
