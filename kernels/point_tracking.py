"""Point tracking: each handle moves to the place near it that looks most like it did at the start.

With U the feature map F resized bilinearly to the supervision resolution (H, W), and W_i the
(2 radius + 1)^2 positions around handle i, each clamped into U:

    moved_i   = argmin over p in W_i of  sum_c |U[c, p] - origin_i[c]|
    reached_i = |target_i - moved_i| < REACHED

If several are equally near, it is the first in row-major order. U is not built: only the windows
are sampled. Features are finite; with others the result is some position of the window.

    name         shape      dtype
    features     [C, h, w]  any float   F, any strides; computed with in float32, in float64 if
                                        either it or origins is
    origins      [N, C]     any float   what each handle looked like at the start
    handles      [N, 2]     int64       (row, column) in U; may lie outside
    targets      [N, 2]     int64       likewise
    moved        [N, 2]     int64       (row, column), inside U
    reached      [N]        bool
    all_reached  []         bool        the drag may stop; true if there are no points

Every kernel does all points at once, one program (or one round of the loop) for a point: it owns
the point's window and keeps one running least distance. Interpolating as a + f (b - a) makes all
positions of a plateau exactly equal, so that there too the first wins. On a GPU a point that has
not arrived clears `all_reached`: all that write to it write the same, so their order cannot
matter, and no program waits for another.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .bilinear import upsample_weights
from .has_native import has_native
from .has_triton import has_triton
from .patch_motion import REACHED, distances

__all__ = ["TrackedPoints", "reference", "track"]


class TrackedPoints(NamedTuple):
    """The handles' new places, on the device of the features; the host has read nothing of it.

    Attributes:
        moved: [N, 2] int64, (row, column) at the supervision resolution.
        reached: [N] bool, the points that have arrived.
        all_reached: [] bool, whether all have.
    """

    moved: Tensor
    reached: Tensor
    all_reached: Tensor


def track(
    features: Tensor,
    origins: Tensor,
    handles: Tensor,
    targets: Tensor,
    resolution: tuple[int, int],
    radius: int,
) -> TrackedPoints:
    """Return each handle's new place, without waiting for the device and without a gradient.

    Args:
        features: [C, h, w], any float dtype and strides.
        origins: [N, C], what each handle looked like at the start.
        handles: [N, 2] int64, (row, column) at the supervision resolution.
        targets: [N, 2] int64, likewise.
        resolution: (H, W) of the upsampled map, at least 1 each.
        radius: r_p in positions of the upsampled map, 0 or more.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit each other.
    """
    _check(features, origins, handles, targets, resolution, radius)
    outputs = _track_points(
        features.detach(), origins.detach(), handles, targets, *resolution, radius
    )
    return TrackedPoints(*outputs)


def reference(
    features: Tensor,
    origins: Tensor,
    handles: Tensor,
    targets: Tensor,
    resolution: tuple[int, int],
    radius: int,
) -> TrackedPoints:
    """Return what the kernels must equal: `track` in plain PyTorch, on any device."""
    moved = _nearest(features.detach(), origins.detach(), handles, resolution, radius)
    reached = distances(moved, targets) < REACHED
    return TrackedPoints(moved, reached, reached.all())


def _nearest(
    features: Tensor, origins: Tensor, handles: Tensor, resolution: tuple[int, int], radius: int
) -> Tensor:
    dtype = torch.float64 if _exact(features, origins) else torch.float32
    small = features.to(dtype)
    offsets = torch.arange(-radius, radius + 1, device=handles.device)
    rows = (handles[:, :1] + offsets).clamp(0, resolution[0] - 1)
    columns = (handles[:, 1:] + offsets).clamp(0, resolution[1] - 1)
    row_weights = upsample_weights(rows.to(dtype), small.shape[1], resolution[0])
    column_weights = upsample_weights(columns.to(dtype), small.shape[2], resolution[1])
    window = torch.einsum("nkh,chw,nlw->nckl", row_weights, small, column_weights)
    distance = (window - origins.to(dtype)[:, :, None, None]).abs().sum(1)
    first = _first_least(distance.flatten(1))
    row = rows.gather(1, first // rows.shape[1])
    column = columns.gather(1, first % rows.shape[1])
    return torch.cat([row, column], dim=1)


def _first_least(values: Tensor) -> Tensor:
    """Return the index of the first least value, [N, K] -> [N, 1].

    `argmin` does not promise the first on every device. NaN counts as infinity: the index is always
    one of K, since nothing else keeps the gathers after it in bounds.
    """
    values = values.nan_to_num(nan=torch.inf, posinf=torch.inf)
    count = values.shape[1]
    indices = torch.arange(count, device=values.device).expand_as(values)
    return torch.where(values == values.amin(1, keepdim=True), indices, count).amin(1, keepdim=True)


def _exact(features: Tensor, origins: Tensor) -> bool:
    return torch.float64 in (features.dtype, origins.dtype)


def _check(
    features: Tensor,
    origins: Tensor,
    handles: Tensor,
    targets: Tensor,
    resolution: tuple[int, int],
    radius: int,
) -> None:
    if features.ndim != 3 or 0 in features.shape or not features.is_floating_point():
        got = f"{list(features.shape)} {features.dtype}"
        raise ValueError(f"features must be [C, h, w] floats with no side 0, got {got}")
    if handles.ndim != 2 or handles.shape[1] != 2 or handles.dtype != torch.int64:
        raise ValueError(f"handles must be [N, 2] int64, got {list(handles.shape)} {handles.dtype}")
    if targets.shape != handles.shape or targets.dtype != torch.int64:
        raise ValueError(
            f"targets must be {list(handles.shape)} int64, "
            f"got {list(targets.shape)} {targets.dtype}"
        )
    if origins.shape != (handles.shape[0], features.shape[0]):
        expected = [handles.shape[0], features.shape[0]]
        raise ValueError(
            f"origins must be {expected} (handles, channels), got {list(origins.shape)}"
        )
    devices = [str(tensor.device) for tensor in (features, origins, handles, targets)]
    if len(set(devices)) > 1:
        raise ValueError(f"devices differ: {', '.join(devices)}")
    if min(resolution) < 1 or radius < 0:
        raise ValueError(
            "resolution must be at least (1, 1) and radius at least 0, "
            f"got {resolution} and {radius}"
        )


_Tensors = tuple[Tensor, Tensor, Tensor]


@torch.library.custom_op("dragnoise::track_points", mutates_args=())
def _track_points(
    features: Tensor,
    origins: Tensor,
    handles: Tensor,
    targets: Tensor,
    rows: int,
    columns: int,
    radius: int,
) -> _Tensors:
    return reference(features, origins, handles, targets, (rows, columns), radius)


@_track_points.register_fake
def _(
    features: Tensor,
    origins: Tensor,
    handles: Tensor,
    targets: Tensor,
    rows: int,
    columns: int,
    radius: int,
) -> _Tensors:
    moved = torch.empty_like(handles, memory_format=torch.contiguous_format)
    reached = handles.new_empty(handles.shape[0], dtype=torch.bool)
    return moved, reached, handles.new_empty((), dtype=torch.bool)


@_track_points.register_kernel("cpu")
def _(
    features: Tensor,
    origins: Tensor,
    handles: Tensor,
    targets: Tensor,
    rows: int,
    columns: int,
    radius: int,
) -> _Tensors:
    if _exact(features, origins) or not has_native():
        return reference(features, origins, handles, targets, (rows, columns), radius)
    from . import _native

    exact = origins.float().contiguous()
    moved, reached = map(
        torch.from_numpy,
        _native.track_points(
            features,
            exact,
            handles.contiguous(),
            targets.contiguous(),
            (rows, columns),
            radius,
            REACHED,
        ),
    )
    return moved, reached, reached.all()


@_track_points.register_kernel("cuda")
def _(
    features: Tensor,
    origins: Tensor,
    handles: Tensor,
    targets: Tensor,
    rows: int,
    columns: int,
    radius: int,
) -> _Tensors:
    if _exact(features, origins) or not has_triton():
        return reference(features, origins, handles, targets, (rows, columns), radius)
    from .gpu.point_tracking import launch

    return launch(features, origins, handles, targets, (rows, columns), radius, REACHED)
