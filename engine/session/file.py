"""A session as one file: its pictures, their inversions, every state to undo or redo.

What follows from these is not kept but computed again: the same bits, on the same machine with the
same versions and threads.
"""

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from ..cache.digest import environment_digest
from ..cache.sealed import BrokenError, Json, LayoutError, Sealed, read_sealed, write_sealed
from ..config import DiffusionSettings, DragConfig, Settings
from ..diffusion.lora.adapter import Adapter, AdapterUse
from ..diffusion.model import Model, latent_shape
from ..errors import AdapterError, DragnoiseError, InputWarning, SessionError
from ..inputs.image import Image
from ..methods import METHODS
from ..pipelines.generated import Generated
from ..pipelines.source import Source
from ..system.incoming import first_line, told_as
from ..system.numerics import own_numerics
from ..system.schema import Row, Whole
from .layout import (
    ABOUT,
    SETTINGS,
    VALUE,
    VERSION,
    SavedSource,
    SavedState,
    drag_rule,
    trajectory_rule,
)
from .state import LastDrag, SessionState, State

__all__ = ["read_session", "write_session"]

_NAME = "session"


@own_numerics()
def write_session(
    path: str | os.PathLike[str],
    session: SessionState,
    model: Model,
    prepared: Iterable[tuple[Source, str, tuple[Tensor, ...]]] = (),
) -> Path:
    """Write a session, whole or not at all, and return its path.

    Args:
        prepared: (source, key, inversion) of preparations that no drag has used yet.

    Raises:
        OutputError: The file cannot be written there.
    """
    sources = list(dict.fromkeys(state.source for state in session.states))
    inversions = {source: dict(source.inversions) for source in sources}
    for state in session.states:
        if state.drag is not None:
            inversions[state.source][state.drag.key] = state.drag.inversion
    for source, key, inversion in prepared:
        inversions.setdefault(source, {})[key] = inversion
    pixels = cache(_pixels_out)  # a picture that is also a source is written once
    value = (
        tuple(_saved_source(source, inversions[source], pixels) for source in sources),
        tuple(_saved_state(state, sources, pixels) for state in session.states),
        _matrices_out(session.use.adapter),
    )
    about: dict[str, Json] = {
        "model": model.digest,
        "environment": environment_digest(model.device),
        "at": session.at,
        "config": _settings_out(session.config),
        "undo_bytes": session.undo_bytes,
        "adapter_scale": session.use.scale,
    }
    return write_sealed(path, _NAME, about, value, version=VERSION)


@own_numerics()
def read_session(path: str | os.PathLike[str], model: Model) -> SessionState:
    """Read a session that was written for this model.

    Raises:
        SessionError: The file is missing, damaged, of another layout or of another model, or holds
            something else than a session.
    """
    try:
        file = read_sealed(path, _NAME, version=VERSION, device=model.device)
    except LayoutError as other:
        raise SessionError(f"the session {str(path)!r} cannot be read: {other}") from other
    except BrokenError as wrong:
        raise SessionError(
            f"no session can be read from {str(path)!r} ({wrong}); "
            "give a file that a session was saved to"
        ) from wrong
    with _refused(path):
        ABOUT.check(file.about, "")
    if file.about["model"] != model.digest:
        raise SessionError(
            f"{str(path)!r} was saved with other weights, precision or backend than {model.name!r} "
            "has here; open it with the editor it was saved by"
        )
    if file.about["environment"] != environment_digest(model.device):
        warnings.warn(
            f"{str(path)!r} was saved on another machine, with other versions or another number of "
            "threads: drags may differ by rounding",
            InputWarning,
            stacklevel=4,
        )
    with _refused(path):
        return _session(file, model)


