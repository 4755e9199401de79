"""The store: values are made once, whoever asks, and counted; tenants are kept apart."""

import threading
import time
from pathlib import Path

import pytest
from torch import Tensor

from stored_values import key, never, same, store, tensor, the_file


def test_numbers(tmp_path: Path) -> None:
    def slow() -> Tensor:
        time.sleep(0.02)
        return tensor()

    first = store(tmp_path)
    first.get_or_make(key(), slow, stage="invert")
    first.get_or_make(key(), never, stage="invert")
    again = store(tmp_path)
    again.get_or_make(key(), never, stage="invert")
    said = first.to_dict()["stages"]["invert"]
    assert (said["hits"], said["misses"]) == ({"host": 1}, 1)
    assert said["made_ms"] >= 20
    assert 0 != said["saved_ms"] < said["made_ms"]  # what making took, less what finding took
    assert again.to_dict()["stages"]["invert"]["hits"] == {"disk": 1}
    tier = again.to_dict()["tiers"]["disk"]
    assert (tier["entries"], tier["state"], tier["evictions"]) == (1, "on", 0)
    assert tier["bytes"] == the_file(tmp_path).stat().st_size


def test_threads_that_ask_for_the_same_make_it_once() -> None:
    found, made, gate = (
        store(host_bytes=0),
        [],
        threading.Event(),
    )  # nothing is kept: waiters get what was made all the same

    def make() -> Tensor:
        made.append(1)
        gate.wait(10)
        return tensor()

    got: list[Tensor] = []
    threads = [
        threading.Thread(target=lambda: got.append(found.get_or_make(key(), make, stage="s")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    while not made:
        time.sleep(0.001)
    assert found.get_or_make(key(1), lambda: 1, stage="s") == 1  # another key waits for nobody
    time.sleep(0.05)
    gate.set()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len({id(value) for value in got}) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_poisons_nothing(error: type[BaseException]) -> None:
    found, order, gate = store(), [], threading.Event()

    def fails() -> Tensor:
        order.append("fails")
        gate.wait(10)
        raise error("no")

    def first() -> None:
        with pytest.raises(error):
            found.get_or_make(key(), fails, stage="s")

    got: list[Tensor] = []
    failing = threading.Thread(target=first)
    failing.start()
    while not order:
        time.sleep(0.001)
    waiting = threading.Thread(
        target=lambda: got.append(found.get_or_make(key(), tensor, stage="s"))
    )
    waiting.start()
    time.sleep(0.02)
    gate.set()
    failing.join()
    waiting.join()
    assert same(got[0], tensor())
    assert found.to_dict()["stages"]["s"]["misses"] == 1


def test_salts_keep_tenants_apart(tmp_path: Path) -> None:
    store(tmp_path, salt="a").get_or_make(key(), lambda: 1, stage="s")
    assert store(tmp_path, salt="b").get_or_make(key(), lambda: 2, stage="s") == 2
    assert store(tmp_path, salt="a").get_or_make(key(), never, stage="s") == 1
    names = {path.stem for path in tmp_path.iterdir()}
    assert len(names) == 2
    assert key() not in names
