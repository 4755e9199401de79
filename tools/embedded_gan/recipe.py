"""Say what is trained and how: everything that decides the result, in one place."""

from dataclasses import dataclass

from dragnoise.engine.gan.architecture import Architecture


@dataclass(frozen=True)
class Recipe:
    """Hold what decides the result of a training.

    Attributes:
        channels: Channels at each resolution, from 4 x 4 on.
        z: Width of the random vector.
        w: Width of a style vector.
        mapping: Layers of the mapping network.
        batch: Pictures an update, a multiple of 8.
        rate: Adam's learning rate, before it is lowered for the lazy terms.
        gamma: Weight of the gradient penalty R1.
        penalty_every: Updates of the discriminator from one penalty to the next.
        smoothing: Weight of the path-length term.
        smoothing_every: Updates of the generator from one path-length term to the next.
        mixing: Share of the pictures that are made of two style vectors, 0..1.
        halving_pictures: Pictures after which the running average has forgotten half.
    """

    channels: tuple[int, ...] = (256, 256, 256, 128, 64, 32)
    z: int = 128
    w: int = 128
    mapping: int = 4
    batch: int = 64
    rate: float = 2.5e-3
    gamma: float = 1.0
    penalty_every: int = 16
    smoothing: float = 1.0
    smoothing_every: int = 16
    mixing: float = 0.5
    halving_pictures: float = 20_000.0

    @property
    def architecture(self) -> Architecture:
        return Architecture(self.channels, self.z, self.w, self.mapping, noise=False)
