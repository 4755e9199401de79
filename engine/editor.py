"""The front door: an editor on a loaded model edits images, or opens sessions on them."""

import operator
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

import torch

from dragnoise.kernels.has_native import tell_of_formulas

from .backends import Artefacts, Backend, Choice, Placement, choose, fastest_placement
from .cache import Store, default_folder
from .config import (
    LIMITS,
    DiffusionSettings,
    DragConfig,
    PictureLimits,
    Settings,
    checked_priority,
    flag,
    function,
    of_kind,
    real,
    shown,
    whole,
)
from .diffusion.load import load, of_pipeline
from .diffusion.lora.adapter import Adapter, AdapterUse
from .diffusion.lora.merge import Adapters
from .diffusion.model import Model
from .drag.loop import Iteration
from .drag.method import AnyMethod
from .errors import ConfigError
from .gan.folder import load_generator
from .gan.model import GeneratorModel
from .inputs.image import ImageLike
from .inputs.points import PointsLike
from .inputs.prompt import check_prompts
from .methods import method_row
from .pipelines.generate import Generated, checked_seed, generate_image, picture_size
from .pipelines.runtime import Runtime
from .pipelines.source import Source
from .pipelines.styled import StyledPicture, styled_picture
from .run import Run
from .session.file import read_session
from .session.request import DragOptions
from .session.result import EditResult, Progress, silent
from .session.session import Session
from .session.state import SessionState, State
from .system.incoming import told_as
from .system.numerics import own_numerics
from .system.timers import Observer, StageTimes, nvtx
from .system.worker import Job, Worker

if TYPE_CHECKING:
    from diffusers import AutoencoderTiny, DiffusionPipeline

__all__ = ["Editor", "EditorOptions"]


class EditorOptions(TypedDict, total=False):
    """The keywords that every way to make an `Editor` takes; its docstring explains them."""

    backend: str | Placement | Backend | None
    attention: str
    poll_every: int | None
    observers: Sequence[Observer]
    cache: Store | None
    preview_vae: "AutoencoderTiny | None"
    exported: str | os.PathLike[str] | None
    build_missing: bool
    limits: PictureLimits
    check_pictures: bool
    generator: str | os.PathLike[str] | GeneratorModel | None


