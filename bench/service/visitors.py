"""`python -m dragnoise.bench.service.visitors URL USERS SECONDS`: visitors of a service, by locust.

Each opens a sample, and then again and again pulls it by a pointer and lets go, drags by REST,
takes a step back, looks at the picture. In a process of its own, since locust makes every socket of
it cooperative. The last line of stdout is one JSON document: milliseconds and answers by kind.
"""

# isort: off
import locust  # first: it makes sockets cooperative
from locust.env import Environment
# isort: on

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import gevent

from dragnoise.engine.serve.client import Client, RemoteSession, ServiceError
from dragnoise.engine.serve.frames import Frame

__all__ = ["Visitor", "visit"]

_SAMPLE = "boat"
_HANDLE = (60, 40)
_MOVES = 40
_MOVES_S = 30.0
"""A pointer that is pulled: so many moves, so many a second."""

_BUSY = ("busy",)


class Visitor(locust.User):
    """Somebody who drags, and rests a moment between two drags."""

    wait_time = locust.between(0.2, 1.0)
    refused: ClassVar[Counter[str]] = Counter()

    def on_start(self) -> None:
        """Open a session; where there is no room, later."""
        self.client = Client(str(self.host))
        self.session: RemoteSession | None = None
        self.random = random.Random(0)

    def on_stop(self) -> None:
        """Delete the session."""
        if self.session is not None:
            with self._timed("delete"):
                self.session.delete()
        self.client.close()

    @locust.task(3)
    def pull(self) -> None:
        """Pull by a pointer, let go, and wait for the refined picture."""
        session = self._opened()
        if session is None:
            return
        with self._timed("pull and refine"), session.live() as live:
            live.grab(_HANDLE)
            sent: dict[int, float] = {}
            for step in range(_MOVES):
                sent[live.move((_HANDLE[0] + step // 2, _HANDLE[1]))] = time.perf_counter()
                self._read(live, sent, 1 / _MOVES_S)
            live.release()
            live.until("result", 300)

    @locust.task(1)
    def drag(self) -> None:
        """Drag by REST, by the preset fast."""
        session = self._opened()
        if session is not None:
            with self._timed("drag"):
                session.drag([(*_HANDLE, _HANDLE[0] + self.random.randrange(5, 25), _HANDLE[1])])

    @locust.task(1)
    def step_back(self) -> None:
        """Undo, where there is something to."""
        session = self._opened()
        if session is not None and session.state().can_undo:
            with self._timed("undo"):
                session.undo()

    @locust.task(1)
    def look(self) -> None:
        """Fetch the picture."""
        session = self._opened()
        if session is not None:
            with self._timed("picture"):
                session.image()

    def _opened(self) -> RemoteSession | None:
        if self.session is None:
            with self._timed("open"):
                self.session = self.client.open(sample=_SAMPLE)
        return self.session

    def _read(self, live: Any, sent: dict[int, float], within_s: float) -> None:
        """Note the frames that come within a time."""
        until_s = time.perf_counter() + within_s
        while (left_s := until_s - time.perf_counter()) > 0:
            try:
                said = live.read(left_s)
            except TimeoutError:
                return
            if isinstance(said, Frame) and said.kind == "model":
                self._note("model frame", (time.perf_counter() - sent[said.seq]) * 1e3)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Note what is done, and how it ended; want of room is an answer, no failure."""
        begun_s = time.perf_counter()
        error: Exception | None = None
        try:
            yield
        except ServiceError as refused:
            if refused.status == 429 or refused.code in _BUSY:
                self.refused[name] += 1
                gevent.sleep(min(refused.retry_s or 1, 5))
                return
            error = refused
        except Exception as failed:  # noqa: BLE001 whatever it is, it is counted
            error = failed
        self._note(name, (time.perf_counter() - begun_s) * 1e3, error)

    def _note(self, name: str, ms: float, error: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type="drag", name=name, response_time=ms, response_length=0, exception=error
        )


def visit(url: str, users: int, seconds: float) -> dict[str, Any]:
    """Return what so many visitors met in a time: by kind, and every error's text."""
    environment = Environment(user_classes=[Visitor], host=url, stop_timeout=120)
    runner = environment.create_local_runner()
    runner.start(users, spawn_rate=max(1.0, users / 4))
    gevent.sleep(seconds)
    runner.stop()
    kinds = {
        entry.name: {
            "count": entry.num_requests,
            "failed": entry.num_failures,
            "p50_ms": entry.get_response_time_percentile(0.5),
            "p95_ms": entry.get_response_time_percentile(0.95),
        }
        for entry in environment.stats.entries.values()
    }
    errors = [f"{error.name}: {error.error}" for error in environment.stats.errors.values()]
    return {"kinds": kinds, "refused": dict(Visitor.refused), "errors": errors}


if __name__ == "__main__":
    print(json.dumps(visit(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
