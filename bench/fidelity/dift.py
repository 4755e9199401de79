"""Find features by which points are found again in another picture (DIFT).

Tang et al., Emergent Correspondence from Image Diffusion, NeurIPS 2023: noise is added to the
picture's latent as at time t, and the map behind one block of the U-Net's decoder half is taken,
the mean over several draws of the noise. DragBench's protocol takes Stable Diffusion 2.1, t = 261,
the second up block, 8 draws, and a picture as it is: what its sides leave over eight pixels is cut.
"""

import torch
from torch import Tensor

from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.errors import ConfigError, ImageError
from dragnoise.engine.stages import embed

from .pixels import Pixels

__all__ = ["Dift"]


class Dift:
    """A finder of features.

    Args:
        model: The diffusion model.
        timestep: Of the noise, 0 to 999.
        up_block: Whose map is taken, from 0.
        ensemble: How many draws of the noise.

    Raises:
        ConfigError: The model has no such block or time.
    """

    def __init__(
        self, model: Model, timestep: int = 261, up_block: int = 1, ensemble: int = 8
    ) -> None:
        blocks = len(model.unet.config["up_block_types"])
        if not 0 <= up_block < blocks or not 0 <= timestep <= 999 or ensemble < 1:
            raise ConfigError(
                f"timestep {timestep}, up block {up_block} of {blocks}, {ensemble} draws: take a "
                "time from 0 to 999, a block that there is, and at least one draw"
            )
        self._model = model
        self._timestep = timestep
        self._up_block = up_block
        self._ensemble = ensemble

    @property
    def device(self) -> torch.device:
        """Where the generator of `features` must be."""
        return self._model.device

    @torch.no_grad()
    def features(self, picture: Pixels, prompt: str, generator: torch.Generator) -> Tensor:
        """Return a picture's features, float32 [C, h, w].

        Args:
            picture: uint8 [H, W, 3].
            prompt: What it shows.
            generator: Draws first the latents' noise, then the time's, [draws, 4, h, w] each, as
                the published code does from PyTorch's global stream.

        Raises:
            ImageError: The picture is too small for the model.
        """
        model = self._model
        latents = self._latents(picture, generator)
        noise = _drawn(latents, generator)
        alpha = model.schedule(1).alphas[self._timestep].to(latents)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        text = embed(model, prompt).repeat(self._ensemble, 1, 1)
        down = model.unet.down(noisy, model.unet.step(self._timestep, text))
        bottleneck = model.unet.middle(down)
        features = model.unet.up(down, bottleneck, self._up_block, output=False).features
        assert features is not None  # a block was named
        return features.float().mean(0)

    def _latents(self, picture: Pixels, generator: torch.Generator) -> Tensor:
        """Return samples of the picture's latent, float32 [draws, 4, h, w]."""
        model = self._model
        if min(picture.shape[:2]) < 8 * model.factor:
            height, width = picture.shape[:2]
            raise ImageError(
                f"a picture of {width}x{height} is too small to find points in; give one of at "
                f"least {8 * model.factor} pixels a side"
            )
        pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        posterior = model.vae.encode(pixels.to(model.device, model.vae.dtype)).latent_dist
        mean: Tensor = posterior.mean.float().repeat(self._ensemble, 1, 1, 1)
        deviation: Tensor = posterior.std.float()
        scaling: float = model.vae.config["scaling_factor"]
        return (mean + deviation * _drawn(mean, generator)) * scaling


def _drawn(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return normal noise, float32, of a tensor's shape."""
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=torch.float32)
