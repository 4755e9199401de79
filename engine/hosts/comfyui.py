"""DragNoise as nodes of ComfyUI, in its V3 schema.

    Load -> Session -> Drag -> Preview
            picture    drags   arrows on the result

Nodes hold nothing. What they hand on are an editor and a session of it: the editor is found again
by what it was loaded of, as long as ComfyUI keeps it, and goes when ComfyUI lets it go. A session
keeps a picture's inversion, so that another drag on it begins at once; every drag begins at the
picture, so none depends on another.

It is imported inside ComfyUI: examples/comfyui/custom_nodes/dragnoise is the folder to copy.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from comfy_api.latest import ComfyExtension, io, ui
from torch import Tensor

from ..cli.drawing import with_points
from ..diffusion.load import EMBEDDED
from ..editor import Editor
from ..errors import ImageError, MaskError, ModelError, PointError
from ..inputs.image import Image
from ..inputs.mask import Mask
from ..inputs.points import Points
from ..inputs.preset import PRESETS
from ..session.session import Session

__all__ = ["NODES", "DragNoiseExtension", "comfy_entrypoint"]

_CATEGORY = "dragnoise"
_DTYPES = ("auto", "float32", "float16", "bfloat16")
_DEVICES = ("auto", "cuda", "cpu")

_Editor = io.Custom("DRAGNOISE_EDITOR")
_Session = io.Custom("DRAGNOISE_SESSION")

_editors: WeakValueDictionary[tuple[object, ...], Editor] = WeakValueDictionary()
_loading = threading.Lock()


class Load(io.ComfyNode):  # type: ignore[misc]
    """A model, ready to drag with."""

    @classmethod
    def define_schema(cls) -> Any:
        """Return what goes in and out."""
        return io.Schema(
            node_id="DragNoiseLoad",
            display_name="DragNoise: Load",
            category=_CATEGORY,
            description="Loads a Stable Diffusion 1.x or 2.x model from a diffusers folder.",
            inputs=[
                io.String.Input(
                    "model",
                    default="",
                    placeholder="the embedded model",
                    tooltip="A diffusers folder, or a .safetensors checkpoint. Nothing is "
                    "downloaded. Empty: the embedded model, which knows small pictures of its own.",
                ),
                io.Combo.Input("dtype", options=list(_DTYPES), default="auto"),
                io.Combo.Input("device", options=list(_DEVICES), default="auto"),
            ],
            outputs=[_Editor.Output("editor")],
        )

    @classmethod
    def fingerprint_inputs(cls, model: str, dtype: str, device: str) -> Any:
        """Return what changes when the files at a path do."""
        return _content(model), dtype, device

    @classmethod
    def execute(cls, model: str, dtype: str, device: str) -> Any:
        """Return an editor: the one that there is of the same files, precision and device."""
        key = (_content(model), dtype, device)
        with _loading:
            editor = _editors.get(key)
            if editor is None:
                source = model.strip() or None
                editor = Editor.from_pretrained(source, dtype=dtype, device=device)
                _editors[key] = editor
        return io.NodeOutput(editor)


class Open(io.ComfyNode):  # type: ignore[misc]
    """A picture on which things are dragged."""

    @classmethod
    def define_schema(cls) -> Any:
        """Return what goes in and out."""
        return io.Schema(
            node_id="DragNoiseSession",
            display_name="DragNoise: Session",
            category=_CATEGORY,
            description="Opens a picture; its inversion is kept for all drags on it.",
            inputs=[
                _Editor.Input("editor"),
                io.Image.Input("image"),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="What the picture shows, in a few words.",
                ),
            ],
            outputs=[_Session.Output("session")],
        )

    @classmethod
    def execute(cls, editor: Editor, image: Tensor, prompt: str) -> Any:
        """Return a session on the picture."""
        return io.NodeOutput(editor.open(_picture(image), prompt=prompt, undo_bytes=0))


class Drag(io.ComfyNode):  # type: ignore[misc]
    """Things moved from handle points to target points."""

    @classmethod
    def define_schema(cls) -> Any:
        """Return what goes in and out."""
        return io.Schema(
            node_id="DragNoiseDrag",
            display_name="DragNoise: Drag",
            category=_CATEGORY,
            description="Moves what lies under the handles to the targets; the rest stays.",
            inputs=[
                _Session.Input("session"),
                io.String.Input(
                    "points",
                    default="60,40:80,40",
                    multiline=True,
                    tooltip="x,y:x,y in pixels, from handle to target; several with spaces "
                    "or lines between them.",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="fast",
                    tooltip="\n".join(f"{name}: {row.summary}" for name, row in PRESETS.items()),
                ),
                io.Mask.Input("mask", optional=True, tooltip="What is marked may change."),
                io.Mask.Input(
                    "grip",
                    optional=True,
                    tooltip="What is marked moves as one piece (not with published).",
                ),
            ],
            outputs=[
                io.Image.Output("edited", display_name="image"),
                io.String.Output(
                    "ended",
                    display_name="points",
                    tooltip="Where the handles ended, with their targets, as x,y:x,y.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, points: str | None = None) -> bool | str:
        """Return True, or what is wrong with points that no other node gives."""
        try:
            Points.of(points or "0,0:0,0")
        except PointError as wrong:
            return str(wrong)
        return True

    @classmethod
    def execute(
        cls,
        session: Session,
        points: str,
        preset: str,
        mask: Tensor | None = None,
        grip: Tensor | None = None,
    ) -> Any:
        """Return the edited picture, and where the points ended."""
        size = session.source.width, session.source.height
        result = session.drag(
            points,
            base="source",
            preset=preset,
            mask=None if mask is None else _marked("mask", mask, *size),
            grip=None if grip is None else _marked("grip", grip, *size),
            progress=_progress(),
        )
        return io.NodeOutput(_tensor(result.image.pixels), _text(result.points))


class Preview(io.ComfyNode):  # type: ignore[misc]
    """A picture with its drags drawn on it."""

    @classmethod
    def define_schema(cls) -> Any:
        """Return what goes in and out."""
        return io.Schema(
            node_id="DragNoisePreview",
            display_name="DragNoise: Preview",
            category=_CATEGORY,
            description="Shows a picture with a line from every handle (red) to its target (blue).",
            inputs=[
                io.Image.Input("image"),
                io.String.Input("points", default="60,40:80,40", multiline=True),
            ],
            outputs=[io.Image.Output("drawn", display_name="image")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, image: Tensor, points: str) -> Any:
        """Return the picture with its points, and show it."""
        picture, pairs = _picture(image), Points.of(points)
        pairs.check_inside(picture.width, picture.height)
        drawn = _tensor(np.asarray(with_points(picture, pairs)))
        return io.NodeOutput(drawn, ui=ui.PreviewImage(drawn, cls=cls))


NODES = (Load, Open, Drag, Preview)


class DragNoiseExtension(ComfyExtension):  # type: ignore[misc]
    """The nodes, as ComfyUI asks for them."""

    async def get_node_list(self) -> list[type[Any]]:
        """Return all nodes."""
        return list(NODES)


async def comfy_entrypoint() -> DragNoiseExtension:
    """Return what ComfyUI loads."""
    return DragNoiseExtension()


def _content(model: str) -> tuple[object, ...]:
    """Return what tells a model's files from others at the same path: sizes and times."""
    path = Path(model.strip()) if model.strip() else EMBEDDED
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    try:
        states = [(str(file), file.stat()) for file in files if not file.is_dir()]
    except OSError as missing:
        raise ModelError(f"no model at {str(path)!r} ({missing.strerror})") from missing
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)


