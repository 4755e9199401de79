"""Judge a picture by what a drag should have made of it."""

import math
from dataclasses import asdict, dataclass

import numpy as np

from ..fidelity.pixels import Pixels, Selection, psnr, sharpness, ssim
from ..world.analysis import find
from ..world.drags import Drag, grown

__all__ = ["LEAST_PIXELS", "Scores", "consequence", "score", "score_place", "template_distance"]

LEAST_PIXELS = 20
"""Smaller regions are not judged."""

_PATCH = 7


@dataclass(frozen=True)
class Scores:
    """A picture's scores. None where there is nothing to judge.

    Attributes:
        distance_px: From the landmarks to their targets, found by drawing scenes.
        template_px: The same, found by the look of the source around the handles.
        completion: The share of the way: 0 is the source, 1 the goal, more is too far.
        completion_error: |1 - completion|.
        inside_db: PSNR against the truth where it differs from the source, and around there.
        inside_ssim: SSIM, likewise.
        gain_db: How much nearer to the truth than the source is, there.
        outside_db: PSNR against the truth elsewhere.
        outside_source_db: PSNR against the source outside the mask that the editor was given.
        consequence: The share of the true change that came about where no dragged thing stands.
        uncovered_db: PSNR against the truth where a thing has stood.
        sharpness: Gradients beside the truth's, inside; 1 is as sharp, smears have less.
    """

    distance_px: float
    template_px: float | None
    completion: float
    completion_error: float
    inside_db: float
    inside_ssim: float
    gain_db: float
    outside_db: float | None
    outside_source_db: float | None
    consequence: float | None
    uncovered_db: float | None
    sharpness: float

    def to_dict(self) -> dict[str, float | None]:
        """Return the scores by name, ready for JSON."""
        return asdict(self)


def score(drag: Drag, picture: Pixels) -> Scores:
    """Score a picture that was made of a drag's source."""
    found = find(drag, picture)
    area = drag.area
    inside = psnr(picture, drag.after, area)
    return Scores(
        distance_px=found.distance_px,
        template_px=template_distance(drag, picture),
        completion=found.completion,
        completion_error=abs(1 - found.completion),
        inside_db=inside,
        inside_ssim=ssim(picture, drag.after, area),
        gain_db=inside - psnr(drag.before, drag.after, area),
        outside_db=_psnr_in(picture, drag.after, ~grown(area, 5)),
        outside_source_db=_outside_source(drag, picture),
        consequence=consequence(drag, picture),
        uncovered_db=_psnr_in(picture, drag.after, drag.uncovered),
        sharpness=sharpness(picture, drag.after, area),
    )


def score_place(drag: Drag, picture: Pixels) -> dict[str, float | None]:
    """Score, by name, what can be judged of a picture without the true result: where things are."""
    found = find(drag, picture)
    return {
        "distance_px": found.distance_px,
        "template_px": template_distance(drag, picture),
        "completion": found.completion,
        "completion_error": abs(1 - found.completion),
        "outside_source_db": _outside_source(drag, picture),
    }


def _outside_source(drag: Drag, picture: Pixels) -> float | None:
    return _psnr_in(picture, drag.before, ~grown(drag.allowed, 5))


def consequence(drag: Drag, picture: Pixels) -> float | None:
    """Return the share of the true change that came about away from the dragged things.

    1 - |picture - truth| / |source - truth|, summed over the consequence's pixels: the source has
    0, the truth 1; what overshoots or is damaged has less, below 0 if it is worse than the source.
    """
    where = drag.consequence
    if where.sum() < LEAST_PIXELS:
        return None
    truth = drag.after[where].astype(np.int32)
    left = np.abs(picture[where] - truth).sum()
    return float(1 - left / np.abs(drag.before[where] - truth).sum())


def _psnr_in(a: Pixels, b: Pixels, where: Selection) -> float | None:
    return psnr(a, b, where) if where.sum() >= LEAST_PIXELS else None


def template_distance(drag: Drag, picture: Pixels) -> float | None:
    """Return the mean distance from targets to where the source's look at the handles is found.

    The best normalised correlation of 15 x 15 pixels, looked for as far around the target as the
    way is long and 8 pixels more. It does not know that things turn and grow: there it disagrees
    with the drawn scenes. None where a patch is of one colour.
    """
    distances = []
    for handle, target in zip(drag.handles, drag.targets, strict=True):
        template = _patch(drag.before, *handle)
        radius = math.ceil(math.dist(handle, target)) + 8
        found = _best_match(picture, template, target, radius)
        if found is not None:
            distances.append(math.dist(found, target))
    return float(np.mean(distances)) if distances else None


def _patch(picture: Pixels, x: float, y: float) -> Pixels:
    padded = np.pad(picture, ((_PATCH, _PATCH), (_PATCH, _PATCH), (0, 0)), mode="edge")
    size = 2 * _PATCH + 1
    row, column = round(y), round(x)
    return padded[row : row + size, column : column + size]


def _best_match(
    picture: Pixels, template: Pixels, centre: tuple[float, float], radius: int
) -> tuple[float, float] | None:
    """Return (x, y) of the patch that correlates best with a template; None if it is plain."""
    size = 2 * _PATCH + 1
    padded = np.pad(picture, ((_PATCH, _PATCH), (_PATCH, _PATCH), (0, 0)), mode="edge")
    height, width = picture.shape[:2]
    left, right = (min(max(round(centre[0]) + by, 0), width - 1) for by in (-radius, radius))
    top, bottom = (min(max(round(centre[1]) + by, 0), height - 1) for by in (-radius, radius))
    region = padded[top : bottom + size, left : right + size].astype(np.float32)
    wanted = template.astype(np.float32)
    wanted -= wanted.mean((0, 1))
    norm = float(np.sqrt((wanted**2).sum()))
    if norm < 1:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(region, (size, size), (0, 1))
    dots = np.einsum("yxcij,ijc->yx", windows, wanted, optimize=True)
    means = windows.mean((3, 4))
    squares = np.einsum("yxcij,yxcij->yx", windows, windows, optimize=True)
    spread = np.sqrt(np.maximum(squares - size**2 * (means**2).sum(-1), 1))
    # A patch on a smooth sky correlates perfectly with any gradient: contrast must be alike too.
    contrast = np.minimum(spread / norm, norm / spread)
    row, column = np.unravel_index(int(np.argmax(dots / (spread * norm) * contrast)), dots.shape)
    return float(left + column), float(top + row)
