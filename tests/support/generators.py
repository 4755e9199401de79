"""A small generator with random weights, and editors on it."""

from functools import cache

import torch

from dragnoise.engine import Editor
from dragnoise.engine.config import DragGANConfig
from dragnoise.engine.gan.architecture import Architecture
from dragnoise.engine.gan.generator import Generator
from dragnoise.engine.gan.model import GeneratorModel

SMALL = Architecture((8, 8, 8, 6), z=6, w=10, mapping=2, noise=True)
"""32 x 32 pixels, eight style vectors."""

QUICK = DragGANConfig(iterations=12, lr=0.05, rows=4, block=3, inversion_steps=30)


@cache
def generator_model() -> GeneratorModel:
    torch.manual_seed(5)
    network = Generator(SMALL)
    with torch.no_grad():
        network.mean.copy_(network.mapping(torch.randn(500, SMALL.z)).mean(0))
        for name, value in network.named_parameters():
            if name.endswith("strength"):
                value.fill_(0.1)
    network.eval().requires_grad_(False)
    return GeneratorModel("small", network, torch.device("cpu"), QUICK)


@cache
def style_editor() -> Editor:
    return Editor.from_pretrained(generator=generator_model())
