"""Point tracking: where in a window around each handle the features are nearest to that handle's reference.

With U the feature map F resized bilinearly to the supervision resolution (H, W), and W_i the (2 radius + 1)^2 positions around handle i, each
clamped into U:

    moved_i = argmin over p in W_i of  sum_c |U[c, p] - reference_i[c]|

The first position in row-major order where several are equally near. U is not built: only the windows are sampled. Features are finite; with
others the result is some position of the window.

    name        shape      dtype
    features    [C, h, w]  any float        F, any strides; computed with in float32
    reference   [N, C]     any float        what each handle looked like at the start; computed with in float32
    handles     [N, 2]     int64            (row, column) in U
    moved       [N, 2]     int64            (row, column), inside U

The native kernel owns one handle at a time: it gathers the few features under the window and keeps one running least distance.
"""

import torch
from torch import Tensor

from . import _native
from .bilinear import upsample_weights

__all__ = ["formula", "track"]


def track(features: Tensor, reference: Tensor, handles: Tensor, resolution: tuple[int, int], radius: int) -> Tensor:
    """Each handle's new position, as in the table above, on the device of `features` and without waiting for it.

    resolution: (H, W), at least 1 each. radius: r_p in positions of U, 0 or more. Inputs carry no gradient through; handles may lie outside U.
    Raises ValueError where shapes, dtypes or devices do not fit each other.
    """
    _check(features, reference, handles, resolution, radius)
    if features.device.type == "cpu" and features.dtype == reference.dtype == torch.float32:
        moved: Tensor = _native_track(features.detach(), reference.detach(), handles, *resolution, radius)
        return moved
    return formula(features, reference, handles, resolution, radius)


def formula(features: Tensor, reference: Tensor, handles: Tensor, resolution: tuple[int, int], radius: int) -> Tensor:
    """What the kernels must equal: `track` in plain PyTorch, on any device. Float64 inputs are computed with in float64."""
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    small = features.detach().to(dtype)
    offsets = torch.arange(-radius, radius + 1, device=handles.device)
    rows = (handles[:, :1] + offsets).clamp(0, resolution[0] - 1)
    columns = (handles[:, 1:] + offsets).clamp(0, resolution[1] - 1)
    row_weights = upsample_weights(rows.to(dtype), small.shape[1], resolution[0])
    column_weights = upsample_weights(columns.to(dtype), small.shape[2], resolution[1])
    window = torch.einsum("nkh,chw,nlw->nckl", row_weights, small, column_weights)
    distances = (window - reference.detach().to(dtype)[:, :, None, None]).abs().sum(1)
    first = _first_least(distances.flatten(1))
    row = rows.gather(1, first // rows.shape[1])
    column = columns.gather(1, first % rows.shape[1])
    return torch.cat([row, column], dim=1)


def _first_least(values: Tensor) -> Tensor:
    """[N, K] -> [N, 1]: the index of the first least value; `argmin` does not promise the first on every device.

    NaN counts as infinity: the index is always one of K, since nothing else keeps the gathers after it in bounds.
    """
    values = values.nan_to_num(nan=torch.inf, posinf=torch.inf)
    count = values.shape[1]
    indices = torch.arange(count, device=values.device).expand_as(values)
    return torch.where(values == values.amin(1, keepdim=True), indices, count).amin(1, keepdim=True)


def _check(features: Tensor, reference: Tensor, handles: Tensor, resolution: tuple[int, int], radius: int) -> None:
    if features.ndim != 3 or 0 in features.shape:
        raise ValueError(f"features must be [C, h, w] with no side 0, got {list(features.shape)}")
    if handles.ndim != 2 or handles.shape[1] != 2 or handles.dtype != torch.int64:
        raise ValueError(f"handles must be [N, 2] int64, got {list(handles.shape)} {handles.dtype}")
    if reference.shape != (handles.shape[0], features.shape[0]):
        expected = [handles.shape[0], features.shape[0]]
        raise ValueError(f"reference must be {expected} (handles, channels), got {list(reference.shape)}")
    if not features.device == reference.device == handles.device:
        raise ValueError(f"devices differ: {features.device}, {reference.device}, {handles.device}")
    if min(resolution) < 1 or radius < 0:
        raise ValueError(f"resolution must be at least (1, 1) and radius at least 0, got {resolution} and {radius}")


@torch.library.custom_op("dragnoise::track_points", mutates_args=(), device_types="cpu")
def _native_track(features: Tensor, reference: Tensor, handles: Tensor, rows: int, columns: int, radius: int) -> Tensor:
    moved = _native.track_points(features, reference.contiguous(), handles.contiguous(), (rows, columns), radius)
    return torch.from_numpy(moved)


@_native_track.register_fake
def _(features: Tensor, reference: Tensor, handles: Tensor, rows: int, columns: int, radius: int) -> Tensor:
    return torch.empty_like(handles, memory_format=torch.contiguous_format)
