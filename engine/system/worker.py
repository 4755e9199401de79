"""A worker: one thread that owns a device and does one job at a time.

Callers hand in jobs and wait; they never touch the device themselves. So an interruption (Ctrl-C)
reaches the caller, not the work, which ends at its next check; a slow reader of a stream holds
nothing; and what a caller's thread is in the middle of (inference mode, autocast) does not reach
the work. Its number of threads and its current CUDA device do.

    queue        the highest priority first, among equals the first come
    deadline     counts from the hand-in, waiting included
    cancel       a job that waits is withdrawn, one that runs ends at its next `check()`

A process that is forked has no threads but the one that forked. Where nothing was being done, the
fork's worker begins anew; in the middle of a job what it did is in no order any more, and handing
in another is a ForkError.

A job that hands in another from inside the worker's own thread (a callback that edits) runs it at
once: waiting would be for ever.

An interrupt (KeyboardInterrupt) may come between any two bytecodes of the main thread, also where
`threading.Event` and `threading.Condition`, which are Python, have taken their lock and not yet
entered its `with`: then nobody ever gets it again. So what callers share with the worker are locks
in `with` and queues, each of which is one call of C: it has happened or it has not.
"""

import contextvars
import heapq
import itertools
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeAlias, TypeVar

import torch

from ..config import seconds
from ..errors import CancelledError, DeadlineError, ForkError
from .numerics import own_numerics
from .openmp import release_openmp, release_openmp_at_forks

__all__ = ["Job", "Worker", "check_current", "wait_for"]

T = TypeVar("T")

_POLL_S = 0.1
"""Seconds between two looks at whether a job that waits for somebody else is to end."""

_DOING: "contextvars.ContextVar[Job[Any] | None]" = contextvars.ContextVar("doing", default=None)
"""The job whose work this is."""


def check_current() -> None:
    """Raise CancelledError or DeadlineError if the job whose work this is is to end."""
    job = _DOING.get()
    if job is not None:
        job.check()


def wait_for(promise: "Future[Any]") -> BaseException | None:
    """Wait for what somebody else makes, and return its error; None: it is made.

    Raises:
        CancelledError, DeadlineError: The job whose work this is is to end meanwhile.
    """
    while True:
        try:
            return promise.exception(timeout=_POLL_S)
        except TimeoutError:
            check_current()


