"""An edit, read from top to bottom: image -> encode -> invert -> drag -> propagate -> decode -> image."""

import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from torch import Tensor

from . import stages
from .backends import choose
from .config import DragConfig
from .errors import ConfigError, InputWarning
from .geometry import Frame
from .loading import load, of_pipeline
from .methods import METHODS, Method, Scene
from .model import Model
from .observe import Observer, StageTimes, nvtx
from .run import Run
from .stages import Iteration, Optimum
from .unet import Conditioning
from .values import Image, Mask, Points

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

__all__ = ["EditResult", "Editor", "History", "Progress", "Record"]

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, of how many) while the long stages work."""


@dataclass(frozen=True, eq=False)
class History:
    """The drag, iteration by iteration.

    losses: float32 [updates]. handles: float64 [iterations, N, 2], (x, y) image pixels, the first where they were put.
    """

    losses: npt.NDArray[np.float32]
    handles: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Record:
    """Every intermediate of an edit, kept only when asked for; tensors on the model's device.

    text [1, L, D]; trajectory: the clean latent to the inverted one, float32 [1, 4, h, w] each; reference_features [1, C, h, w] and
    reference_noise [1, 4, h, w] of the first forward pass (None without one; the noise also where no mask term needs it);
    handles int64 [iterations, N, 2] and targets int64 [N, 2]: (row, column) at the supervision resolution; keep: 1 - mask, latent's size, or None;
    bottleneck_start and bottleneck, float32: before and after; final_latent float32; pixels float32 [1, 3, H, W] in -1..1 as decoded.
    scene and optimum are what the stage functions take, to go on from here.
    """

    text: Tensor
    trajectory: tuple[Tensor, ...]
    final_latent: Tensor
    pixels: Tensor
    scene: Scene
    optimum: Optimum

    @property
    def inverted(self) -> Tensor:
        return self.trajectory[-1]

    @property
    def bottleneck(self) -> Tensor:
        return self.optimum.variable

    @property
    def bottleneck_start(self) -> Tensor:
        return self.optimum.start

    @property
    def reference_features(self) -> Tensor | None:
        return None if self.optimum.reference is None else self.optimum.reference.features

    @property
    def reference_noise(self) -> Tensor | None:
        return None if self.optimum.reference is None else self.optimum.reference.noise

    @property
    def handles(self) -> Tensor:
        return self.optimum.handles

    @property
    def targets(self) -> Tensor:
        return self.scene.targets

    @property
    def keep(self) -> Tensor | None:
        return self.scene.keep


@dataclass(frozen=True, eq=False)
class EditResult:
    """image: the edited picture, in the input's size. points: where the handles ended, with their targets, image pixels.

    reached: every handle came within 2 supervision pixels of its target. timings_ms: by stage, and "total".
    settings: what the edit ran with (method, model, device, precision, threads, configuration, backend and why no other). record: if asked for.
    """

    image: Image
    points: Points
    reached: bool
    history: History
    timings_ms: Mapping[str, float]
    settings: Mapping[str, Any]
    record: Record | None


class Editor:
    """Edits images with one loaded model. Nothing is random: the same input gives the same bits on the same machine with the same threads.

    backend, attention: what runs the network (`dragnoise.engine.backends`); "auto" takes the fastest without an objection.
    poll_every: how often the drag reads its stop condition from the device; None: every iteration on a CPU, every eighth on CUDA.
    Raises BackendError where what was asked for cannot serve. On CUDA one edit runs at a time: others wait.
    """

    def __init__(
        self,
        model: Model,
        *,
        backend: str = "auto",
        attention: str = "sdpa",
        poll_every: int | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.model, self.running = choose(model, backend, attention)
        self._alone = threading.Lock() if model.device.type == "cuda" else nullcontext()
        self.poll_every = poll_every if poll_every is not None else (1 if model.device.type == "cpu" else 8)
        if self.poll_every < 1:
            raise ConfigError(f"poll_every must be 1 or more, got {poll_every}")
        self._observers = (*observers, nvtx) if model.device.type == "cuda" else tuple(observers)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "float32",
        config: str | os.PathLike[str] | None = None,
        variant: str | None = None,
        allow_pickle: bool = False,
        backend: str = "auto",
        attention: str = "sdpa",
        poll_every: int | None = None,
        observers: Sequence[Observer] = (),
    ) -> Self:
        """An editor on a diffusers folder, a `.safetensors` checkpoint, or (None) the embedded model; see `loading.load` for the rest."""
        model = load(source, device=device, dtype=dtype, config=config, variant=variant, allow_pickle=allow_pickle)
        return cls(model, backend=backend, attention=attention, poll_every=poll_every, observers=observers)

    @classmethod
    def from_pipeline(
        cls,
        pipeline: "DiffusionPipeline",
        *,
        backend: str = "auto",
        attention: str = "sdpa",
        poll_every: int | None = None,
        observers: Sequence[Observer] = (),
    ) -> Self:
        """An editor on a pipeline's own weights, without a copy but for what a backend packs; the pipeline is not changed."""
        model = of_pipeline(pipeline)
        return cls(model, backend=backend, attention=attention, poll_every=poll_every, observers=observers)

    @property
    def defaults(self) -> DragConfig:
        """The settings that `edit` uses when it is given none: the model's own where it brings any."""
        return self.model.defaults

    def edit(
        self,
        image: Image | PIL.Image.Image | npt.NDArray[Any] | str | os.PathLike[str],
        points: Points | Sequence[Any] | str,
        *,
        mask: Mask | PIL.Image.Image | npt.NDArray[Any] | str | os.PathLike[str] | None = None,
        prompt: str = "",
        config: DragConfig | None = None,
        method: str | Method = "dragnoise",
        record: bool = False,
        progress: Progress | None = None,
        on_iteration: Callable[[Iteration], None] | None = None,
    ) -> EditResult:
        """Move what is under the handles to the targets and keep the rest.

        image, points, mask: in any form that `Image.of`, `Points.of` and `Mask.of` take; white in the mask may change, None sets no limit.
        config: None for `defaults`. method: a name in `METHODS`, or a row of one's own. record: keep every intermediate.
        on_iteration: shown every forward pass of the drag, with its predicted noise.
        Raises ImageError, PointError, MaskError, ConfigError.
        """
        row = METHODS.get(method) if isinstance(method, str) else method
        if row is None:
            raise ConfigError(f"there is no method {method!r}; known: {', '.join(METHODS)}")
        config = config or self.defaults
        source, pairs = Image.of(image), Points.of(points)
        pairs.check_inside(source.width, source.height)
        frame = Frame.of(source, self.model.factor, config.parity)
        limit = _limit(mask, source, config)

        times, total = StageTimes(self.model.device), StageTimes(self.model.device)
        run, active = Run((*self._observers, times)), config.active_steps
        model = row.prepare(self.model)
        report = progress or (lambda stage, done, of: None)

        def steps(stage: str) -> Callable[[int], None]:
            return lambda done: report(stage, done, active)

        def watch(iteration: Iteration) -> None:
            report("drag", iteration.number + 1, config.iterations)
            if on_iteration is not None:
                on_iteration(iteration)

        with self._alone, total("total"):
            text = run(stages.embed, model, prompt)
            latent = run(stages.encode, model, frame.pixels(source))
            conditioning = run(stages.condition, model, text, config.steps)
            trajectory = run(stages.invert, model, latent, conditioning, active, on_step=steps("invert"))
            scene = _scene(
                model,
                trajectory[-1],
                conditioning,
                frame,
                pairs,
                limit,
                config,
                wants_noise=record or on_iteration is not None,
            )

            optimum = run(stages.drag, row, scene, self.poll_every, on_iteration=watch)
            final = run(stages.propagate, row, scene, optimum.constants, optimum.variable, on_step=steps("propagate"))
            pixels = run(stages.decode, model, final)
            edited = frame.image_of(pixels)

        return EditResult(
            image=edited,
            points=Points(frame.image_points(optimum.handles[-1]), pairs.targets),
            reached=optimum.reached,
            history=History(
                optimum.losses.cpu().numpy(), np.array([frame.image_points(handles) for handles in optimum.handles])
            ),
            timings_ms=times.ms | total.ms,
            settings=self._settings(row.name, config),
            record=Record(text, trajectory, final, pixels, scene, optimum) if record else None,
        )

    def _settings(self, method: str, config: DragConfig) -> dict[str, Any]:
        model = self.model
        return {
            "method": method,
            "model": model.name,
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "config": config,
        } | self.running.said()