class Editor:
    """An editor of images with one loaded model.

    Nothing is random: the same input gives the same bits on the same machine with the same threads
    (on CUDA PyTorch's attention adds gradients in any order; `attention="deterministic"` does not).
    All work on the device is done by one worker, one job at a time; callers from any thread wait.

    Args:
        model: The model.
        backend: What runs the network (`dragnoise.engine.backends`). None: the usual backend of the
            device. A name, a row of one's own, or a `Placement` of the parts
            ("down=tensorrt,up=tensorrt,drag=compiled,vae=tensorrt"). "auto": every part by the
            fastest, measured once and remembered.
        attention: What computes attention: "sdpa", "deterministic" (CUDA) or "xformers".
        poll_every: Iterations between two reads of the drag's stop condition; None: one on a CPU,
            eight on CUDA.
        observers: Entered with a stage's name around every stage that really runs.
        cache: A `Store` of what stages have made, for all sessions and edits, and other processes
            if it has a folder; None: sessions remember their own.
        preview_vae: A small decoder for `Session.drag_stream`'s previews, on the model's device;
            None: the model's own.
        exported: The folder of exported parts (`python -m dragnoise.export`); None: `exported` in
            the user's cache folder.
        build_missing: Make exported parts that are missing, in a process of its own, instead of
            raising PlanError with the command.
        limits: How large a picture may be that is read, edited or generated.
        check_pictures: Say (InputWarning) when a picture is far larger than the model's own, or
            its VAE rebuilds it with less than 26 dB: once a picture, before the first drag. It
            costs one pass of the VAE's decoder and changes no result.
        generator: What DragGAN edits with: a folder, a loaded one, or None for the embedded
            generator, which is loaded when it is first wanted.

    Raises:
        BackendError: Where what was asked for cannot serve.
        ConfigError: For a `poll_every` below 1.
    """

    @own_numerics()
    def __init__(
        self,
        model: Model,
        *,
        backend: str | Placement | Backend | None = None,
        attention: str = "sdpa",
        poll_every: int | None = None,
        observers: Sequence[Observer] = (),
        cache: Store | None = None,
        preview_vae: "AutoencoderTiny | None" = None,
        exported: str | os.PathLike[str] | None = None,
        build_missing: bool = False,
        limits: PictureLimits = LIMITS,
        check_pictures: bool = True,
        generator: str | os.PathLike[str] | GeneratorModel | None = None,
    ) -> None:
        on_cuda = model.device.type == "cuda"
        if not on_cuda:
            tell_of_formulas()
        every = (8 if on_cuda else 1) if poll_every is None else poll_every
        every = whole("poll_every", every, 1)
        limits = of_kind("limits", limits, PictureLimits)
        with told_as(ConfigError, f"exported={shown(exported)} is no path of a folder"):
            folder = default_folder() / "exported" if exported is None else Path(exported)
        with told_as(ConfigError, f"observers={shown(observers)} are none"):
            observers = tuple(observers)
        artefacts = Artefacts(folder, build_missing)
        measured = None
        if backend == "auto":
            backend, measured = fastest_placement(model, attention, artefacts)
        if generator is not None and not isinstance(generator, GeneratorModel):
            generator = load_generator(generator, model.device)
        chosen, running = choose(model, backend, attention, artefacts, measured)
        self._runtime = Runtime(
            model=chosen,
            running=running,
            poll_every=every,
            observers=(*observers, nvtx) if on_cuda else observers,
            store=cache,
            adapters=Adapters(chosen),
            worker=Worker(),
            preview_vae=preview_vae,
            limits=limits,
            check_pictures=flag("check_pictures", check_pictures),
            load_generator=partial(_generator, generator, model.device),
        )

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        config: str | os.PathLike[str] | None = None,
        variant: str | None = None,
        allow_pickle: bool = False,
        **options: Unpack[EditorOptions],
    ) -> Self:
        """Return an editor on a folder, a checkpoint, or the embedded model.

        Args:
            source: A diffusers folder, a `.safetensors` checkpoint, or None for the embedded model.
            device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1".
            dtype: "auto" (float16 on CUDA, float32 on a CPU), "float32", "bfloat16", or on CUDA
                "float16".
            config: For a checkpoint: a diffusers folder of the same architecture.
            variant: Of the weights' files, as in diffusers ("fp16").
            allow_pickle: Read weights that can run code: files you trust.
            options: See `Editor`.

        Raises:
            ModelError: The model cannot be loaded.
            DeviceError: The device or precision is not available here.
            BackendError: The backend cannot serve here.
            ConfigError: A setting is out of its range.
        """
        model = load(
            source,
            device=device,
            dtype=dtype,
            config=config,
            variant=variant,
            allow_pickle=allow_pickle,
        )
        return cls(model, **options)

    @classmethod
    def from_pipeline(
        cls,
        pipeline: "DiffusionPipeline",
        *,
        defaults: DragConfig | None = None,
        **options: Unpack[EditorOptions],
    ) -> Self:
        """Return an editor on a pipeline's own weights; the pipeline is not changed.

        The weights are not copied, but for what a backend packs.

        Args:
            pipeline: A Stable Diffusion pipeline of diffusers.
            defaults: The settings of a drag that is given none; None: ours.
            options: See `Editor`.
        """
        return cls(of_pipeline(pipeline, defaults), **options)

    @property
    def model(self) -> Model:
        """The model, as the chosen backends run it."""
        return self._runtime.model

    @property
    def generator(self) -> GeneratorModel:
        """The generator that DragGAN edits with, loaded when it is first wanted."""
        return self._runtime.generator

    @property
    def running(self) -> Choice:
        """What runs the network, and why nothing else."""
        return self._runtime.running

    @property
    def adapters(self) -> Adapters:
        """Which adapter is merged into the weights now."""
        return self._runtime.adapters

    @property
    def cache(self) -> Store | None:
        """The store of what stages have made."""
        return self._runtime.store

    @property
    def worker(self) -> Worker:
        """The worker that owns the model's device."""
        return self._runtime.worker

    @property
    def limits(self) -> PictureLimits:
        """How large a picture may be that is read, edited or generated."""
        return self._runtime.limits

    @property
    def poll_every(self) -> int:
        """Iterations between two reads of a drag's stop condition."""
        return self._runtime.poll_every

    @property
    def preview_vae(self) -> Any:
        """The decoder of previews; None: the model's own."""
        return self._runtime.preview_vae

    @property
    def defaults(self) -> DragConfig:
        """The settings that `edit` uses when it is given none: the model's own, if it has any."""
        return self.model.defaults

    def defaults_of(self, method: str | AnyMethod) -> Any:
        """Return the settings, of the method's kind, that `edit` uses when it is given none."""
        row = method_row(method)
        own = self._runtime.defaults(row, self.defaults)
        return own if isinstance(own, row.settings) else row.settings.beside(own)

    def sample(self, seed: int = 0, *, truncation: float = 0.7) -> StyledPicture:
        """Return a picture that the generator makes; DragGAN drags it without searching for it.

        Args:
            seed: Of its random vector, a whole number from 0 to 2^63 - 1.
            truncation: 1 is as varied as the generator, 0 its mean picture.

        Raises:
            ConfigError: For another seed or truncation.
        """
        number = checked_seed(seed)
        share = real("truncation", truncation, "from 0 to 1", lambda value: 0 <= value <= 1)
        return self._runtime.submit(
            lambda job: styled_picture(self.generator, number, share),
            AdapterUse(),
            what="the picture",
        ).result()

    def edit(
        self,
        image: "ImageLike | Generated | StyledPicture",
        points: PointsLike,
        *,
        prompt: str = "",
        negative_prompt: str = "",
        adapter: Adapter | str | os.PathLike[str] | None = None,
        adapter_scale: float = 1.0,
        record: bool = False,
        on_iteration: Callable[[Iteration[Any]], None] | None = None,
        **options: Unpack[DragOptions],
    ) -> EditResult:
        """Move what is under the handles to the targets and keep the rest.

        A `Generated` image brings its prompts, its settings where `config` is None, and its
        trajectory: it is neither encoded nor inverted.

        Args:
            image: In any form that `Image.of` takes, a `Generated` one, or one of `sample`.
            points: In any form that `Points.of` takes.
            prompt: What the image shows.
            negative_prompt: What guidance draws away from, where `config.guidance` is above 1.
            adapter: An `Adapter`, or its file, merged into the weights while this works.
            adapter_scale: How many times it is merged.
            record: Keep every intermediate.
            on_iteration: Shown every forward pass of the drag, with its predicted noise.
            options: `mask`, in any form that `Mask.of` takes: white may change, None sets no limit.
                `grip`, likewise: white moves as one piece, None grips a disc about each handle; for
                methods whose row says `grips`. `config`: the method's settings, None for
                `defaults`. `method`: a name in `METHODS`, or a row of one's own. `preset`: instead
                of both, a name in `PRESETS`. `progress`: called with (stage, done, of how many).
                `timeout_s`: seconds within which it must end, waiting included. `priority`: higher
                runs first.

        Raises:
            ImageError: Naming what was seen.
            PointError: Naming what was seen.
            MaskError: Naming what was seen.
            ConfigError: Naming what was seen.
            DeadlineError: Past `timeout_s`.
        """
        config = options.get("config")
        session = self.open(
            image,
            prompt=prompt,
            negative_prompt=negative_prompt,
            config=config,
            adapter=adapter,
            adapter_scale=adapter_scale,
            undo_bytes=0,
        )
        return session.drag(points, record=record, on_iteration=on_iteration, **options)

    def open(
        self,
        image: "ImageLike | Generated | StyledPicture",
        *,
        prompt: str = "",
        negative_prompt: str = "",
        config: Settings | None = None,
        adapter: Adapter | str | os.PathLike[str] | None = None,
        adapter_scale: float = 1.0,
        undo_bytes: int = 2**28,
        tenant: str = "",
    ) -> Session:
        """Return a session on an image, to drag on it again and again.

        Nothing is computed yet: see `Session.prepare`.

        Args:
            image: As for `edit`.
            prompt: As for `edit`.
            negative_prompt: As for `edit`.
            config: The settings of its drags, None for `defaults`.
            adapter: An `Adapter`, or its file, merged into the weights `adapter_scale` times while
                the session works; on a pipeline's own weights, into these.
            undo_bytes: Bytes that all pictures to undo and redo may take, with their sources,
                inversions and optima, what they share counted once; the oldest are dropped. The
                picture that is shown is kept in any case.
            tenant: Whose session it is: what the editor's cache holds of another tenant's pictures
                is not found.

        Raises:
            ImageError: The image cannot be read.
            ConfigError: A setting is out of its range.
            AdapterError: The adapter does not fit the model.
        """
        limit = _bytes(undo_bytes)
        source = Source.of(image, prompt, negative_prompt, self._runtime.limits)
        own = self.defaults if source.generated is None else source.generated.config
        if adapter is not None and not isinstance(adapter, Adapter):
            adapter = Adapter.load(adapter)
        use = AdapterUse(adapter, adapter_scale)
        self.adapters.check(use)
        first = State(source, source.image)
        return Session(self._runtime, SessionState((first,), 0, config or own, limit, use), tenant)

    def restore(
        self,
        path: str | os.PathLike[str],
        *,
        undo_bytes: int | None = None,
        tenant: str = "",
    ) -> Session:
        """Return the session that `Session.save` wrote, as it was, without inverting again.

        On the same machine, with the same versions and threads, every drag gives the same bits.

        Args:
            path: Of the file.
            undo_bytes: Bytes for what is kept to undo, at most, whatever the file says; None: what
                it says.
            tenant: As for `open`.

        Raises:
            SessionError: For a file that is no session, is damaged, or is of another model.
        """
        state = read_session(path, self.model)
        if undo_bytes is not None:
            state = replace(state, undo_bytes=min(state.undo_bytes, _bytes(undo_bytes)))
        return Session(self._runtime, state, tenant)

    def generate(
        self,
        prompt: str,
        *,
        negative_prompt: str = "",
        size: tuple[int, int] | None = None,
        seed: int = 0,
        config: DiffusionSettings | None = None,
        progress: Progress | None = None,
        timeout_s: float | None = None,
        priority: int = 0,
    ) -> Generated:
        """Return a picture of `prompt` that is dragged without encoding and inverting it.

        Args:
            prompt: What it shall show.
            negative_prompt: What guidance draws away from.
            size: (height, width) in pixels, multiples of the VAE's factor; None: the model's own.
            seed: Of the noise, a whole number from 0 to 2^63 - 1.
            config: None for `defaults`; with `guidance` above 1 it is drawn towards the prompt and
                away from `negative_prompt`.
            progress: As for `edit`.
            timeout_s: As for `edit`.
            priority: As for `edit`.

        Raises:
            ImageError: For another size.
            ConfigError: For another seed, or a prompt that is no text.
        """
        given = self.defaults if config is None else config
        settings = of_kind("config", given, DiffusionSettings)
        report = function("progress", progress) or silent
        runtime = self._runtime
        shape = picture_size(self.model, size, runtime.limits)
        seed = checked_seed(seed)
        check_prompts(prompt=prompt, negative_prompt=negative_prompt)

        def work(job: Job[Generated]) -> Generated:
            def on_step(done: int) -> None:
                job.check()
                report("generate", done, settings.steps)

            times = StageTimes(self.model.device)
            total = StageTimes(self.model.device)
            run = Run((*runtime.observers, times), runtime.cache())
            texts = (prompt, negative_prompt)
            with total("total"):
                made = generate_image(
                    run, self.model, *texts, shape, seed, settings, on_step=on_step
                )
            return replace(made, timings_ms=times.ms | total.ms)

        job = runtime.submit(
            work,
            AdapterUse(),
            what="the generation",
            priority=checked_priority(priority),
            timeout_s=timeout_s,
        )
        return job.result()


def _generator(given: GeneratorModel | None, device: torch.device) -> GeneratorModel:
    return load_generator(None, device) if given is None else given


def _bytes(undo_bytes: Any) -> int:
    """Return a number of bytes, whatever kind of whole number it is."""
    try:
        number = operator.index(undo_bytes)
    except TypeError as other:
        kind = type(undo_bytes).__name__
        raise ConfigError(f"undo_bytes must be a whole number of bytes, got a {kind}") from other
    if number < 0:
        raise ConfigError(f"undo_bytes must be 0 or more, got {undo_bytes}")
    return number