class _Latch:
    """A gate that opens once, for all who wait: an Event that no interrupt leaves locked."""

    def __init__(self) -> None:
        self._open = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def is_open(self) -> bool:
        return self._open

    def open(self) -> None:
        self._open = True
        self._pass_on()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is open, and return whether it is."""
        try:
            if not self._open:
                self._gate.acquire(timeout=-1 if timeout_s is None else timeout_s)
        finally:
            if self._open:
                self._pass_on()
        return self._open

    def _pass_on(self) -> None:
        """Let the next one through."""
        try:
            self._gate.release()
        except RuntimeError:
            return  # somebody else has


class Job(Generic[T]):
    """A piece of work that was handed to a worker.

    Attributes:
        what: A name for messages: "the drag".
        priority: Higher runs first.
    """

    def __init__(
        self,
        work: "Callable[[Job[T]], T]",
        what: str,
        priority: int,
        timeout_s: float | None,
        since_s: float | None,
    ) -> None:
        self.what = what
        self.priority = priority
        self._work: Callable[[Job[T]], T] | None = work
        self._outer = _DOING.get()  # of a callback that edits
        self._context = contextvars.copy_context()
        self._threads = torch.get_num_threads()
        self._cuda = torch.cuda.current_device() if torch.cuda.is_initialized() else None
        self._timeout_s = seconds("timeout_s", timeout_s)
        self._since_s = time.monotonic() if since_s is None else since_s
        self._cancelled = False
        self._claimed = False
        self._started = _Latch()
        self._ended = _Latch()
        self._result: T | None = None
        self._error: BaseException | None = None
        self._tell: list[Callable[[], object]] = []
        self._state = threading.Lock()

    def cancel(self) -> None:
        """Ask the job to end: its caller gets CancelledError, unless it has ended already."""
        self._cancelled = True
        if self._claim():
            self._end(error=CancelledError(f"{self.what} was cancelled"))

    def check(self) -> None:
        """Raise CancelledError or DeadlineError if the job is to end; called by its work."""
        if self._outer is not None:
            self._outer.check()
        if self._cancelled:
            raise CancelledError(f"{self.what} was cancelled")
        if self._overdue():
            raise self._too_late()

    def wait_for_start(self) -> None:
        """Wait until the job runs or has ended. Past its deadline it is withdrawn."""
        if not self._started.wait(self._left_s()) and self._claim():
            self._end(error=self._too_late())

    def wait(self) -> None:
        """Wait until the job has ended, however it ended."""
        self._ended.wait()

    def when_ended(self, tell: Callable[[], object]) -> None:
        """Call `tell` once, when the job has ended, however it ended: at once if it has."""
        self._tell.append(tell)
        if self._ended.is_open():
            self._tell_all()

    def _tell_all(self) -> None:
        """Tell everybody, each once, whichever thread comes first: taking one off is atomic."""
        while self._tell:
            with suppress(IndexError):
                self._tell.pop()()

    def has_ended(self) -> bool:
        """Whether the job has ended, however it ended."""
        return self._ended.is_open()

    @property
    def error(self) -> BaseException | None:
        """What its work raised, until `result` has raised it; None: nothing."""
        return self._error

    def result(self) -> T:
        """Wait for the job and return what its work returned, or raise what it raised.

        A KeyboardInterrupt while waiting cancels the job and is raised when it has ended.
        """
        try:
            self.wait_for_start()
            self.wait()
        except BaseException:
            self.cancel()
            self.wait()
            raise
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # an error that is kept keeps its frames, and they keep tensors
        return self._result  # type: ignore[return-value]

    def run(self) -> None:
        """Do the work in this thread, unless the job was withdrawn."""
        if not self._claim():
            if not self._ended.is_open():  # who withdrew it was interrupted
                self._end(error=CancelledError(f"{self.what} was cancelled"))
            return
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        if self._cuda is not None:
            torch.cuda.set_device(self._cuda)  # a thread begins with the first
        try:
            self.check()
            with own_numerics():
                result = self._context.run(self._doing)
        except BaseException as error:  # noqa: BLE001 the caller is told, whatever it is
            self._end(error=error)
        else:
            self._end(result=result)

    def _doing(self) -> T:
        assert self._work is not None
        _DOING.set(self)
        return self._work(self)

    def _claim(self) -> bool:
        """Whether this caller is the first to start or withdraw the job."""
        with self._state:
            first = not self._claimed
            self._claimed = True
        self._started.open()
        return first

    def _end(self, result: T | None = None, error: BaseException | None = None) -> None:
        self._result = result
        self._error = error
        self._work = None
        self._ended.open()
        self._tell_all()

    def _left_s(self) -> float | None:
        if self._timeout_s is None:
            return None
        left_s = self._since_s + self._timeout_s - time.monotonic()
        return min(max(0.0, left_s), threading.TIMEOUT_MAX)

    def _overdue(self) -> bool:
        return self._timeout_s is not None and self._left_s() == 0

    def _too_late(self) -> DeadlineError:
        limit = f"{self._timeout_s:g} s"
        return DeadlineError(
            f"{self.what} did not end within {limit}; raise timeout_s or take fewer iterations"
        )


_Entry: TypeAlias = tuple[int, int, Job[Any]]
"""(less than that of a job of lower priority, the order in which they came, the job)."""


class Worker:
    """A thread that owns a device, made when the first job is handed in."""

    def __init__(self) -> None:
        release_openmp_at_forks()
        self._queue = _Queue()
        weakref.finalize(self, self._queue.close)

    def submit(
        self,
        work: Callable[[Job[T]], T],
        *,
        what: str,
        priority: int = 0,
        timeout_s: float | None = None,
        since_s: float | None = None,
        nested: bool = True,
    ) -> Job[T]:
        """Hand in a job and return at once.

        Args:
            work: Called with the job, whose `check` it calls between its steps.
            what: A name for messages: "the drag".
            priority: Higher runs first.
            timeout_s: Seconds within which the job must end, waiting included.
            since_s: When they began, by `time.monotonic`; None: now.
            nested: Whether one from inside the worker's own thread runs at once. False: it takes
                its turn, and nobody in that thread may wait for it.

        Raises:
            ConfigError: For a `timeout_s` that is not above 0.
            ForkError: This process was forked in the middle of a job.
        """
        job = Job(work, what, priority, timeout_s, since_s)
        if nested and self.is_current_thread():
            job.run()
        else:
            release_openmp()
            try:
                self._queue.put(job)
            except BaseException:
                job.cancel()  # nobody will wait for it
                raise
        return job

    @property
    def waiting(self) -> int:
        """Jobs that wait for the one that runs."""
        return self._queue.waiting()

    def is_current_thread(self) -> bool:
        """Whether the caller is a job of this worker: it must not wait for another."""
        return self._queue.is_current_thread()


class _Queue:
    """The jobs that wait, and the thread that takes them; it knows nothing of its worker."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._reset()

    def _reset(self) -> None:
        self._inbox: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._sorted: list[_Entry] = []  # the thread's own
        self._serving = threading.Lock()  # held by the thread that serves: a second one ends
        self._thread: threading.Thread | None = None
        self._closed = False
        self._running: Job[Any] | None = None
        self._process = os.getpid()

    def put(self, job: Job[Any]) -> None:
        if self._process != os.getpid():  # a fork has no threads but the one that forked
            if self._running is not None and not self._running.has_ended():
                raise ForkError(
                    "this process was forked in the middle of an edit, which has left the editor "
                    'in no order; start processes by "spawn" (multiprocessing.get_context)'
                )
            self._reset()
        self._inbox.put((-job.priority, next(self._numbers), job))
        if not self._serving.locked():
            threading.Thread(target=self._serve, name="dragnoise", daemon=True).start()

    def close(self) -> None:
        self._inbox.put(None)

    def waiting(self) -> int:
        return len(self._sorted) + self._inbox.qsize()

    def is_current_thread(self) -> bool:
        return self._thread is threading.current_thread()

    def _serve(self) -> None:
        if not self._serving.acquire(blocking=False):
            return
        self._thread = threading.current_thread()
        try:
            while (job := self._next()) is not None:
                self._running = job
                job.run()
                self._running = None
                del job  # it holds its result while the thread waits for the next
        finally:
            self._serving.release()

    def _next(self) -> Job[Any] | None:
        """Return the first of the jobs that wait, or None where no more will come."""
        if not self.waiting():
            release_openmp()
        while self._inbox.qsize() or not (self._sorted or self._closed):
            entry = self._inbox.get()
            if entry is None:
                self._closed = True
            else:
                heapq.heappush(self._sorted, entry)
        return heapq.heappop(self._sorted)[2] if self._sorted else None