def _scene(
    model: Model,
    latent: Tensor,
    conditioning: Conditioning,
    frame: Frame,
    points: Points,
    limit: Mask | None,
    config: DragConfig,
    *,
    wants_noise: bool,
) -> Scene:
    handles, targets = frame.points(points)
    keep = None
    if limit is not None and config.lam > 0:
        keep = 1 - frame.editable(limit, (latent.shape[2], latent.shape[3]))
        keep = keep.to(model.device) if bool(keep.any()) else None
    return Scene(
        model=model,
        schedule=model.schedule(config.steps),
        index=config.steps - config.active_steps,
        latent=latent,
        conditioning=conditioning,
        handles=handles.to(model.device),
        targets=targets.to(model.device),
        resolution=frame.supervision,
        keep=keep,
        config=config,
        wants_noise=wants_noise,
    )


def _limit(mask: Any, image: Image, config: DragConfig) -> Mask | None:
    """The mask that the edit obeys. None: no limit (in parity mode, as published, the whole picture is held in place)."""
    if mask is None:
        return Mask(np.zeros((image.height, image.width), dtype=np.bool_)) if config.parity else None
    limit = Mask.of(mask, image.width, image.height)
    if not limit.editable.any():
        warnings.warn(
            "the mask marks nothing as editable (white), so the whole picture is held in place; leave the mask out to set no limit",
            InputWarning,
            stacklevel=3,
        )
    return limit
