"""A store's numbers for Prometheus."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .store import Store

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["register"]

_TIER = {
    "bytes": ("gauge", "bytes kept"),
    "entries": ("gauge", "values kept"),
    "limit": ("gauge", "most bytes that are kept"),
    "evictions": ("counter", "values that had to go"),
}


def register(store: Store, registry: "CollectorRegistry | None" = None) -> Any:
    """Let a registry collect the store's numbers.

    Args:
        store: The store.
        registry: None: Prometheus' default one.

    Returns:
        The collector, with which the registry can forget the store again.

    Raises:
        ConfigError: prometheus-client is not installed.
    """
    try:
        from prometheus_client import REGISTRY
    except ImportError as missing:
        raise ConfigError(
            "metrics need prometheus-client: pip install 'dragnoise[metrics]'"
        ) from missing
    collector = _Collector(store)
    (registry or REGISTRY).register(collector)
    return collector


class _Collector:
    """Reads the store's numbers whenever a registry is scraped."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Any]:
        """Yield every metric; called by Prometheus."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        numbers = self._store.to_dict()
        hits = CounterMetricFamily("dragnoise_cache_hits", "values found", labels=("stage", "tier"))
        misses = CounterMetricFamily("dragnoise_cache_misses", "values made", labels=("stage",))
        saved = GaugeMetricFamily(
            "dragnoise_cache_saved_seconds", "time that finding saved", labels=("stage",)
        )
        for stage, count in numbers["stages"].items():
            for tier, number in count["hits"].items():
                hits.add_metric((stage, tier), number)
            misses.add_metric((stage,), count["misses"])
            saved.add_metric((stage,), count["saved_ms"] / 1e3)
        yield from (hits, misses, saved)
        for name, (kind, what) in _TIER.items():
            family = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}[kind]
            metric = family(f"dragnoise_cache_{name}", what, labels=("tier",))
            for tier, tier_numbers in numbers["tiers"].items():
                metric.add_metric((tier,), tier_numbers[name])
            yield metric
