"""DragNoise as a pipeline of diffusers: its components, its arguments, its callbacks.

    pipe = DragNoisePipeline.from_pipe(StableDiffusionPipeline.from_pretrained("sd15"))
    edited = pipe(picture, [((60, 40), (80, 40))], prompt="a boat").images[0]

The pipeline holds the components and hands them, where they lie, to an `Editor`, which does the
work; `pipe.editor` is that editor, with sessions and live drags. A name of diffusers' means what it
means there; what this engine adds has its own name.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.utils import BaseOutput
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from ..config import DragConfig, shown
from ..diffusion.load import CARD, EMBEDDED, defaults_of
from ..diffusion.lora.adapter import Adapter
from ..drag.method import AnyMethod
from ..drag.scene import Scene
from ..editor import Editor
from ..errors import CancelledError, ConfigError
from ..inputs.image import Image, ImageLike
from ..inputs.mask import MaskLike
from ..inputs.points import PointsLike
from ..pipelines.diffusion import DIFFUSION
from ..session.request import row_of, settings_of
from ..session.result import EditResult
from ..stages import Denoising
from ..system.files import write_whole

__all__ = ["CUSTOM_PIPELINE", "DragNoisePipeline", "DragNoisePipelineOutput"]

CUSTOM_PIPELINE: Final = str(Path(__file__).parent / "custom_pipeline")
"""For `DiffusionPipeline.from_pretrained(folder, custom_pipeline=CUSTOM_PIPELINE)`."""

OnStepEnd: TypeAlias = Callable[[Any, int, int, dict[str, Any]], Mapping[str, Any]]
"""(pipeline, step, timestep, tensors by name) -> those that shall go on, by name."""

OutputType: TypeAlias = Literal["pil", "np", "pt", "latent"]

_NAMED = {"num_inference_steps": "steps", "strength": "strength", "guidance_scale": "guidance"}
"""What diffusers calls settings of ours."""


@dataclass
class DragNoisePipelineOutput(BaseOutput):  # type: ignore[misc]
    """The output of a drag.

    Attributes:
        images: [PIL.Image], or by `output_type` float32 [1, H, W, 3] (numpy) or [1, 3, H, W]
            (torch) in 0..1, or the clean latent [1, 4, h, w].
        nsfw_content_detected: [bool] of a safety checker; None without one.
        result: Where the points ended, losses, times, settings.
    """

    images: Any
    nsfw_content_detected: list[bool] | None
    result: EditResult


class DragNoisePipeline(DiffusionPipeline):  # type: ignore[misc]
    """A pipeline that drags what lies under handle points to target points.

    Args:
        vae: The autoencoder.
        text_encoder: CLIP's.
        tokenizer: Its tokenizer.
        unet: Of the family of Stable Diffusion 1.x and 2.x.
        scheduler: Any: its noise schedule is read, and DDIM is run with it.
        safety_checker: Looks at the edited picture; None: nobody does.
        feature_extractor: The checker's.
        image_encoder: Held for other pipelines that are made of this one; not used.
        requires_safety_checker: Kept for these.
    """

    model_cpu_offload_seq = None
    _optional_components: Final = ["safety_checker", "feature_extractor", "image_encoder"]
    _callback_tensor_inputs: Final = ["latents"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        safety_checker: StableDiffusionSafetyChecker | None = None,
        feature_extractor: CLIPImageProcessor | None = None,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        requires_safety_checker: bool = False,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            safety_checker=safety_checker,
            feature_extractor=feature_extractor,
            image_encoder=image_encoder,
        )
        self.register_to_config(requires_safety_checker=requires_safety_checker)
        self._interrupt = False
        self._guidance_scale = 1.0
        self._num_timesteps = 0
        self.drag_settings = DragConfig()  # of a call that is given none
        self._adapter: tuple[Adapter | None, float] = (None, 1.0)
        self._edits: tuple[tuple[object, ...], Editor] | None = None

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None = None, **options: Any
    ) -> Self:
        """Load a diffusers folder; None: the embedded model. Options are diffusers' own.

        The text encoder gets the network's precision: transformers leaves it in that of its file.
        """
        source = (
            EMBEDDED if pretrained_model_name_or_path is None else pretrained_model_name_or_path
        )
        loaded: Self = super().from_pretrained(source, **options)
        if loaded.text_encoder is not None and loaded.unet is not None:
            loaded.text_encoder.to(loaded.unet.dtype)
        loaded.drag_settings = defaults_of(Path(source))
        return loaded

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **options: Any) -> Self:
        """Return one of another pipeline's components, in their memory. Options are diffusers'."""
        made: Self = super().from_pipe(pipeline, **options)
        made.drag_settings = getattr(pipeline, "drag_settings", made.drag_settings)
        return made

    def save_pretrained(self, save_directory: str | os.PathLike[str], **options: Any) -> None:
        """Write a folder that this, diffusers' own pipelines and the engine open."""
        super().save_pretrained(save_directory, **options)
        settings = json.dumps(self.drag_settings.to_dict(), indent=1)
        card = Path(save_directory) / CARD
        write_whole(card, lambda part: part.write_text(settings, encoding="utf-8"))

    @property
    def editor(self) -> Editor:
        """The editor on these components, where they lie now: sessions, live drags, its settings.

        It is made anew when a component was replaced, moved or cast, or with other `drag_settings`.
        """
        parts = (self.vae, self.text_encoder, self.tokenizer, self.unet, self.scheduler)
        where = tuple(
            (part.device, part.dtype) for part in parts if isinstance(part, torch.nn.Module)
        )
        key = (*map(id, parts), where, self.drag_settings)
        if self._edits is None or self._edits[0] != key:
            self._edits = (key, Editor.from_pipeline(self, defaults=self.drag_settings))
        return self._edits[1]

    @property
    def interrupt(self) -> bool:
        """Whether the call that runs shall end."""
        return self._interrupt

    @property
    def guidance_scale(self) -> float:
        """The last call's guidance."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """The denoising steps of the last call."""
        return self._num_timesteps

    def load_lora_weights(
        self, adapter: Adapter | str | os.PathLike[str], adapter_scale: float = 1.0
    ) -> None:
        """Merge an adapter into the weights while this pipeline works, instead of another.

        Args:
            adapter: A file of diffusers, PEFT or kohya, or an `Adapter`.
            adapter_scale: How many times it is merged.

        Raises:
            AdapterError: It is damaged, or does not fit the model.
        """
        loaded = adapter if isinstance(adapter, Adapter) else Adapter.load(adapter)
        self._adapter = (loaded, adapter_scale)

    def unload_lora_weights(self) -> None:
        """Work with the bare weights again."""
        self._adapter = (None, 1.0)

    @torch.no_grad()
    def __call__(
        self,
        image: ImageLike,
        points: PointsLike,
        prompt: str = "",
        negative_prompt: str = "",
        mask_image: MaskLike | None = None,
        *,
        grip_image: MaskLike | None = None,
        preset: str | None = None,
        method: str | AnyMethod | None = None,
        config: Any = None,
        num_inference_steps: int | None = None,
        strength: float | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        callback_on_step_end: OnStepEnd | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        timeout_s: float | None = None,
    ) -> DragNoisePipelineOutput | tuple[Any, list[bool] | None]:
        """Move what is under the handles to the targets and keep the rest.

        Args:
            image: One picture, in any form that `Image.of` takes, or a tensor [3, H, W] or
                [1, 3, H, W] in 0..1, as diffusers' pipelines give them.
            points: Pairs ((x, y), (x, y)) of handle and target, in pixels, or `Points`.
            prompt: What the picture shows.
            negative_prompt: What guidance draws away from.
            mask_image: White may change; None sets no limit.
            grip_image: White moves as one piece, where the method grips.
            preset: A name in `PRESETS`; instead of `method` and `config`.
            method: A name in `METHODS`; None: DragNoise.
            config: The method's settings.
            num_inference_steps: Of the whole schedule; None: as the settings say.
            strength: The share of it that is inverted and denoised, likewise.
            guidance_scale: Likewise; 1 is none.
            generator: Accepted, as by every pipeline, and neither read nor advanced: a drag draws
                nothing at random, and its noise comes from the picture.
            output_type: See `DragNoisePipelineOutput`.
            return_dict: False: a tuple of pictures and the checker's answers.
            callback_on_step_end: Called after every denoising step with (pipeline, step, timestep,
                tensors), in the engine's thread. What it returns as "latents" goes on. Where it
                sets `pipe._interrupt`, the picture is decoded as it is then.
            callback_on_step_end_tensor_inputs: Of `_callback_tensor_inputs`.
            timeout_s: Seconds within which it must end.

        Raises:
            ConfigError: For what does not fit, naming it.
            CancelledError: It was interrupted before the denoising.
            DragnoiseError: See `Editor.edit`.
        """
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        self._check(output_type, callback_on_step_end_tensor_inputs)
        editor = self.editor
        row = row_of(method, preset)
        settings = settings_of(row, config, editor.defaults, preset)
        changes = {"num_inference_steps": num_inference_steps, "strength": strength}
        settings = _changed(settings, changes | {"guidance_scale": guidance_scale})
        self._interrupt = False
        self._guidance_scale = getattr(settings, "guidance", 1.0)
        self._num_timesteps = getattr(settings, "active_steps", 0)
        steps = _Steps(self, callback_on_step_end, tuple(callback_on_step_end_tensor_inputs))
        if row.pipeline is DIFFUSION:
            row = steps.watched(row)
        elif output_type == "latent" or callback_on_step_end is not None:
            wanted = "latent" if output_type == "latent" else "step to call back after"
            raise ConfigError(f"the method {row.name} has no {wanted}; take another")
        adapter, scale = self._adapter
        with closing(_Progress(self)) as progress:
            result = editor.edit(
                _picture(image),
                points,
                prompt=prompt,
                negative_prompt=negative_prompt,
                adapter=adapter,
                adapter_scale=scale,
                mask=mask_image,
                grip=grip_image,
                method=row,
                config=settings,
                progress=progress,
                timeout_s=timeout_s,
            )
        pixels, unsafe = self._looked_at(result.image)
        images = steps.latents if output_type == "latent" else _given(pixels, output_type)
        if not return_dict:
            return images, unsafe
        return DragNoisePipelineOutput(images, unsafe, result)

    def _check(self, output_type: object, tensors: Sequence[str]) -> None:
        known = OutputType.__args__  # type: ignore[attr-defined]
        if output_type not in known:
            raise ConfigError(f"output_type must be one of {known}, got {shown(output_type)}")
        others = [name for name in tensors if name not in self._callback_tensor_inputs]
        if others:
            raise ConfigError(
                f"callback_on_step_end_tensor_inputs must be of {self._callback_tensor_inputs}, "
                f"got {shown(others)}"
            )

    def _looked_at(self, image: Image) -> tuple[npt.NDArray[np.uint8], list[bool] | None]:
        """Return a picture's pixels as the safety checker leaves them, and its answer."""
        if self.safety_checker is None:
            return image.pixels, None
        if self.feature_extractor is None:
            raise ConfigError(
                "the safety checker needs a feature_extractor; give one, or safety_checker=None"
            )
        picture = PIL.Image.fromarray(image.pixels)
        seen = self.feature_extractor(picture, return_tensors="pt").pixel_values
        checker = self.safety_checker
        checked, unsafe = checker(
            images=image.pixels[None].astype(np.float32) / 255,
            clip_input=seen.to(checker.device, checker.dtype),
        )
        return (checked[0] * 255).round().astype(np.uint8), unsafe


