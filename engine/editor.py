"""The front door: an editor on a loaded model edits images, or opens sessions on them."""

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy.typing as npt
import PIL.Image
import torch

from .backends import Artefacts, Placement, choose, fastest_placement
from .cache import Store, default_folder
from .config import DragConfig
from .diffusion.load import load
from .diffusion.load.pipeline import of_pipeline
from .diffusion.lora.adapter import Adapter, AdapterUse
from .diffusion.lora.merge import Adapters
from .diffusion.model import Model
from .errors import ConfigError
from .inputs.image import Image
from .inputs.mask import Mask
from .inputs.points import Points
from .methods import Method
from .pipelines.generate import Generated, generate_image
from .pipelines.runtime import Runtime
from .pipelines.source import Source
from .session.file import SessionState, read_session
from .session.result import EditResult, Progress
from .session.session import Session
from .session.state import State
from .stages import KINDS, Iteration
from .system.timers import Observer, nvtx

if TYPE_CHECKING:
    from diffusers import AutoencoderTiny, DiffusionPipeline

__all__ = ["Editor"]


class Editor:
    """Edits images with one loaded model. Nothing is random: the same input gives the same bits on the same machine with the same threads.

    backend, attention: what runs the network (`dragnoise.engine.backends`). None: the usual backend of the device. A name, or a `Placement` of the
        parts ("down=tensorrt,up=tensorrt,drag=compiled,vae=tensorrt"). "auto": every part by the fastest, measured once and remembered.
    exported: the folder of exported parts (`python -m dragnoise.export`); None: `exported` in the user's cache folder.
    build_missing: make those that are missing, in a process of its own, instead of raising PlanError with the command.
    poll_every: how often the drag reads its stop condition from the device; None: every iteration on a CPU, every eighth on CUDA.
    cache: a `Store` of what stages have made, for all sessions and edits, and other processes if it has a folder; None: sessions keep their own.
    preview_vae: a small decoder for `Session.drag_stream`'s previews, on the model's device; None: the model's own.
    Raises BackendError where what was asked for cannot serve. On CUDA one edit runs at a time: others wait.
    """

    def __init__(
        self,
        model: Model,
        *,
        backend: str | Placement | None = None,
        attention: str = "sdpa",
        poll_every: int | None = None,
        observers: Sequence[Observer] = (),
        cache: Store | None = None,
        preview_vae: "AutoencoderTiny | None" = None,
        exported: str | os.PathLike[str] | None = None,
        build_missing: bool = False,
    ) -> None:
        artefacts = Artefacts(
            default_folder() / "exported" if exported is None else Path(exported), build_missing
        )
        measured = None
        if backend == "auto":
            backend, measured = fastest_placement(model, attention, artefacts)
        self.model, self.running = choose(model, backend, attention, artefacts, measured)
        self.adapters = Adapters(self.model)
        self._alone = threading.Lock() if model.device.type == "cuda" else nullcontext()
        self.poll_every = (
            poll_every if poll_every is not None else (1 if model.device.type == "cpu" else 8)
        )
        if self.poll_every < 1:
            raise ConfigError(f"poll_every must be 1 or more, got {poll_every}")
        self._observers = (*observers, nvtx) if model.device.type == "cuda" else tuple(observers)
        self.cache, self.preview_vae = cache, preview_vae
        if cache is not None:
            cache.register(*KINDS)

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
        backend: str | Placement | None = None,
        attention: str = "sdpa",
        poll_every: int | None = None,
        observers: Sequence[Observer] = (),
        cache: Store | None = None,
        preview_vae: "AutoencoderTiny | None" = None,
        exported: str | os.PathLike[str] | None = None,
        build_missing: bool = False,
    ) -> Self:
        """An editor on a diffusers folder, a `.safetensors` checkpoint, or (None) the embedded model; see `loading.load` for the rest."""
        model = load(
            source,
            device=device,
            dtype=dtype,
            config=config,
            variant=variant,
            allow_pickle=allow_pickle,
        )
        more: dict[str, Any] = {
            "poll_every": poll_every,
            "observers": observers,
            "cache": cache,
            "exported": exported,
        }
        more |= {"preview_vae": preview_vae, "build_missing": build_missing}
        return cls(model, backend=backend, attention=attention, **more)

    @classmethod
    def from_pipeline(
        cls,
        pipeline: "DiffusionPipeline",
        *,
        backend: str | Placement | None = None,
        attention: str = "sdpa",
        poll_every: int | None = None,
        observers: Sequence[Observer] = (),
        cache: Store | None = None,
        preview_vae: "AutoencoderTiny | None" = None,
        exported: str | os.PathLike[str] | None = None,
        build_missing: bool = False,
    ) -> Self:
        """An editor on a pipeline's own weights, without a copy but for what a backend packs; the pipeline is not changed."""
        model = of_pipeline(pipeline)
        more: dict[str, Any] = {
            "poll_every": poll_every,
            "observers": observers,
            "cache": cache,
            "exported": exported,
        }
        more |= {"preview_vae": preview_vae, "build_missing": build_missing}
        return cls(model, backend=backend, attention=attention, **more)

    @property
    def defaults(self) -> DragConfig:
        """The settings that `edit` uses when it is given none: the model's own where it brings any."""
        return self.model.defaults

    def edit(
        self,
        image: Image | Generated | PIL.Image.Image | npt.NDArray[Any] | str | os.PathLike[str],
        points: Points | Sequence[Any] | str,
        *,
        mask: Mask | PIL.Image.Image | npt.NDArray[Any] | str | os.PathLike[str] | None = None,
        prompt: str = "",
        negative_prompt: str = "",
        config: DragConfig | None = None,
        adapter: Adapter | str | os.PathLike[str] | None = None,
        adapter_scale: float = 1.0,
        method: str | Method = "dragnoise",
        record: bool = False,
        progress: Progress | None = None,
        on_iteration: Callable[[Iteration], None] | None = None,
    ) -> EditResult:
        """Move what is under the handles to the targets and keep the rest.

        image, points, mask: in any form that `Image.of`, `Points.of` and `Mask.of` take; white in the mask may change, None sets no limit.
        A `Generated` image brings its prompts, its settings where `config` is None, and its trajectory: it is neither encoded nor inverted.
        negative_prompt: what guidance draws away from, where `config.guidance` is above 1.
        config: None for `defaults`. method: a name in `METHODS`, or a row of one's own. record: keep every intermediate.
        adapter: see `open`. on_iteration: shown every forward pass of the drag, with its predicted noise.
        Raises ImageError, PointError, MaskError, ConfigError.
        """
        how: dict[str, Any] = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "config": config,
        }
        session = self.open(
            image, adapter=adapter, adapter_scale=adapter_scale, undo_bytes=0, **how
        )
        more: dict[str, Any] = {"progress": progress, "on_iteration": on_iteration}
        return session.drag(points, mask=mask, method=method, record=record, **more)

    def open(
        self,
        image: Image | Generated | PIL.Image.Image | npt.NDArray[Any] | str | os.PathLike[str],
        *,
        prompt: str = "",
        negative_prompt: str = "",
        config: DragConfig | None = None,
        adapter: Adapter | str | os.PathLike[str] | None = None,
        adapter_scale: float = 1.0,
        undo_bytes: int = 2**28,
    ) -> Session:
        """A session on an image, to drag on it again and again. Nothing is computed yet: see `Session.prepare`.

        config: the settings of its drags, None for `defaults`. adapter: an `Adapter`, or its file, merged
        into the weights `adapter_scale` times while the session works; on a pipeline's own weights, into these.
        undo_bytes: how much is kept to undo; the oldest is dropped.
        Raises ImageError, ConfigError, AdapterError.
        """
        if undo_bytes < 0:
            raise ConfigError(f"undo_bytes must be 0 or more, got {undo_bytes}")
        source = Source.of(image, prompt, negative_prompt)
        own = self.defaults if source.generated is None else source.generated.config
        found = (
            adapter if isinstance(adapter, Adapter) or adapter is None else Adapter.load(adapter)
        )
        used = AdapterUse(found, adapter_scale)
        return Session(
            self._runtime(),
            SessionState((State(source, source.image),), 0, config or own, undo_bytes, used),
        )

    def restore(self, path: str | os.PathLike[str]) -> Session:
        """The session that `Session.save` wrote to `path`, as it was, without inverting again: on the same machine, with the same versions and
        threads, every drag gives the same bits.

        Raises SessionError for a file that is no session, is not whole, or is of another model.
        """
        return Session(self._runtime(), read_session(path, self.model))

    def generate(
        self,
        prompt: str,
        *,
        negative_prompt: str = "",
        size: tuple[int, int] | None = None,
        seed: int = 0,
        config: DragConfig | None = None,
        progress: Progress | None = None,
    ) -> Generated:
        """A picture of `prompt` that `edit` and `open` take as it is, without encoding and inverting it; see `generate_image`.

        config: None for `defaults`; `config.guidance` above 1 draws towards the prompt and away from `negative_prompt`.
        """
        config, report = config or self.defaults, progress or (lambda stage, done, of: None)

        def on_step(done: int) -> None:
            report("generate", done, config.steps)

        return generate_image(
            self._runtime(), prompt, negative_prompt, size, seed, config, on_step=on_step
        )

    def _runtime(self) -> Runtime:
        return Runtime(
            self.model,
            self.running,
            self.poll_every,
            self._observers,
            self._alone,
            self.cache,
            self.adapters,
            self.preview_vae,
        )
