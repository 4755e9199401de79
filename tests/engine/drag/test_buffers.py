"""Places and starts that are written into the buffers of others like them."""

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from dragnoise.engine.cache.structure import storable
from dragnoise.engine.drag.buffers import Buffers
from dragnoise.engine.drag.method import Start

SHARED = object()


@dataclass(frozen=True, eq=False)
class Spot:
    shared: object
    index: int
    latent: Tensor


@storable
@dataclass(frozen=True, eq=False)
class Halves:
    whole: Tensor
    part: Tensor
    wide: Tensor
    name: str
    none: Tensor | None


def spot(seed: int, size: int = 6) -> tuple[Spot, Start[Halves]]:
    """Return tensors of every sort: a view of another, an expanded one, channels last."""
    draw = torch.Generator().manual_seed(seed)
    whole = torch.randn(2, 8, size, size, generator=draw).contiguous(
        memory_format=torch.channels_last
    )
    wide = torch.randn(3, generator=draw)[None, :, None].expand(2, 3, size)
    halves = Halves(whole, whole[:, 5:], wide, "halves", None)
    latent = torch.randn(1, 4, size, size, generator=draw)
    return Spot(SHARED, 3, latent), Start(halves, torch.randn(7, generator=draw))


def tensors(place: Spot, start: Start[Halves]) -> list[Tensor]:
    halves = start.constants
    return [place.latent, start.variable, halves.whole, halves.part, halves.wide]


def test_what_is_written_stands_in_the_same_memory() -> None:
    first, other = spot(0), spot(1)
    buffers = Buffers(*first)
    held = tensors(buffers.place, buffers.start)
    before = [each.data_ptr() for each in held]
    assert all(map(torch.equal, held, tensors(*first)))
    assert [each.stride() for each in held] == [each.stride() for each in tensors(*first)]
    assert buffers.fit(*other)
    buffers.write(*other)
    assert all(map(torch.equal, held, tensors(*other)))
    assert [each.data_ptr() for each in tensors(buffers.place, buffers.start)] == before
    assert buffers.place.shared is SHARED
    halves = buffers.start.constants
    assert halves.part.untyped_storage().data_ptr() == halves.whole.untyped_storage().data_ptr()
    assert all(map(torch.equal, tensors(*first), tensors(*spot(0)))), "written to what was given"


@pytest.mark.parametrize(
    ("place", "start"),
    [
        pytest.param({"shared": object()}, {}, id="another-model"),
        pytest.param({"index": 4}, {}, id="another-step"),
        pytest.param({"latent": torch.zeros(1, 4, 6, 7)}, {}, id="another-size"),
        pytest.param({"latent": torch.zeros(1, 4, 6, 6).half()}, {}, id="another-dtype"),
        pytest.param({"latent": torch.zeros(1, 4, 6, 6).mT}, {}, id="another-order"),
        pytest.param({}, {"name": "thirds"}, id="another-value"),
        pytest.param({}, {"none": torch.zeros(1)}, id="one-more"),
        pytest.param({}, {"part": torch.zeros(2, 3, 6, 6)}, id="not-a-view"),
    ],
)
def test_what_differs_in_more_than_numbers_does_not_fit(
    place: dict[str, object], start: dict[str, object]
) -> None:
    buffers = Buffers(*spot(0))
    there, begun = spot(1)
    constants = dataclasses.replace(begun.constants, **start)  # type: ignore[arg-type]
    changed = dataclasses.replace(there, **place)  # type: ignore[arg-type]
    assert not buffers.fit(changed, Start(constants, begun.variable))
    assert buffers.fit(there, begun)
