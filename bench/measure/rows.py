"""List the rows of the waterfall: the published algorithm, then one change after the other.

Every row is the row above and one thing more.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from dragnoise.engine import DragConfig, Editor, Image, Mask, Placement, Points
from dragnoise.engine.backends import Backend
from dragnoise.engine.backends.attention import Attention
from dragnoise.engine.backends.backend import Gates
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.place import Place
from dragnoise.engine.diffusion.unet import FEATURE_BLOCK, Folded, Operators, UNet
from dragnoise.engine.drag.method import AnyMethod, Start, State
from dragnoise.engine.drag.scene import Scene
from dragnoise.engine.methods import METHODS
from dragnoise.engine.methods.dragnoise import DRAGNOISE, EncoderHalf
from dragnoise.engine.methods.prediction import Prediction
from dragnoise.engine.session.result import EditResult, Progress
from dragnoise.kernels import patch_motion

__all__ = ["ROWS", "Edits", "Row", "rows_for"]


class Edits(Protocol):
    """Anything that edits as an `Editor` does."""

    @property
    def model(self) -> Model: ...

    def edit(
        self,
        image: Image,
        points: Points,
        *,
        mask: Mask | None = None,
        config: DragConfig | None = None,
        method: AnyMethod,
        progress: Progress | None = None,
    ) -> EditResult: ...


@dataclass(frozen=True)
class Row:
    """A row of the waterfall.

    Attributes:
        name: The row's name on the command line and in records.
        what: What is new in it.
        editor: Makes what edits, from a model in float32.
        method: The method that is run.
        devices: The device types that it runs on.
        only_by_name: Whether it runs only where it is named.
        exported: Whether `editor` takes a folder of exported parts (`exported=`), made for the
            measured case.
    """

    name: str
    what: str
    editor: Callable[..., Edits]
    method: AnyMethod
    devices: tuple[str, ...] = ("cpu", "cuda")
    only_by_name: bool = False
    exported: bool = False


_Scene: TypeAlias = Scene[Place, DragConfig]


def _start_unfolded(place: Place) -> Start[EncoderHalf]:
    unet = place.model.unet
    down = unet.down(place.latent, place.step)
    nothing = Folded((), down.step.text, ())
    return Start(EncoderHalf(down, nothing), unet.middle(down).float())


def _features_unfolded(scene: _Scene, half: EncoderHalf, bottleneck: Tensor) -> Prediction:
    place = scene.place
    up = place.model.unet.up(half.down, bottleneck, FEATURE_BLOCK, scene.needs_output)
    assert up.features is not None
    if up.output is None:
        return Prediction(up.features, None)
    return Prediction(up.features, place.schedule.noise(up.output, place.latent, place.timestep))


def _supervise_by_formulas(
    scene: _Scene, reference: Prediction, forward: Prediction, state: State
) -> Tensor:
    place = scene.place
    settings = scene.settings
    loss: Tensor = patch_motion.reference_loss(
        forward.features[0], state.handles, scene.targets, scene.resolution, settings.r_m
    )
    if scene.keep is None or forward.noise is None or reference.noise is None:
        return loss
    slope = place.schedule.slope(place.timestep)
    moved = slope * (forward.noise - reference.noise) * scene.keep
    return loss + settings.lam * moved.abs().sum()


_FORMULAS = dataclasses.replace(DRAGNOISE, name="formulas", supervise=_supervise_by_formulas)
_UNFOLDED = dataclasses.replace(
    _FORMULAS, name="unfolded", start=_start_unfolded, features=_features_unfolded
)


def _plain_unet(model: Model, attention: Attention) -> tuple[UNet, Gates]:
    return UNet(model.unet.network, Operators(attention=attention.attend)), {}


# PyTorch's own layout and normalisation on every device, which on CUDA `eager` has not.
_PLAIN = Backend("plain", "PyTorch's operators, without graphs", lambda model: [], _plain_unet)
_plain_editor = partial(Editor, check_pictures=False, backend=_PLAIN)


ROWS: tuple[Row, ...] = (
    Row(
        "baseline-plain",
        "what the published code executes without an adapter",
        partial(Editor, check_pictures=False, backend="eager"),
        METHODS["baseline-plain"],
        only_by_name=True,
    ),
    Row(
        "baseline",
        "what the published code executes, attention fused",
        partial(Editor, check_pictures=False, backend="eager"),
        METHODS["baseline"],
    ),
    Row(
        "cut",
        "frozen weights; encoder half once a drag, no middle block where it is replaced, "
        "keys and values and time once; one image; no upsampled map",
        _plain_editor,
        _UNFOLDED,
    ),
    Row("folded", "what the skips contribute once a drag", _plain_editor, _FORMULAS),
    Row("kernels", "the loss by our fused operators", _plain_editor, DRAGNOISE),
    Row(
        "packed",
        "oneDNN weights packed once, channels_last",
        partial(Editor, check_pictures=False, backend="packed"),
        DRAGNOISE,
        devices=("cpu",),
    ),
    Row(
        "graphs",
        "channels_last, our normalisation, CUDA graphs",
        partial(Editor, check_pictures=False, backend="eager"),
        DRAGNOISE,
        devices=("cuda",),
    ),
    Row(
        "compiled",
        "torch.compile behind its gate",
        partial(Editor, check_pictures=False, backend="compiled"),
        DRAGNOISE,
        devices=("cuda",),
    ),
    Row(
        "onnxruntime",
        "what needs no gradient by onnxruntime",
        partial(Editor, check_pictures=False, backend=Placement.everywhere("onnxruntime")),
        DRAGNOISE,
        devices=("cpu",),
        only_by_name=True,
        exported=True,
    ),
    Row(
        "tensorrt",
        "what needs no gradient by TensorRT",
        partial(Editor, check_pictures=False, backend=Placement.everywhere("tensorrt")),
        DRAGNOISE,
        devices=("cuda",),
        only_by_name=True,
        exported=True,
    ),
)


_OTHERS = {
    "dragdiffusion-baseline-plain": "likewise, attention written out",
    "freedrag-baseline-plain": "likewise",
    "dragdiffusion-baseline": "what DragDiffusion's published code executes",
    "dragdiffusion": "frozen weights, one image, the unedited one's keys and values once",
    "freedrag-baseline": "what FreeDrag's published code executes",
    "freedrag": "likewise, and no pass of its own between two waypoints",
    "gooddrag": "drag and denoise in turns",
}

ROWS += tuple(
    Row(
        name,
        what,
        partial(Editor, check_pictures=False, backend="eager" if "baseline" in name else None),
        METHODS[name],
        only_by_name=True,
    )
    for name, what in _OTHERS.items()
)


def rows_for(device: torch.device, names: str | None = None) -> tuple[Row, ...]:
    """Return the rows that run on a device.

    Args:
        device: The device.
        names: Names with commas between; None for all rows that need not be named.

    Raises:
        KeyError: A name is not among the device's rows.
    """
    rows = {row.name: row for row in ROWS if device.type in row.devices}
    if names is None:
        return tuple(row for row in rows.values() if not row.only_by_name)
    return tuple(rows[name] for name in names.split(","))
