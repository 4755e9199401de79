"""Measure a service: its start, one client alone, and many visitors."""

import io
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch

from dragnoise.engine.cli.demo import samples
from dragnoise.engine.errors import ConfigError
from dragnoise.engine.inputs.image import Image
from dragnoise.engine.serve.client import Client
from dragnoise.engine.serve.frames import Frame

from ..report.machine import machine

__all__ = ["load"]

_READY_S = 120.0
_HANDLE = 60
_SAMPLE = "boat"
_WARM_UP = 5
_RATE_HZ = 120


@dataclass(frozen=True)
class _Service:
    """A process that serves.

    Attributes:
        url: Where.
        pid: Its process.
        page_s: Seconds from its start to the page.
        ready_s: Seconds to the model.
    """

    url: str
    pid: int
    page_s: float
    ready_s: float

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) * 1024


def load(
    *,
    users: int,
    seconds: float,
    moves: int,
    sizes: tuple[int, ...],
    events: int,
    watch: Callable[[str], None],
) -> dict[str, Any]:
    """Return the record of a service on the embedded model.

    Args:
        users: Visitors at a time.
        seconds: That they come.
        moves: Of one client alone, by size.
        sizes: Sides of its pictures in pixels.
        events: Of a pointer that does not wait for frames.
        watch: Called with what is measured next.
    """
    with _serving() as service:
        alone = {}
        for side in sizes:
            watch(f"one client, {side} pixels")
            alone[str(side)] = _alone(service, side, moves)
        watch(f"a pointer, {events} events")
        pointer = _pointer(service, events, _RATE_HZ)
        watch(f"{users} visitors, {seconds:g} s")
        visits = _visits(service.url, users, seconds)
    return {
        "bench": "service",
        "model": "embedded",
        "variant": f"{users}-sessions",
        "size": "128x128",
        "dtype": "float32",
        "users": users,
        "seconds": seconds,
        "start": {"page_s": service.page_s, "ready_s": service.ready_s},
        "alone": alone,
        "pointer": pointer,
        "visits": visits,
        "machine": machine(torch.device("cpu")),
    }


@contextmanager
def _serving() -> Iterator[_Service]:
    """Start `dragnoise serve`, and give it when it is ready."""
    command = [sys.executable, "-m", "dragnoise.engine.cli", "serve", "--port", "0"]
    since_s = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        if not said.startswith("open "):
            raise ConfigError(f"the service did not start: it said {said!r}")
        url = said.removeprefix("open ").strip().rstrip("/")
        with httpx.Client(base_url=url, trust_env=False, timeout=_READY_S) as http:
            http.get("/").raise_for_status()
            page_s = time.perf_counter() - since_s
            while http.get("/readyz").status_code != 200:
                if time.perf_counter() - since_s > _READY_S:
                    raise ConfigError(f"the service was not ready within {_READY_S:g} s")
                time.sleep(0.02)
        ready_s = time.perf_counter() - since_s
        yield _Service(url, process.pid, page_s, ready_s)
    finally:
        process.terminate()
        try:
            process.wait(40)
        finally:
            process.kill()
            process.stdout.close()


def _alone(service: _Service, side: int, moves: int) -> dict[str, float]:
    """Time frames of one client that moves when it has the last one's."""
    sample = next(sample for sample in samples() if sample.name == _SAMPLE)
    picture = Image.of(sample.image).to_pil().resize((side, side))
    content = io.BytesIO()
    picture.save(content, "PNG")
    whole: list[float] = []
    over: list[float] = []
    with Client(service.url) as client:
        session = client.open(content.getvalue(), prompt=sample.prompt)
        with session.live() as live:
            handle = (_HANDLE * side // 128, side // 3)
            live.grab(handle)
            for turn in range(_WARM_UP + moves):
                begun_s = time.perf_counter()
                live.move((handle[0] + turn % 20, handle[1]))
                frame = live.until("model", 300)
                taken_ms = (time.perf_counter() - begun_s) * 1e3
                assert isinstance(frame, Frame)
                if turn >= _WARM_UP:
                    whole.append(taken_ms)
                    over.append(taken_ms - frame.ms)
            live.cancel()
        session.delete()
    return {
        "p50": statistics.median(whole),
        "p95": _p95(whole),
        "over_p50": statistics.median(over),
        "over_p95": _p95(over),
    }


def _pointer(service: _Service, events: int, rate_hz: int) -> dict[str, float]:
    """Time frames, from their own move on, of a pointer that never waits for one.

    Memory is compared between the middle and the end: until then the allocator's arenas fill.
    """
    middle = 0
    sent: dict[int, float] = {}
    taken: list[float] = []
    with Client(service.url) as client:
        session = client.open(sample=_SAMPLE)
        with session.live() as live:
            handle = (_HANDLE, 40)
            live.grab(handle)
            live.move(handle)
            live.until("model", 300)
            done = threading.Event()

            def read() -> None:
                while not done.is_set():
                    with suppress(TimeoutError):
                        said = live.read(0.2)
                        if isinstance(said, Frame) and said.seq in sent:
                            taken.append((time.perf_counter() - sent[said.seq]) * 1e3)

            reader = threading.Thread(target=read)
            reader.start()
            begun_s = time.perf_counter()
            for event in range(events):
                if event == events // 2:
                    middle = service.resident_bytes()
                time.sleep(max(0.0, begun_s + event / rate_hz - time.perf_counter()))
                sent[live.move((handle[0] + event % 20, handle[1]))] = time.perf_counter()
            grown = service.resident_bytes() - middle
            time.sleep(1)
            done.set()
            reader.join()
            live.cancel()
        session.delete()
    return {
        "events": events,
        "rate_hz": rate_hz,
        "frames": len(taken),
        "p50": statistics.median(taken),
        "p95": _p95(taken),
        "grown_bytes_per_1000_events": grown * 1000 / (events - events // 2),
    }


def _p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def _visits(url: str, users: int, seconds: float) -> dict[str, Any]:
    """Return what visitors met, who are in a process of their own."""
    command = [sys.executable, "-m", "dragnoise.bench.service.visitors", url]
    done = subprocess.run(
        [*command, str(users), str(seconds)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ConfigError(f"the visitors did not come: {done.stderr.strip().splitlines()[-1:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