@dataclass
class _Steps:
    """The denoising steps of a call, as diffusers shows them.

    Attributes:
        pipe: Whose call it is.
        callback: Called after every step; None: nobody is.
        tensors: The names of what it is given.
        latents: The last step's.
    """

    pipe: DragNoisePipeline
    callback: Any
    tensors: tuple[str, ...]
    latents: Tensor | None = None

    def watched(self, row: AnyMethod) -> AnyMethod:
        """Return a method whose denoising comes by here."""

        def finish(scene: Scene[Any, Any], constants: Any, variable: Tensor) -> Denoising:
            denoising: Denoising = row.finish(scene, constants, variable)
            place = scene.place
            timesteps = [step for _, step in place.schedule.active(place.active_steps)]

            def after(done: int, latent: Tensor) -> Tensor:
                if denoising.after is not None:
                    latent = denoising.after(done, latent)
                self.latents = self._called(done - 1, timesteps[done - 1], latent)
                return self.latents

            return dataclasses.replace(denoising, after=after, ended=lambda: self.pipe.interrupt)

        return dataclasses.replace(row, finish=finish)

    def _called(self, step: int, timestep: int, latent: Tensor) -> Tensor:
        if self.callback is None:
            return latent
        given = {"latents": latent} if "latents" in self.tensors else {}
        answer = self.callback(self.pipe, step, timestep, given)
        latents = latent if answer is None else answer.get("latents", latent)
        if not isinstance(latents, Tensor) or latents.shape != latent.shape:
            seen = list(latents.shape) if isinstance(latents, Tensor) else shown(latents)
            raise ConfigError(f"the callback's latents must be {list(latent.shape)}, got {seen}")
        return latents.to(latent)


