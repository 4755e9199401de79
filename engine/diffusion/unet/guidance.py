"""Guide by two texts: the prediction is drawn away from the first, towards the second.

Classifier-free guidance (Ho & Salimans 2022):

    output   = output_negative + g (output_positive - output_negative)
    features = [(1 - c) F_negative, c F_positive] along the channels,    c = g / (2 g - 1)

The features are those that DragDiffusion supervises on generated images (Shi et al. 2024;
`drag_diffusion_update_gen`, "strategy 3"): from the positive text's alone, at g = 1, to both alike.
Guiding the network's output is guiding eps also where the network predicts v: eps is a sum of v and
the latent whose weights do not depend on the text.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...cache.structure import storable

__all__ = ["UNGUIDED", "Guidance"]


@storable
@dataclass(frozen=True)
class Guidance:
    """How far a text guides.

    Attributes:
        scale: G. With 1 there is one text and one pass, and everything is handed on as it is;
            above, texts are [negative, positive].
    """

    scale: float = 1.0

    @property
    def texts(self) -> int:
        """Number of texts that the network reads: the batch of a pass on one latent."""
        return 1 if self.scale == 1 else 2

    def latents(self, latent: Tensor) -> Tensor:
        """Repeat a latent [1, 4, H, W] for every text."""
        return latent if self.scale == 1 else torch.cat([latent, latent])

    def output(self, outputs: Tensor) -> Tensor:
        """Join the outputs [texts, 4, H, W] to one [1, 4, H, W].

        Guided, in float32 at least: differences are taken g times.
        """
        if self.scale == 1:
            return outputs
        exact = torch.promote_types(outputs.dtype, torch.float32)
        negative, positive = outputs.to(exact).chunk(2)
        return negative + self.scale * (positive - negative)

    def features(self, features: Tensor) -> Tensor:
        """Join the features [texts, C, h, w] to [1, texts * C, h, w]."""
        if self.scale == 1:
            return features
        share = self.scale / (2 * self.scale - 1)
        negative, positive = features.chunk(2)
        return torch.cat([(1 - share) * negative, share * positive], dim=1)


UNGUIDED = Guidance()
"""No guidance: one text."""
