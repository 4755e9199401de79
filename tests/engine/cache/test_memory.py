"""Tiers in memory: bounded in bytes, the longest unused goes, what is held stays."""

from functools import partial
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from stored_values import key, never, same, store, tensor


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), max_size=40), st.integers(4, 12))
def test_memory_is_bounded_and_the_longest_unused_goes(
    asked: list[tuple[int, int]], room: int
) -> None:
    """Against a list. An entry's size belongs to its number; one that never fits is made anew."""
    found = store(host_bytes=4 * room)
    sizes: dict[int, int] = {}
    model: list[int] = []
    for number, size in asked:
        size = sizes.setdefault(number, size)
        made: list[int] = []

        def make(size: int = size, made: list[int] = made) -> Tensor:
            made.append(1)
            return tensor(size=size)

        found.get_or_make(key(number), make, stage="s")
        assert bool(made) == (number not in model)
        if number in model:
            model.remove(number)
        if size <= room:
            while sum(sizes[kept] for kept in model) + size > room:
                model.pop(0)
            model.append(number)
        numbers = found.to_dict()["tiers"]["host"]
        assert (numbers["bytes"], numbers["entries"]) == (
            4 * sum(sizes[kept] for kept in model),
            len(model),
        )


def test_what_is_held_is_never_evicted() -> None:
    found = store(host_bytes=3 * 32)
    with found.hold() as hold:
        for number in range(3):
            found.get_or_make(key(number), tensor, stage="s", hold=hold)
        found.get_or_make(key(3), tensor, stage="s")  # no room, so not kept
        for number in range(3):
            found.get_or_make(key(number), never, stage="s")
    found.get_or_make(key(4), tensor, stage="s")
    assert found.to_dict()["tiers"]["host"]["evictions"] == 1


def test_nothing_goes_for_what_would_not_fit_all_the_same() -> None:
    found = store(host_bytes=3 * 32)
    with found.hold() as hold:
        for number in range(2):
            found.get_or_make(key(number), tensor, stage="s", hold=hold)
        found.get_or_make(key(2), tensor, stage="s")
        found.get_or_make(key(3), lambda: tensor(size=16), stage="s")
        found.get_or_make(key(2), never, stage="s")
    assert found.to_dict()["tiers"]["host"]["evictions"] == 0


def test_a_tier_without_room_keeps_nothing() -> None:
    found = store(host_bytes=0)
    found.get_or_make(key(), lambda: "no tensor in it", stage="s")
    assert found.to_dict()["tiers"]["host"]["entries"] == 0


@pytest.mark.gpu
def test_what_falls_out_of_a_devices_memory_comes_back(tmp_path: Path) -> None:
    device = torch.device("cuda")
    found = store(tmp_path, device_bytes=2 * 4096)
    values = [
        torch.randn(1, 8, 8, 16, device=device).contiguous(memory_format=torch.channels_last)
        for _ in range(3)
    ]
    for number in range(3):
        make = partial(values.__getitem__, number)
        found.get_or_make(key(number), make, stage="s", device=device)
    assert found.to_dict()["tiers"]["host"]["entries"] == 1
    back = found.get_or_make(key(0), never, stage="s", device=device)
    assert back.device.type == "cuda"
    assert same(back.cpu(), values[0].cpu())
    assert back.stride() == values[0].stride()
