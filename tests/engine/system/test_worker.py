"""A worker does one job at a time: by priority, within deadlines, until it is told to stop."""

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from dragnoise.engine import CancelledError, ConfigError, DeadlineError, Store
from dragnoise.engine.system.worker import Job, Worker

LONG_S = 30.0


@pytest.fixture
def worker() -> Worker:
    return Worker()


class Gate:
    """A job that holds the worker until it is opened."""

    def __init__(self, worker: Worker) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.job = worker.submit(self._wait, what="the gate")
        assert self.entered.wait(LONG_S)

    def _wait(self, job: Job[None]) -> None:
        self.entered.set()
        assert self.opened.wait(LONG_S)


@pytest.fixture
def gate(worker: Worker) -> Iterator[Gate]:
    gate = Gate(worker)
    yield gate
    gate.opened.set()
    gate.job.result()


def test_work_is_done_in_one_thread_that_is_not_the_callers(worker: Worker) -> None:
    threads = {
        worker.submit(lambda job: threading.get_ident(), what="a look").result() for _ in range(5)
    }
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_priority_then_order(worker: Worker, gate: Gate) -> None:
    order: list[str] = []

    def note(name: str) -> Callable[[Job[None]], None]:
        return lambda job: order.append(name)

    jobs = [
        worker.submit(note(name), what=name, priority=priority)
        for name, priority in (("first", 0), ("low", -1), ("second", 0), ("urgent", 5))
    ]
    gate.opened.set()
    for job in jobs:
        job.result()
    assert order == ["urgent", "first", "second", "low"]


def test_a_deadline_counts_the_wait(worker: Worker, gate: Gate) -> None:
    ran: list[object] = []
    job = worker.submit(ran.append, what="the drag", timeout_s=0.05)
    with pytest.raises(DeadlineError, match=r"the drag did not end within 0\.05 s"):
        job.result()
    gate.opened.set()
    worker.submit(lambda job: None, what="the next").result()
    assert not ran


def test_a_deadline_ends_work_that_runs(worker: Worker) -> None:
    def work(job: Job[None]) -> None:
        while True:
            time.sleep(0.005)
            job.check()

    with pytest.raises(DeadlineError, match=r"within 0\.1 s"):
        worker.submit(work, what="the drag", timeout_s=0.1).result()


def test_a_deadline_may_have_begun_before(worker: Worker) -> None:
    job = worker.submit(
        lambda job: None, what="the drag", timeout_s=1.0, since_s=time.monotonic() - 2.0
    )
    with pytest.raises(DeadlineError, match="within 1 s"):
        job.result()


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan")])
def test_a_deadline_lies_ahead(worker: Worker, wrong: float) -> None:
    with pytest.raises(ConfigError, match="timeout_s must be above 0"):
        worker.submit(lambda job: None, what="the drag", timeout_s=wrong)


@pytest.mark.parametrize("never", [1e12, 1e300, float("inf")])
def test_a_deadline_may_be_far_off(worker: Worker, never: float) -> None:
    assert worker.submit(lambda job: 3, what="a number", timeout_s=never).result() == 3


def test_a_waiting_job_is_withdrawn(worker: Worker, gate: Gate) -> None:
    ran: list[object] = []
    job = worker.submit(ran.append, what="the drag")
    job.cancel()
    with pytest.raises(CancelledError, match="the drag was cancelled"):
        job.result()
    gate.opened.set()
    worker.submit(lambda job: None, what="the next").result()
    assert not ran


def test_a_running_job_ends_at_its_next_check(worker: Worker) -> None:
    running = threading.Event()

    def work(job: Job[None]) -> None:
        while True:
            running.set()
            time.sleep(0.005)
            job.check()

    job = worker.submit(work, what="the training")
    assert running.wait(LONG_S)
    job.cancel()
    with pytest.raises(CancelledError, match="the training was cancelled"):
        job.result()


def test_cancelling_what_has_ended_changes_nothing(worker: Worker) -> None:
    job = worker.submit(lambda job: 7, what="a number")
    job.wait()
    job.cancel()
    assert job.result() == 7


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_what_the_work_raises_is_raised_to_its_caller(worker: Worker, error: BaseException) -> None:
    def work(job: Job[None]) -> None:
        raise error

    with pytest.raises(type(error)):
        worker.submit(work, what="the drag").result()
    assert worker.submit(lambda job: 1, what="the next").result() == 1