@contextmanager
def _refused(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise whatever is wrong with a file's contents as SessionError, in one line."""
    what = f"the session {str(path)!r} holds what no session does; save it again where it was made"
    try:
        with told_as(SessionError, what):
            yield
    except SessionError:
        raise
    except DragnoiseError as wrong:  # of settings, pictures, adapters
        raise SessionError(f"{what} ({first_line(wrong)})") from wrong


def _session(file: Sealed, model: Model) -> SessionState:
    VALUE.check(file.value, "value")
    saved_sources, saved_states, matrices = file.value
    about = file.about
    Whole(0, len(saved_states) - 1).check(about["at"], "at")
    image = cache(_image)
    sources = [_source(saved, image, model) for saved in saved_sources]
    states = [_state(saved, sources, image, model.factor) for saved in saved_states]
    return SessionState(
        states=tuple(states),
        at=about["at"],
        config=_settings_in(about["config"]),
        undo_bytes=about["undo_bytes"],
        use=AdapterUse(_adapter(matrices, model), about["adapter_scale"]),
    )


def _saved_source(
    source: Source,
    inversions: dict[str, tuple[Tensor, ...]],
    pixels: Callable[[Image], Tensor],
) -> SavedSource:
    generated = source.generated
    return SavedSource(
        pixels=pixels(source.image),
        prompt=source.prompt,
        negative_prompt=source.negative_prompt,
        inversions=tuple(inversions.items()) if generated is None else (),
        trajectory=None if generated is None else generated.trajectory,
        seed=0 if generated is None else generated.seed,
        settings="" if generated is None else _settings_out(generated.config),
    )


def _source(saved: SavedSource, image: Callable[[Tensor], Image], model: Model) -> Source:
    picture = image(saved.pixels)
    texts = (saved.prompt, saved.negative_prompt)
    if saved.trajectory is None:
        return Source(picture, *texts, None, dict(saved.inversions))
    config = _settings_in(saved.settings)
    if not isinstance(config, DiffusionSettings):
        raise SessionError("a generated picture's settings are those of no diffusion model")
    shape = latent_shape(model, (picture.height, picture.width))
    trajectory_rule(config.steps + 1, shape).check(saved.trajectory, "trajectory")
    generated = Generated(picture, saved.trajectory, *texts, saved.seed, config, model.name, {})
    return Source(picture, *texts, generated)


def _saved_state(
    state: State, sources: Sequence[Source], pixels: Callable[[Image], Tensor]
) -> SavedState:
    number = sources.index(state.source)
    drag = state.drag
    if drag is None:
        return SavedState(number, pixels(state.image), "", ())
    tensors = (drag.begun, drag.variable, drag.placed, drag.now)
    return SavedState(number, pixels(state.image), drag.key, tensors)


def _state(
    saved: SavedState,
    sources: Sequence[Source],
    image: Callable[[Tensor], Image],
    factor: int,
) -> State:
    Whole(0, len(sources) - 1).check(saved.source, "source")
    source = sources[saved.source]
    picture = image(saved.pixels)
    if picture.pixels.shape != source.image.pixels.shape:
        raise SessionError(
            f"a picture has {picture.width}x{picture.height} pixels, its source "
            f"{source.image.width}x{source.image.height}"
        )
    if not saved.key:
        Row(()).check(saved.tensors, "tensors of a picture without a drag")
        return State(source, picture)
    drag_rule(max(picture.pixels.shape) + factor).check(saved.tensors, "tensors")
    begun, variable, placed, now = saved.tensors
    if begun.shape != variable.shape or placed.shape != now.shape:
        raise SessionError("a drag ends with tensors of other shapes than it began with")
    inversion = source.inversions.get(saved.key, ())
    return State(source, picture, LastDrag(saved.key, inversion, begun, variable, placed, now))


def _pixels_out(image: Image) -> Tensor:
    return torch.from_numpy(image.pixels.copy())


def _image(pixels: Tensor) -> Image:
    return Image(pixels.cpu().numpy())


def _matrices_out(adapter: Adapter | None) -> tuple[tuple[str, Tensor, Tensor], ...] | None:
    """Return an adapter's matrices, each in memory of its own."""
    if adapter is None:
        return None
    return tuple((name, down.clone(), up.clone()) for name, down, up in adapter.matrices)


def _adapter(
    matrices: tuple[tuple[str, Tensor, Tensor], ...] | None, model: Model
) -> Adapter | None:
    layers = dict(model.unet.held.network.named_modules())
    for name, down, up in matrices or ():
        layer = layers.get(name)
        wanted = tuple(layer.weight.shape) if isinstance(layer, nn.Linear) else None
        if (len(up), down.shape[1]) != wanted or len(down) != up.shape[1]:
            raise AdapterError(f"its adapter changes {name[:100]!r} as this model's cannot be")
    return None if matrices is None else Adapter(matrices)


def _settings_out(settings: Settings) -> str:
    kind = type(settings).__name__
    return json.dumps({"kind": kind, "values": settings.to_dict()})


def _settings_in(text: str) -> Settings:
    """Return the settings of a method that this release has."""
    saved = json.loads(text)
    SETTINGS.check(saved, "config")
    kinds = {DragConfig.__name__: DragConfig}
    kinds |= {method.settings.__name__: method.settings for method in METHODS.values()}
    if saved["kind"] not in kinds:
        raise SessionError("its settings are those of a method that this release does not have")
    settings: Settings = kinds[saved["kind"]](**saved["values"])
    return settings
