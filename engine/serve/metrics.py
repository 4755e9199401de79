"""A service's numbers for Prometheus; without prometheus-client nothing is counted."""

from collections.abc import Callable
from typing import Any

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The counters of one service, in a registry of its own.

    Args:
        sessions: Says how many sessions are in memory.
        waiting: Says how many drags and trainings wait or run.
    """

    def __init__(self, sessions: Callable[[], int], waiting: Callable[[], int]) -> None:
        self._registry: Any = None
        try:
            import prometheus_client as prometheus
        except ImportError:
            return
        registry = self._registry = prometheus.CollectorRegistry()

        def gauge(name: str, about: str, read: Callable[[], int]) -> None:
            prometheus.Gauge(f"dragnoise_{name}", about, registry=registry).set_function(read)

        gauge("sessions", "sessions in memory", sessions)
        gauge("waiting", "drags and trainings that wait or run", waiting)
        labels = ("method", "route", "status")
        self._requests = prometheus.Counter(
            "dragnoise_requests", "requests answered", labels, registry=registry
        )
        self._seconds = prometheus.Histogram(
            "dragnoise_request_seconds",
            "seconds to the answer's end",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._frames = prometheus.Histogram(
            "dragnoise_frame_seconds",
            "seconds from a move to its frame",
            buckets=_SECONDS,
            registry=registry,
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        if self._registry is not None:
            self._requests.labels(method, route, str(status)).inc()
            self._seconds.labels(route).observe(seconds)

    def frame(self, ms: float) -> None:
        """Count a frame that was sent."""
        if self._registry is not None:
            self._frames.observe(ms / 1e3)

    def text(self) -> bytes | None:
        """Return what Prometheus reads; None without prometheus-client."""
        if self._registry is None:
            return None
        from prometheus_client import generate_latest

        return generate_latest(self._registry)
