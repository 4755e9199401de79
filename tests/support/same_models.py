"""When two loaded models are the same one."""

import torch

from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.stages import decode, embed, encode
from tolerances import assert_close


def assert_same_model(model: Model, other: Model, prompt: str) -> None:
    """Fail unless both have the same weights bit for bit, and so the same outputs.

    Outputs are compared within a tolerance: weights that are read from another file may be aligned
    otherwise in memory, and the order in which PyTorch's matrix products add depends on that (on
    AMD's processors an output of size 2 differs by up to 6e-7).
    """
    assert model.digest == other.digest
    networks = (model.unet.network, model.vae, model.text_encoder)
    for network, wanted in zip(
        networks, (other.unet.network, other.vae, other.text_encoder), strict=True
    ):
        weights = network.state_dict()
        others = wanted.state_dict()
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[name], others[name]) for name in weights)
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(1, 4, 8, 12, generator=generator)
    pixels = torch.rand(1, 3, 64, 96, generator=generator) * 2 - 1
    text = embed(model, prompt)
    assert_close(text, embed(other, prompt))
    noise = model.unet(latent, model.unet.step(681, text))
    assert_close(noise, other.unet(latent, other.unet.step(681, text)))
    assert_close(encode(model, pixels), encode(other, pixels))
    assert_close(decode(model, latent), decode(other, latent))
