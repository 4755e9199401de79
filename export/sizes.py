"""The sizes that a part is exported for."""

from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.exported import Extent, Profile, multiple_px

__all__ = ["profile_for"]

_LEAST = 0.5
_MOST = 1.5


def profile_for(
    model: Model,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    dynamic: bool = False,
    ends: tuple[tuple[int, int], tuple[int, int]] | None = None,
) -> Profile:
    """Return the extents of a part's inputs.

    Args:
        model: the model whose part it is.
        size: (height, width) of the picture in pixels; None: what the model was trained on.
        batch: texts that pass together, 2 with guidance.
        dynamic: whether one file serves a range of sizes, and of batches from 1.
        ends: least and most size of that range; None: half and one and a half of `size`, rounded
            down to what the model can take.
    """
    side = model.unet.network.config["sample_size"] * model.factor
    height, width = size or (side, side)
    usual = Extent(height, width, batch)
    if not dynamic:
        return Profile.at(usual)
    if ends is None:
        multiple = multiple_px(model)
        ends = (
            (_scaled(height, _LEAST, multiple), _scaled(width, _LEAST, multiple)),
            (_scaled(height, _MOST, multiple), _scaled(width, _MOST, multiple)),
        )
    least, most = ends
    return Profile(Extent(*least), usual, Extent(*most, batch))


def _scaled(side_px: int, factor: float, multiple: int) -> int:
    return max(int(side_px * factor) // multiple, 1) * multiple
