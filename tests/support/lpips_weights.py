"""Random weights for LPIPS, by its package's names."""

import torch
from torch import Tensor

from dragnoise.bench.fidelity.lpips import LAYERS


def random_weights() -> dict[str, Tensor]:
    """Return the same weights every time."""
    random = torch.Generator().manual_seed(0)
    weights = {}
    for number, layer in enumerate(LAYERS):
        inputs = layer.shape[1] * layer.shape[2] * layer.shape[3]
        kernel = torch.randn(layer.shape, generator=random)
        weights[f"{layer.name}.weight"] = kernel * (2 / inputs) ** 0.5
        weights[f"{layer.name}.bias"] = torch.randn(layer.shape[0], generator=random) * 0.1
        shares = torch.rand((1, layer.shape[0], 1, 1), generator=random)
        weights[f"lin{number}.model.1.weight"] = shares
    return weights
