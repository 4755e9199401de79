"""The waterfall: the published algorithm, and what makes an edit faster, one step after the other. Every row is the one above and one thing more."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dragnoise.engine import Editor, Placement
from dragnoise.engine.backends.attention import Attention
from dragnoise.engine.backends.backend import Backend, Gates
from dragnoise.engine.config import DragConfig
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.place import Place
from dragnoise.engine.diffusion.unet import Folded, Operators, UNet
from dragnoise.engine.drag.method import AnyMethod, Start, State
from dragnoise.engine.drag.scene import Scene
from dragnoise.engine.methods import METHODS
from dragnoise.engine.methods.dragnoise import DRAGNOISE, FEATURE_BLOCK, EncoderHalf
from dragnoise.engine.methods.prediction import Prediction
from dragnoise.kernels import patch_motion

__all__ = ["ROWS", "Row", "rows_for"]


@dataclass(frozen=True)
class Row:
    """what: is new in it. editor: of a model (float32); or what edits in another way. method: what is run. asked: it runs only where it is named.

    exported: whether its editor is given a folder of exported parts (`exported=`), made for the case that is measured.
    """

    name: str
    what: str
    editor: Callable[..., Any]
    method: AnyMethod
    devices: tuple[str, ...] = ("cpu", "cuda")
    asked: bool = False
    exported: bool = False


_Scene = Scene[Place, DragConfig]


def _unfolded(place: Place) -> Start[EncoderHalf]:
    unet = place.model.unet
    down = unet.down(place.latent, place.step)
    nothing = Folded((), down.step.text, ())
    return Start(EncoderHalf(down, nothing), unet.middle(down).float())


def _features(scene: _Scene, half: EncoderHalf, bottleneck: Tensor) -> Prediction:
    place = scene.place
    up = place.model.unet.up(half.down, bottleneck, FEATURE_BLOCK, scene.needs_output)
    assert up.features is not None
    if up.output is None:
        return Prediction(up.features, None)
    return Prediction(up.features, place.schedule.noise(up.output, place.latent, place.timestep))


def _supervise(scene: _Scene, reference: Prediction, forward: Prediction, state: State) -> Tensor:
    """Return the loss by its formulas."""
    place = scene.place
    radius = scene.settings.r_m
    loss: Tensor = patch_motion.reference_loss(
        forward.features[0], state.handles, scene.targets, scene.resolution, radius
    )
    if scene.keep is None or forward.noise is None or reference.noise is None:
        return loss
    slope = place.schedule.slope(place.timestep)
    moved = slope * (forward.noise - reference.noise) * scene.keep
    return loss + scene.settings.lam * moved.abs().sum()


_FORMULAS = dataclasses.replace(DRAGNOISE, name="formulas", supervise=_supervise)
_UNFOLDED = dataclasses.replace(_FORMULAS, name="unfolded", start=_unfolded, features=_features)


def _plain_unet(model: Model, attention: Attention) -> tuple[UNet, Gates]:
    return UNet(model.unet.network, Operators(attention=attention.attend)), {}


_PLAIN = Backend("plain", "PyTorch's operators, without graphs", lambda model: [], _plain_unet)
_eager = partial(Editor, backend=_PLAIN)


ROWS: tuple[Row, ...] = (
    Row(
        "baseline-plain",
        "what the published code executes without an adapter",
        partial(Editor, backend="eager"),
        METHODS["baseline-plain"],
        asked=True,
    ),
    Row(
        "baseline",
        "what the published code executes, attention fused",
        partial(Editor, backend="eager"),
        METHODS["baseline"],
    ),
    Row(
        "cut",
        "frozen weights; encoder half once a drag, no middle block where it is replaced, keys and values and time once; one image; no upsampled map",
        _eager,
        _UNFOLDED,
    ),
    Row("folded", "what the skips contribute once a drag", _eager, _FORMULAS),
    Row("kernels", "the loss by our fused operators", _eager, DRAGNOISE),
    Row(
        "packed",
        "oneDNN weights packed once, channels_last",
        partial(Editor, backend="packed"),
        DRAGNOISE,
        devices=("cpu",),
    ),
    Row(
        "graphs",
        "channels_last, our normalisation, CUDA graphs",
        partial(Editor, backend="eager"),
        DRAGNOISE,
        devices=("cuda",),
    ),
    Row(
        "compiled",
        "torch.compile behind its gate",
        partial(Editor, backend="compiled"),
        DRAGNOISE,
        devices=("cuda",),
    ),
    Row(
        "onnxruntime",
        "what needs no gradient by onnxruntime",
        partial(Editor, backend=Placement.everywhere("onnxruntime")),
        DRAGNOISE,
        devices=("cpu",),
        asked=True,
        exported=True,
    ),
    Row(
        "tensorrt",
        "what needs no gradient by TensorRT",
        partial(Editor, backend=Placement.everywhere("tensorrt")),
        DRAGNOISE,
        devices=("cuda",),
        asked=True,
        exported=True,
    ),
)


def rows_for(device: torch.device, names: str | None = None) -> tuple[Row, ...]:
    """The rows that run on a device; or those named, with commas between. Raises KeyError for a name that is not there."""
    here = {row.name: row for row in ROWS if device.type in row.devices}
    return (
        tuple(row for row in here.values() if not row.asked)
        if names is None
        else tuple(here[name] for name in names.split(","))
    )
