"""An edit with a generator, from top to bottom.

    image -> find_styles -> (the drag) -> synthesise -> image

`prepare` is everything before a point is known, `finish` everything after the drag. A picture that
the generator made itself (`StyledPicture`) is not searched for: its style vectors are known.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..config import DragGANConfig
from ..diffusion.lora.adapter import AdapterUse
from ..drag.loop import Iteration, Optimum
from ..drag.method import AnyMethod, Start
from ..drag.scene import Scene
from ..drag.start import start
from ..errors import ConfigError, InputWarning, SessionError
from ..gan.frame import StyleFrame
from ..gan.model import GeneratorModel, StylePlace
from ..run import Run
from ..stages.styles import find_styles, synthesise
from .pipeline import Finished, OnStep, Pipeline, Prepared
from .record import Intermediates
from .runtime import Runtime
from .source import Source, preparation_key
from .styled import own_key

__all__ = ["STYLES", "StyleRecord"]

NO_ADAPTER = AdapterUse()

ENOUGH_DB = 24.0
"""What a picture that the generator knows is rebuilt with, and more."""


@dataclass(frozen=True, eq=False, kw_only=True)
class StyleRecord(Intermediates):
    """Every intermediate of an edit, kept only when asked for; tensors on the model's device.

    Attributes:
        rows: The picture's style vectors before the drag, float32 [1, rows, w].
        pixels: As synthesised, float32 [1, 3, size, size], nominally in -1..1.
        frame: Where the picture lies in the generator's.
    """

    rows: Tensor
    pixels: Tensor
    frame: StyleFrame


def prepare(
    run: Run,
    model: GeneratorModel,
    source: Source,
    method: AnyMethod,
    settings: DragGANConfig,
    use: AdapterUse = NO_ADAPTER,
    *,
    on_step: OnStep | None = None,
) -> Prepared[StylePlace]:
    """Bring a picture to the place where it is dragged: its style vectors, and the method's start.

    Args:
        settings: Only its `preparation` is read.
        use: Of no meaning here: an adapter is a diffusion model's.
        on_step: Called with the updates of the search done.
    """
    how = settings.preparation
    size = model.architecture.size
    if how.rows > model.architecture.rows:
        raise ConfigError(
            f"rows is {how.rows}, but the generator has {model.architecture.rows} style vectors"
        )
    frame = StyleFrame.around(source.image, size)
    pixels = run.once(StyleFrame.pixels, frame, source.image)
    known = _known(source, model, preparation_key(method, settings, use, model.digest))
    rows = run(find_styles, model, pixels, how, on_step=on_step) if known is None else known
    place = run.once(StylePlace.at, model, rows, how.rows)
    return Prepared(
        source=source,
        frame=frame,
        inversion=(rows,),
        place=place,
        start=run(start, method, place),
        cells=(size, size),
        device=model.device,
        dtype=torch.float32,
        notices=run.once(_notices, place, pixels, frame),
    )


def finish(
    run: Run,
    method: AnyMethod,
    scene: Scene[StylePlace, Any],
    optimum: Optimum,
    *,
    on_step: OnStep | None = None,
    on_shown: OnStep | None = None,
) -> Finished:
    """Turn a drag's optimum into a picture."""
    pixels = run(synthesise, method, scene, optimum.constants, optimum.variable)
    return Finished(optimum.variable, pixels, scene)


def _preview(
    run: Run,
    method: AnyMethod,
    scene: Scene[StylePlace, Any],
    start: Start[Any],
    iteration: Iteration[Any],
    decoder: Any = None,
) -> Tensor:
    """Return the picture that the iteration made anyway."""
    return method.preview(scene, start.constants, iteration.variable, iteration.forward)


def _record(
    prepared: Prepared[StylePlace], scene: Scene[StylePlace, Any], optimum: Optimum, end: Finished
) -> StyleRecord:
    assert isinstance(prepared.frame, StyleFrame)
    return StyleRecord(
        scene=end.scene,
        optimum=optimum,
        rows=prepared.place.rows,
        pixels=end.pixels,
        frame=prepared.frame,
    )


def _known(source: Source, model: GeneratorModel, key: str) -> Tensor | None:
    """Return the style vectors of a picture that was made or found before.

    Raises:
        SessionError: Where what was read of a file is none.
    """
    found = source.inversions.get(own_key(model.digest)) or source.inversions.get(key)
    if found is None:
        return None
    wanted = (1, model.architecture.rows, model.architecture.w)
    if len(found) != 1 or tuple(found[0].shape) != wanted:
        raise SessionError(
            f"the session's file has {[tuple(each.shape) for each in found]} as the picture's "
            f"style vectors, which are {wanted} here; open the picture anew"
        )
    return found[0].to(model.device)


@torch.no_grad()
def _notices(place: StylePlace, pixels: Tensor, frame: StyleFrame) -> tuple[str, ...]:
    """Say how well the generator rebuilds a picture, and that it was resized."""
    picture = place.model.synthesis.picture(place.rows).clamp(-1, 1)
    error = float((picture - pixels.to(picture.device)).square().mean())
    rebuilt_db = 10 * math.log10(4 / max(error, 1e-10))
    said = [f"the generator rebuilds the picture with {rebuilt_db:.1f} dB"]
    if rebuilt_db < ENOUGH_DB:
        said[0] += (
            f", less than {ENOUGH_DB:g}: it does not know such pictures, and edits come out as "
            "poor; raise inversion_steps, or give another generator (generator=, --generator PATH)"
        )
        warnings.warn(said[0], InputWarning, stacklevel=2)
    if frame.resizes:
        height, width = frame.image
        size = place.model.architecture.size
        said.append(f"the picture of {width}x{height} is edited as one of {size}x{size}")
    return tuple(said)


def _generator_of(runtime: Runtime) -> GeneratorModel:
    return runtime.generator


STYLES = Pipeline("styles", prepare, finish, _preview, _record, model=_generator_of)