class _Progress:
    """diffusers' progress bar over all long stages; it also ends what is interrupted."""

    def __init__(self, pipe: DragNoisePipeline) -> None:
        self._pipe = pipe
        self._bar: Any = None
        self._stage = ""
        self._done = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != "propagate" and self._pipe.interrupt:
            raise CancelledError(f"it was interrupted in its stage {stage}")
        if stage != self._stage:
            self.close()
            self._stage, self._done = stage, 0
            self._bar = self._pipe.progress_bar(total=total)
            self._bar.set_description(stage)
        self._bar.update(done - self._done)
        self._done = done

    def close(self) -> None:
        """Close the bar that is shown."""
        if self._bar is not None:
            self._bar.close()


def _changed(settings: Any, changes: Mapping[str, Any]) -> Any:
    """Return settings with what diffusers calls by other names."""
    given = {_NAMED[name]: value for name, value in changes.items() if value is not None}
    fields = {field.name for field in dataclasses.fields(settings)}
    unknown = [name for name, ours in _NAMED.items() if ours in given and ours not in fields]
    if unknown:
        raise ConfigError(f"{type(settings).__name__} has no {', '.join(unknown)}; leave it out")
    return settings.replace(**given) if given else settings


def _picture(image: Any) -> Any:
    """Return one picture as `Image.of` takes it."""
    if isinstance(image, list | tuple):
        if len(image) != 1:
            raise ConfigError(f"a call drags on one picture, got {len(image)}; call once for each")
        return _picture(image[0])
    if isinstance(image, np.ndarray | Tensor) and image.ndim == 4:
        return _picture(list(image))
    if isinstance(image, Tensor) and image.ndim == 3 and image.shape[0] == 3:
        return image.detach().float().cpu().permute(1, 2, 0).numpy()
    return image


def _given(pixels: npt.NDArray[np.uint8], output_type: str) -> Any:
    """Return a picture as diffusers gives it out."""
    if output_type == "pil":
        return [PIL.Image.fromarray(pixels)]
    scaled = pixels[None].astype(np.float32) / 255
    return scaled if output_type == "np" else torch.from_numpy(scaled).permute(0, 3, 1, 2)
