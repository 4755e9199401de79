"""Step along DDIM, forwards and backwards, as arithmetic on values.

Song et al. 2021, equation 12 with eta 0 (algorithm.md, section 0). With a = alphas_cumprod at the
latent's time and a' at the time it goes to:

    x0 = (x - sqrt(1 - a) eps) / sqrt(a),    x' = sqrt(a') x0 + sqrt(1 - a') eps

For a model that predicts v, eps = sqrt(a) v + sqrt(1 - a) x, with a at the time the model read.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusers import DDIMScheduler
from torch import Tensor

from ..errors import ConfigError, ModelError
from ..system.incoming import told_as

__all__ = ["Schedule"]


@dataclass(frozen=True, eq=False)
class Schedule:
    """A DDIM schedule of a number of steps.

    Attributes:
        timesteps: Descending, one a step.
        alphas: Cumulative products, float32 [1000], on the CPU.
        prediction: "epsilon" or "v_prediction".
    """

    timesteps: tuple[int, ...]
    alphas: Tensor
    prediction: str

    @classmethod
    def of(cls, config: Mapping[str, Any], steps: int) -> "Schedule":
        """Make a model's schedule: leading spacing, offset 1, as the published methods have it.

        Args:
            config: Of the model's scheduler.
            steps: How many.

        Raises:
            ModelError: For a model that predicts neither noise nor v, or betas that are no noise's.
            ConfigError: For as many steps as it was trained on, or more; or a schedule that begins
                at pure noise.
        """
        prediction = config.get("prediction_type", "epsilon")
        if prediction not in ("epsilon", "v_prediction"):
            raise ModelError(
                f"this model predicts {prediction!r}; "
                "only models that predict epsilon or v_prediction can be inverted here"
            )
        trained = config.get("num_train_timesteps", 1000)
        if steps >= trained:
            raise ConfigError(
                f"steps must be fewer than the {trained} that the model was trained on, got {steps}"
            )
        with told_as(ModelError, "this model's scheduler cannot be used"):
            ddim = DDIMScheduler.from_config(
                {name: value for name, value in config.items() if _is_read(name)},
                clip_sample=False,
                set_alpha_to_one=False,
                steps_offset=1,
                timestep_spacing="leading",
                thresholding=False,
            )
            ddim.set_timesteps(steps)
        alphas = ddim.alphas_cumprod
        if len(alphas) != trained or not _falls(alphas):
            raise ModelError(
                f"this model's scheduler has {len(alphas)} betas for {trained} steps, or some that "
                "are not from 0 to 1; is its configuration whole?"
            )
        if alphas[ddim.timesteps[0]] == 0:
            raise ConfigError(
                f"{steps} steps begin at pure noise, where this model's schedule has no signal "
                "left; take fewer"
            )
        return cls(tuple(int(t) for t in ddim.timesteps), alphas.float(), prediction)

    def active(self, count: int) -> tuple[tuple[int, int], ...]:
        """Return (index, timestep) of the last `count` steps, from noisy to clean."""
        return tuple(enumerate(self.timesteps))[len(self.timesteps) - count :]

    def noise(self, output: Tensor, latent: Tensor, timestep: int) -> Tensor:
        """Return eps in float32 from the network's output at `timestep`."""
        if self.prediction == "epsilon":
            return output.float()
        a = self.alphas[timestep]
        return a.sqrt() * output.float() + (1 - a).sqrt() * latent.float()

    def clean(self, eps: Tensor, latent: Tensor, timestep: int) -> Tensor:
        """Return the clean latent x0 that eps implies."""
        return _clean(eps, latent, self.alphas[timestep])

    def denoise(self, eps: Tensor, latent: Tensor, timestep: int) -> Tensor:
        """Step from `timestep` to the next cleaner one."""
        return self._move(eps, latent, self.alphas[timestep], self._alpha(timestep - self._stride))

    def invert(self, eps: Tensor, latent: Tensor, timestep: int) -> Tensor:
        """Step to `timestep` from the next cleaner one; eps is that of `timestep` on `latent`."""
        return self._move(eps, latent, self._alpha(timestep - self._stride), self.alphas[timestep])

    def slope(self, timestep: int) -> float:
        """Return c(t) = d(denoise) / d(eps).

        The previous latent is linear in eps: a change of eps moves it by c(t) times as much.
        """
        a = self.alphas[timestep]
        after = self._alpha(timestep - self._stride)
        return float((1 - after).sqrt() - after.sqrt() * (1 - a).sqrt() / a.sqrt())

    @property
    def _stride(self) -> int:
        return len(self.alphas) // len(self.timesteps)

    def _alpha(self, timestep: int) -> Tensor:
        """Return alpha; before the first training step that step's (`set_alpha_to_one=False`)."""
        return self.alphas[max(timestep, 0)]

    @staticmethod
    def _move(eps: Tensor, latent: Tensor, a: Tensor, after: Tensor) -> Tensor:
        return after.sqrt() * _clean(eps, latent, a) + (1 - after).sqrt() * eps


def _is_read(name: str) -> bool:
    """Whether DDIM reads a setting of a scheduler; of others it would speak at every edit."""
    return name.startswith("_") or name in inspect.signature(DDIMScheduler).parameters


def _falls(alphas: Tensor) -> bool:
    """Tell whether these are shares of a signal that more and more noise is added to."""
    within = 0 <= float(alphas[-1]) <= float(alphas[0]) <= 1
    return within and bool((alphas.diff() <= 0).all())


def _clean(eps: Tensor, latent: Tensor, a: Tensor) -> Tensor:
    return (latent - (1 - a).sqrt() * eps) / a.sqrt()
