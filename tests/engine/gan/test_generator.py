"""The generator, and the same generator with its weights frozen."""

import pytest
import torch

from dragnoise.engine.errors import ConfigError, ModelError
from dragnoise.engine.gan.architecture import Architecture
from dragnoise.engine.gan.model import StylePlace
from generators import SMALL, generator_model


def drawn_rows(seed: int = 1) -> torch.Tensor:
    z = torch.randn(1, SMALL.z, generator=torch.Generator().manual_seed(seed))
    rows = generator_model().network.rows(z)
    return rows + 0.1 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed))


def test_architecture_counts_pixels_and_rows() -> None:
    assert (SMALL.size, SMALL.rows) == (32, 8)
    assert Architecture.from_dict(SMALL.to_dict()) == SMALL


@pytest.mark.parametrize("channels", [(8,), (8, 0), (8, 2.5), tuple([8] * 10)])
def test_channels_that_no_generator_has_are_refused(channels: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="channels must be 2 to 9 whole numbers"):
        Architecture(channels)


def test_a_width_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="w must be"):
        Architecture((8, 8), w=0)


def test_truncation_draws_towards_the_mean() -> None:
    network = generator_model().network
    z = torch.randn(2, SMALL.z)
    torch.testing.assert_close(network.rows(z, 0.0)[0, 3], network.mean)
    half = (network.rows(z, 0.0) + network.rows(z, 1.0)) / 2
    torch.testing.assert_close(network.rows(z, 0.5), half)


@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize("block", [1, 3, 4])
def test_the_frozen_synthesis_makes_the_same(count: int, block: int) -> None:
    model, rows = generator_model(), drawn_rows()
    picture, features = model.network.synthesis(rows)
    place = StylePlace.at(model, rows, count)
    seen, made = place.look(rows[:, :count], block)
    torch.testing.assert_close(made, picture, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen, features[block - 1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.synthesis.picture(rows), picture, atol=1e-5, rtol=1e-5)


def test_only_the_features_have_a_history() -> None:
    model, rows = generator_model(), drawn_rows()
    place = StylePlace.at(model, rows, 4)
    first = rows[:, :4].clone().requires_grad_()
    features, picture = place.look(first, 3)
    assert not picture.requires_grad
    (gradient,) = torch.autograd.grad(features.square().sum(), first)
    expected = rows.clone().requires_grad_()
    whole = model.network.synthesis(expected)[1][2].square().sum()
    (wanted,) = torch.autograd.grad(whole, expected)
    torch.testing.assert_close(gradient, wanted[:, :4], atol=1e-4, rtol=1e-4)


def test_a_place_is_known_by_its_picture() -> None:
    model = generator_model()
    one, other = (StylePlace.at(model, drawn_rows(seed), 4) for seed in (1, 2))
    assert one.digest == StylePlace.at(model, drawn_rows(1), 4).digest
    assert len({one.digest, other.digest, StylePlace.at(model, drawn_rows(1), 5).digest}) == 3
