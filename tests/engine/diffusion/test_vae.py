"""A VAE whose norms and activations are fused gives what diffusers' own gives."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dragnoise.engine.diffusion.load import load
from dragnoise.engine.diffusion.vae import Autoencoder, fused_vae
from tolerances import assert_close

MODEL = Path(__file__).parents[2] / "golden" / "model"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_fused_vae_gives_the_same(layout: torch.memory_format) -> None:
    vae = load(MODEL, device="cpu").vae
    fused = fused_vae(vae)
    assert not any(isinstance(module, nn.SiLU) for module in fused.modules())
    assert any(isinstance(module, nn.SiLU) for module in vae.modules())
    of_plain, of_fused = (dict(network.named_parameters()) for network in (vae, fused))
    assert {name: weight.data_ptr() for name, weight in of_plain.items()} == {
        name: weight.data_ptr() for name, weight in of_fused.items()
    }
    torch.manual_seed(0)
    pixels = (torch.rand(1, 3, 64, 48) * 2 - 1).contiguous(memory_format=layout)
    plain, mine = Autoencoder(vae), Autoencoder(fused)
    with torch.no_grad():
        latent = plain.encode(pixels)
        assert_close(mine.encode(pixels), latent)
        decoded = plain.decode(latent)
        assert_close(mine.decode(latent), decoded)
    assert float(decoded.std()) > 0.01