def test_an_interrupted_caller_ends_its_job_first(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ctrl-C does: the caller hears of it at once, the work at its next check."""
    ended = threading.Event()

    def work(job: Job[None]) -> None:
        try:
            while True:
                time.sleep(0.005)
                job.check()
        finally:
            ended.set()

    job = worker.submit(work, what="the drag")
    waits = iter([KeyboardInterrupt()])
    wait = job.wait

    def interrupted() -> None:
        for error in waits:
            raise error
        wait()

    monkeypatch.setattr(job, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        job.result()
    assert ended.is_set()


def test_a_job_inside_a_job_runs_at_once(worker: Worker) -> None:
    def outer(job: Job[list[bool]]) -> list[bool]:
        inner = worker.submit(lambda job: worker.is_current_thread(), what="the inner")
        return [worker.is_current_thread(), inner.result()]

    assert worker.submit(outer, what="the outer").result() == [True, True]
    assert not worker.is_current_thread()


def test_a_job_that_is_not_nested_takes_its_turn(worker: Worker, gate: Gate) -> None:
    """Of jobs that hand in their own next, none starves the others."""
    order: list[str] = []
    last = threading.Event()

    def again(left: int) -> Callable[[Job[None]], None]:
        def work(job: Job[None]) -> None:
            order.append(f"own {left}")
            if left:
                worker.submit(again(left - 1), what="the next", nested=False)
            else:
                last.set()

        return work

    worker.submit(again(2), what="the first")
    worker.submit(lambda job: order.append("other"), what="other")
    gate.opened.set()
    assert last.wait(LONG_S)
    assert order == ["own 2", "other", "own 1", "own 0"]


def test_an_error_can_be_seen_before_it_is_raised(worker: Worker) -> None:
    def fail(job: Job[None]) -> None:
        raise ValueError("mine")

    job = worker.submit(fail, what="it")
    job.wait()
    seen = job.error
    assert isinstance(seen, ValueError)
    with pytest.raises(ValueError, match="mine"):
        job.result()
    assert job.error is None
    assert worker.submit(lambda job: 5, what="it").error is None


def test_the_callers_modes_do_not_reach_the_work(worker: Worker) -> None:
    def work(job: Job[tuple[bool, bool, bool]]) -> tuple[bool, bool, bool]:
        return (
            torch.is_inference_mode_enabled(),
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
        )

    with torch.inference_mode(), torch.autocast("cpu"):
        assert worker.submit(work, what="a look").result() == (False, True, False)


def test_the_callers_number_of_threads_does(worker: Worker) -> None:
    before = torch.get_num_threads()
    try:
        for count in (2, 1):
            torch.set_num_threads(count)
            job = worker.submit(lambda job: torch.get_num_threads(), what="a look")
            assert job.result() == count
    finally:
        torch.set_num_threads(before)


def test_its_thread_ends_with_it() -> None:
    worker = Worker()
    thread = worker.submit(lambda job: threading.current_thread(), what="a look").result()
    assert thread.is_alive()
    del worker
    gc.collect()
    thread.join(LONG_S)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_a_thread_of_its_own(worker: Worker) -> None:
    worker.submit(lambda job: None, what="the first").result()
    child = os.fork()
    if child == 0:
        done = worker.submit(lambda job: 5, what="the child's", timeout_s=10).result() == 5
        os._exit(0 if done else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_job_inside_a_job_ends_with_the_outer_one(worker: Worker) -> None:
    outer: list[Job[None]] = []

    def inner(job: Job[None]) -> None:
        job.check()
        outer[0].cancel()
        job.check()
        raise AssertionError("it went on")

    def work(job: Job[None]) -> None:
        outer.append(job)
        worker.submit(inner, what="the inner drag").result()

    with pytest.raises(CancelledError):
        worker.submit(work, what="the drag").result()


def test_a_job_that_waits_for_another_threads_result_can_end(worker: Worker) -> None:
    """Two editors share a store: one makes a value, the other waits for it."""
    store, entered, leave = Store(), threading.Event(), threading.Event()

    def make() -> int:
        entered.set()
        assert leave.wait(LONG_S)
        return 1

    other = Worker().submit(
        lambda job: store.get_or_make("a", make, stage="s"), what="the first drag"
    )
    assert entered.wait(LONG_S)
    for end in (Job.cancel, None):
        waits = worker.submit(
            lambda job: store.get_or_make("a", make, stage="s"),
            what="the second drag",
            timeout_s=None if end else 0.05,
        )
        waits.wait_for_start()
        if end is not None:
            end(waits)
        with pytest.raises((CancelledError, DeadlineError)):
            waits.result()
    leave.set()
    assert other.result() == 1
    assert worker.submit(lambda job: store.get_or_make("a", make, stage="s"), what="x").result()


def test_the_end_of_a_job_is_told_however_it_ended(worker: Worker, gate: Gate) -> None:
    ends: list[str] = []
    withdrawn = worker.submit(lambda job: None, what="the drag")
    withdrawn.when_ended(lambda: ends.append("withdrawn"))
    withdrawn.cancel()
    assert ends == ["withdrawn"]
    late = worker.submit(lambda job: None, what="the drag", timeout_s=1e-9)
    late.when_ended(lambda: ends.append("late"))
    late.wait_for_start()
    assert ends == ["withdrawn", "late"]
    done = worker.submit(lambda job: None, what="the drag")
    done.when_ended(lambda: ends.append("done"))
    gate.opened.set()
    worker.submit(lambda job: None, what="the next").result()  # what is told is told before
    done.when_ended(lambda: ends.append("had ended"))
    assert sorted(ends[2:]) == ["done", "had ended"]
