"""An edit with a diffusion model, from top to bottom.

    image -> encode -> invert -> (the drag) -> propagate -> decode -> image

`prepare` is everything before a point is known, `finish` everything after the drag; the drag's loop
between them (`drag/loop.py`) is the method's. Every stage goes through `run`, which finds what it
has made before.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..config import DiffusionSettings
from ..diffusion.lora.adapter import AdapterUse
from ..diffusion.model import Model, latent_shape
from ..diffusion.place import Place
from ..diffusion.vae import Autoencoder
from ..drag.loop import Iteration, Optimum
from ..drag.method import AnyMethod, Start
from ..drag.scene import Scene
from ..drag.start import start
from ..errors import SessionError
from ..inputs.frame import Frame
from ..inputs.image import Image
from ..run import Run
from ..stages import (
    condition,
    decode,
    denoise,
    embed,
    encode,
    invert,
    preview,
    propagate,
    show,
)
from .pipeline import Finished, OnStep, Pipeline, Prepared, Rounds
from .prompts import notice_prompts
from .record import Record
from .source import Source, preparation_key
from .unknown import notice_picture

__all__ = ["DIFFUSION", "finish", "prepare"]

NO_ADAPTER = AdapterUse()


def prepare(
    run: Run,
    model: Model,
    source: Source,
    method: AnyMethod,
    settings: DiffusionSettings,
    use: AdapterUse = NO_ADAPTER,
    *,
    on_step: OnStep | None = None,
) -> Prepared[Place]:
    """Bring a picture to the place where it is dragged: encode, invert, and the method's start.

    Args:
        settings: Only its `preparation` is read.
        use: The adapter that is merged into the model's weights now.
        on_step: Called with the inverted steps done.
    """
    how = settings.preparation
    bare = run.once(method.prepare, model)
    tuned = run.once(_tagged, bare, use)
    frame = Frame.of(source.image, bare.factor, how.parity)
    negative = source.negative_prompt if how.guidance > 1 else None

    known = _known_trajectory(source, frame, model, how, preparation_key(method, settings, use))

    text = run(embed, bare, source.prompt, negative)
    latent = known[0] if known else run(encode, bare, _pixels(run, frame, source.image))
    conditioning = run(condition, tuned, text, how.steps, how.guidance)
    trajectory = known or run(
        invert, tuned, latent, conditioning, how.active_steps, on_step=on_step
    )
    place = run.once(Place.at, tuned, trajectory[-1], conditioning, how.active_steps)
    return Prepared(
        source=source,
        frame=frame,
        inversion=trajectory,
        place=place,
        start=run(start, method, place),
        cells=(place.latent.shape[2], place.latent.shape[3]),
        device=bare.device,
        dtype=torch.float32 if method.exact else bare.unet.compares_in,
        notices=run.once(notice_prompts, bare, source.prompt, source.negative_prompt, how.guidance),
    )


def finish(
    run: Run,
    method: AnyMethod,
    scene: Scene[Place, Any],
    optimum: Optimum,
    *,
    on_step: OnStep | None = None,
    on_shown: OnStep | None = None,
) -> Finished:
    """Turn a drag's optimum into a picture: denoise from where the method says, and decode.

    Where the method asks for it, the denoising reads what the unedited picture's own shows.
    """
    if method.mutual is not None:
        mutual = method.mutual(scene.settings)
        how = (mutual.first_step, mutual.first_layer)
        scene = replace(scene, shown=run(show, scene.place, *how, on_step=on_shown))
    latent = run(propagate, method, scene, optimum.constants, optimum.variable, on_step=on_step)
    return Finished(latent, run(decode, scene.place.model, latent), scene)


def _preview(
    run: Run,
    method: AnyMethod,
    scene: Scene[Place, Any],
    start: Start[Any],
    iteration: Iteration[Any],
    decoder: Any = None,
) -> Tensor:
    vae = None if decoder is None else Autoencoder(decoder)
    return run(preview, method, scene, start.constants, iteration, vae)


def _record(
    prepared: Prepared[Place], scene: Scene[Place, Any], optimum: Optimum, end: Finished
) -> Record:
    text = prepared.place.text
    return Record(
        scene=end.scene,
        optimum=optimum,
        text=text,
        trajectory=prepared.inversion,
        final_latent=end.latent,
        pixels=end.pixels,
    )


def _pixels(run: Run, frame: Frame, image: Image) -> Tensor:
    return run.once(Frame.pixels, frame, image)


def _tagged(model: Model, use: AdapterUse) -> Model:
    return use.tag(model)


def _known_trajectory(
    source: Source, frame: Frame, model: Model, how: Any, key: str
) -> tuple[Tensor, ...] | None:
    """Return `active_steps` + 1 latents, where the picture was generated or inverted before.

    Raises:
        ConfigError: Where a generated picture has another model, steps or guidance.
        SessionError: Where what was read of a file is no inversion of the picture.
    """
    generated = source.generated
    if generated is None:
        inversion = source.inversions.get(key)
        shapes = {tuple(latent.shape) for latent in inversion or ()}
        if inversion and (
            shapes != {latent_shape(model, frame.padded)} or len(inversion) != how.active_steps + 1
        ):
            raise SessionError(
                f"the session's file has {len(inversion)} latents of {sorted(shapes)} as the "
                "picture's inversion, which is no inversion of it; open the picture anew"
            )
        return inversion
    generated.check(model=model.name, steps=how.steps, guidance=how.guidance)
    return generated.trajectory[: how.active_steps + 1]


def _places(run: Run, prepared: Prepared[Place]) -> tuple[Place, ...]:
    """Return the place of a preparation and those of the steps after it, unedited."""
    return run.once(_later_places, prepared.place, prepared.inversion)


def _later_places(place: Place, inversion: tuple[Tensor, ...]) -> tuple[Place, ...]:
    later = (
        Place.at(place.model, inversion[active], place.conditioning, active)
        for active in range(place.active_steps - 1, 0, -1)
    )
    return (place, *later)


DIFFUSION = Pipeline(
    "diffusion", prepare, finish, _preview, _record, notice_picture, Rounds(_places, denoise)
)
