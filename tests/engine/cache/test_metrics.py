"""A store's numbers for Prometheus."""

import sys

import pytest

from dragnoise.engine.cache.metrics import register
from dragnoise.engine.errors import ConfigError
from stored_values import key, never, store, tensor


def test_metrics() -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    found, registry = store(), CollectorRegistry()
    register(found, registry)
    found.get_or_make(key(), tensor, stage="invert")
    found.get_or_make(key(), never, stage="invert")
    text = generate_latest(registry).decode()
    assert 'dragnoise_cache_hits_total{stage="invert",tier="host"} 1.0' in text
    assert 'dragnoise_cache_misses_total{stage="invert"} 1.0' in text
    assert 'dragnoise_cache_bytes{tier="host"} 32.0' in text


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=r"pip install 'dragnoise\[metrics\]'"):
        register(store())
