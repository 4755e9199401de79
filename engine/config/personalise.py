"""The settings of learning a picture."""

from dataclasses import dataclass

from .settings import Settings

__all__ = ["PersonaliseConfig"]


@dataclass(frozen=True)
class PersonaliseConfig(Settings):
    """How to learn a picture. The defaults are DragNoise's interface settings.

    Attributes:
        steps: Steps of the optimisation, 1 to 100,000; DragNoise's benchmark takes 200.
        rank: Rank of the low-rank matrices, 1 to 1024.
        lr: AdamW's learning rate, above 0, at most 1.
        batch: Noisy versions of the picture a step, 1 to 256.
        seed: Seed of the noise, the timesteps and the first matrices.
        plateau: Stop early when the loss, smoothed over about 20 steps, has not gone down by 1 %
            for so many steps; 0: never.

    Raises:
        ConfigError: Naming the value and its range.
    """

    steps: int = 60
    rank: int = 16
    lr: float = 5e-4
    batch: int = 4
    seed: int = 0
    plateau: int = 0

    def __post_init__(self) -> None:
        self._check_whole("steps", 1, 100_000)
        self._check_whole("rank", 1, 1024)
        self._check_whole("batch", 1, 256)
        self._check_whole("seed", 0, 2**31 - 1)
        self._check_whole("plateau", 0, 100_000)
        self._check_real("lr", "above 0 and at most 1", lambda value: 0 < value <= 1)
