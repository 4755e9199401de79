"""Shards are a list, cut."""

import pytest

from dragnoise.bench.jobs import Shard
from dragnoise.engine import ConfigError

NAMES = [f"job{number}" for number in range(11)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 20])
def test_all_shards_together_are_the_list(count: int) -> None:
    taken = [Shard(index, count).take(NAMES) for index in range(1, count + 1)]
    assert sorted(name for share in taken for name in share) == sorted(NAMES)
    sizes = [len(share) for share in taken]
    assert max(sizes) - min(sizes) <= 1


def test_the_second_of_four() -> None:
    assert Shard.of("2/4") == Shard(2, 4)
    assert Shard.of("2/4").take(NAMES) == ["job1", "job5", "job9"]


@pytest.mark.parametrize("text", ["", "2", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "a/b", " 1/2"])
def test_nonsense_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"shard|write"):
        Shard.of(text)
