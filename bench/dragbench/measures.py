"""The measures that DragBench's pictures are judged by, loaded once a run."""

from collections.abc import Sequence
from typing import Any

import torch

from dragnoise.engine.diffusion.load import load
from dragnoise.engine.inputs.image import Image
from dragnoise.engine.system.device import choose_device

from ..fidelity.dai import RADII, dragging_accuracy
from ..fidelity.dift import Dift
from ..fidelity.distance import cosine_maps, find, windows
from ..fidelity.lpips import Lpips
from ..fidelity.pixels import psnr
from .asked import EMBEDDED, Asked
from .judge import Judge
from .samples import Sample

__all__ = ["make_judge"]


def make_judge(asked: Asked) -> Judge:
    """Return a judge by all that the run has been given weights for."""
    judging = asked.judging
    device = choose_device(judging.device)
    dift = None
    if judging.dift is not None:
        source = None if judging.dift == EMBEDDED else judging.dift
        dift = Dift(load(source, device=device, dtype="float32"))
    lpips = None
    if judging.lpips is not None:
        lpips = Lpips.read(judging.lpips, judging.lpips_sha256, device)
    return _Measures(device, dift, lpips)


class _Measures:
    """Judges pictures by their pixels, and by the networks that are there.

    Args:
        device: Where the networks are, and the random numbers come from.
        dift: Finds points again; None: no distances.
        lpips: None: no image fidelity.
    """

    def __init__(self, device: torch.device, dift: Dift | None, lpips: Lpips | None) -> None:
        self.device = device
        self._dift = dift
        self._lpips = lpips

    def distances(
        self, sample: Sample, pictures: Sequence[Image], generator: torch.Generator
    ) -> list[list[float]]:
        """Return how far each pair's point is found from its target; see `Judge`."""
        assert self._dift is not None  # who asks for distances alone has named a model
        found = _distances(self._dift, sample, pictures, generator)
        return [scores["distances_px"] for scores in found]

    def scores(
        self, sample: Sample, pictures: Sequence[Image], generator: torch.Generator
    ) -> list[dict[str, Any]]:
        """Return the scores of each picture; see `Judge`."""
        plain = [self._plain(sample, picture) for picture in pictures]
        if self._dift is None:
            return plain
        found = _distances(self._dift, sample, pictures, generator)
        return [own | seen for own, seen in zip(found, plain, strict=True)]

    def _plain(self, sample: Sample, picture: Image) -> dict[str, Any]:
        """Return the scores that need no random numbers."""
        before, after = sample.image.pixels, picture.pixels
        handles, targets = sample.points.handles, sample.points.targets
        scores: dict[str, Any] = {
            "dai": {
                str(radius): dragging_accuracy(before, after, handles, targets, radius)
                for radius in RADII
            }
        }
        outside = ~sample.mask.editable
        if outside.any():
            scores["outside_db"] = psnr(after, before, outside)
        if self._lpips is not None:
            scores["fidelity"] = 1 - self._lpips.distance(before, after)
        return scores


def _distances(
    dift: Dift, sample: Sample, pictures: Sequence[Image], generator: torch.Generator
) -> list[dict[str, Any]]:
    """Return where each picture's points are found: anywhere, in the mask, and near the drag."""
    size = (sample.image.height, sample.image.width)
    handles, targets = sample.points.handles, sample.points.targets
    near = windows(handles, targets, size)
    editable = torch.tensor(sample.mask.editable)
    source = dift.features(sample.image.pixels, sample.prompt, generator)
    state = generator.get_state()
    scores = []
    for picture in pictures:
        generator.set_state(state)
        features = dift.features(picture.pixels, sample.prompt, generator)
        maps = cosine_maps(source, features, handles, size)
        anywhere = find(maps, targets)
        found: dict[str, Any] = {
            "found": [list(point) for point in anywhere.points],
            "distances_px": list(anywhere.distances_px),
            "windowed_px": list(find(maps, targets, near).distances_px),
        }
        if editable.any():
            found["masked_px"] = list(find(maps, targets, editable).distances_px)
        scores.append(found)
    return scores