def _progress() -> Callable[[str, int, int], None]:
    """Return a drag's progress as ComfyUI's bar; it also hears that the person has had enough."""
    bar = comfy.utils.ProgressBar(1)

    def show(stage: str, done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return show


def _picture(image: Tensor) -> Image:
    """Return the picture of a batch of one, float [1, H, W, 3] in 0..1."""
    if image.ndim != 4 or image.shape[3] not in (3, 4):
        raise ImageError(f"image must be [1, height, width, 3], got {list(image.shape)}")
    if image.shape[0] != 1:
        raise ImageError(f"a session is of one picture, got a batch of {image.shape[0]}; take one")
    return Image.of(image[0].detach().float().clamp(0, 1).cpu().numpy())


def _marked(name: str, mask: Tensor, width: int, height: int) -> Mask:
    """Return a mask of a batch of one, float [1, H, W] or [H, W]: marked from a half on."""
    marks = mask[0] if mask.ndim == 3 and mask.shape[0] == 1 else mask
    if marks.ndim != 2:
        raise MaskError(f"{name} must be [1, height, width], got {list(mask.shape)}")
    return Mask.of((marks >= 0.5).cpu().numpy(), width, height)


def _tensor(pixels: Any) -> Tensor:
    """Return pixels as ComfyUI has pictures, float32 [1, H, W, 3] in 0..1."""
    return torch.from_numpy(np.asarray(pixels)[None].astype(np.float32) / 255)


def _text(points: Points) -> str:
    pairs = zip(points.handles, points.targets, strict=True)
    return " ".join(f"{x:g},{y:g}:{to_x:g},{to_y:g}" for (x, y), (to_x, to_y) in pairs)
