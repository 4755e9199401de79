"""The seam: stages are watched where they run, and what was made is found again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dragnoise.engine import Store
from dragnoise.engine.run import REMEMBERED, Run, StageCache, kept

RAN: list[str] = []


@dataclass(frozen=True)
class Size:
    """Settings are known by value."""

    rows: int


@kept(on_disk=True)
def double(tensor: Tensor, times: int, *, on_step: object = None) -> Tensor:
    """Count a run."""
    RAN.append("double")
    return tensor * 2 * times


@kept(on_disk=False)
def parts(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Count a run."""
    RAN.append("parts")
    return tensor + 1, tensor - 1


def forgotten(tensor: Tensor) -> Tensor:
    """Count a run; its results are not worth keeping."""
    RAN.append("forgotten")
    return tensor


@pytest.fixture(autouse=True)
def none_ran() -> None:
    RAN.clear()


def test_without_a_memory_everything_runs() -> None:
    run, one = Run(), torch.ones(2)
    for _ in range(2):
        assert torch.equal(run(double, one, 3), one * 6)
        assert torch.equal(run.once(parts, one)[0], one + 1)
    assert RAN == ["double", "parts"] * 2


def test_what_was_made_of_the_same_things_is_found() -> None:
    run, one = Run((), StageCache()), torch.ones(2)
    assert run(double, one, 3) is run(double, one, 3, on_step=print)
    assert run(double, one, 4) is not run(double, one, 3)
    assert run(double, one.clone(), 3) is not run(double, one, 3)
    assert RAN == ["double"] * 3
    run(forgotten, one)
    run(forgotten, one)
    assert RAN[3:] == ["forgotten"] * 2


def test_settings_are_known_by_value_and_tensors_by_identity() -> None:
    run = Run((), StageCache())
    made: list[object] = []
    one, like = torch.ones(2), torch.ones(2)

    def make(size: Size, tensor: Tensor) -> object:
        made.append(size)
        return object()

    assert run.once(make, Size(3), one) is run.once(make, Size(3), one)
    assert run.once(make, Size(3), one) is not run.once(make, Size(3), like)
    assert len(made) == 2
    assert run.once(make, Size(4), one) is not run.once(make, Size(3), one)


def test_the_oldest_result_of_each_function_goes_first() -> None:
    run = Run((), StageCache())
    tensors = [torch.ones(2) * number for number in range(REMEMBERED + 1)]
    first = run(parts, tensors[0])
    for tensor in tensors:
        run(double, tensor, 1)
    run(double, tensors[0], 1)
    assert RAN.count("double") == REMEMBERED + 2
    assert run(parts, tensors[0]) is first


def test_only_what_runs_is_watched_and_not_its_consumer() -> None:
    seen: list[str] = []

    @contextmanager
    def observe(stage: str) -> Iterator[None]:
        seen.append(f"{stage} begins")
        yield
        seen.append(f"{stage} ends")

    run, one = Run([observe], StageCache()), torch.ones(2)
    run(double, one, 1)
    run(double, one, 1)
    assert seen == ["double begins", "double ends"]
    seen.clear()
    consumed = (f"consumed {number}" for number in run.watching("loop", iter([1, 2])))
    seen.extend(consumed)
    assert seen == [
        *("loop begins", "loop ends", "consumed 1"),
        *("loop begins", "loop ends", "consumed 2"),
        "loop begins",
        "loop ends",
    ]


def test_another_session_finds_it_in_the_store(tmp_path: Path) -> None:
    store, one = Store(folder=tmp_path), torch.ones(2)
    for _ in range(2):
        run = Run((), StageCache(store))
        first, _ = run(parts, run(double, one.clone(), 3))
        assert torch.equal(first, one * 6 + 1)
        run(double, first, 1)  # one of several: known by whose it is, not by its numbers
    assert RAN == ["double", "parts", "double"]
    another = Run((), StageCache(Store(folder=tmp_path)))
    another(double, one, 3)
    assert RAN == ["double", "parts", "double"]


def test_what_is_forgotten_may_be_evicted(tmp_path: Path) -> None:
    store = Store()
    cache = StageCache(store)
    run = Run((), cache)
    tensors = [torch.ones(2) * number for number in range(4)]
    for tensor in tensors:
        run(double, tensor, 1)
    assert sum(store._held.values()) == REMEMBERED
    cache.close()
    assert sum(store._held.values()) == 0


def test_what_cannot_be_told_by_its_content_is_made_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Strange:
        """A factor that nothing is known of."""

        def __rmul__(self, tensor: Tensor) -> Tensor:
            return tensor

    strange, run = Strange(), Run((), StageCache(Store()))
    for _ in range(2):
        for one in (torch.ones(1), torch.ones(2)):
            run(double, one, strange)  # type: ignore[arg-type]
    assert [record.message for record in caplog.records] == [
        f"results of double are not kept: {Strange.__qualname__} has no digest"
    ]


def test_what_a_stage_raises_is_not_remembered() -> None:
    run, calls = Run((), StageCache()), []

    def fails(tensor: Tensor) -> Tensor:
        calls.append(tensor)
        raise ValueError("no")

    one = torch.ones(1)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            run.once(fails, one)
    assert len(calls) == 2


def test_what_was_made_under_a_switch_is_not_what_is_made_without() -> None:
    for cache in (StageCache(), StageCache(Store())):
        RAN.clear()
        run, one = Run((), cache), torch.ones(2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for _ in range(2):
                run(double, one, 3)
        run(double, one, 3)
        assert RAN == ["double"] * 2
