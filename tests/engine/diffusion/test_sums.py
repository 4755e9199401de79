"""A sum is added up once, by whoever reads it first."""

import torch
from torch import Tensor

from dragnoise.engine.diffusion.unet.sums import Sum, added_up


class Halving:
    """A normalisation that halves, and notes what it has added up."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor | None, ...]] = []

    def __call__(self, hidden: Tensor) -> Tensor:
        return hidden / 2

    def added(
        self, x: Tensor, change: Tensor | None, plus: Tensor | None, beside: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        self.seen.append((x, change, plus, beside))
        total = added_up(x, change, plus, beside)
        return total, self(total)


def maps() -> list[Tensor]:
    return list(torch.arange(3 * 8, dtype=torch.float32).view(3, 1, 2, 2, 2).unbind())


def test_the_first_reader_adds_up() -> None:
    x, change, others = maps()
    plus = torch.tensor([10.0, 20.0]).view(1, 2, 1, 1)
    expected = torch.cat([x + plus + change, others], dim=1)
    norm, hidden = Halving(), Sum(x, change, plus).beside(others)
    assert torch.equal(hidden.normed(norm), expected / 2)
    value = hidden.value()
    assert torch.equal(value, expected)
    assert torch.equal(hidden.normed(norm), expected / 2)
    assert hidden.value() is value
    assert len(norm.seen) == 1


def test_a_value_is_no_sum_any_more() -> None:
    x, change, others = maps()
    norm, hidden = Halving(), Sum(x, change)
    value = hidden.value()
    assert torch.equal(hidden.normed(norm), (x + change) / 2)
    assert norm.seen == []
    assert Sum(x).value() is x
    joined = hidden.beside(others).beside(x)
    assert torch.equal(joined.value(), torch.cat([value, others, x], dim=1))
