"""A session as one file: its pictures, their inversions, every state to undo or redo.

What follows from these is not kept but computed again: the same bits, on the same machine with the
same versions and threads.
"""

import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cache.digest import environment_digest
from ..cache.sealed import BrokenError, Json, Sealed, read_sealed, write_sealed
from ..cache.structure import storable
from ..config import DragConfig, Settings
from ..diffusion.lora.adapter import Adapter, AdapterUse
from ..diffusion.model import Model
from ..errors import DragnoiseError, InputWarning, SessionError
from ..inputs.image import Image
from ..methods import METHODS
from ..pipelines.generated import Generated
from ..pipelines.source import Source
from ..system.numerics import own_numerics
from .state import LastDrag, SessionState, State

__all__ = ["read_session", "write_session"]

_NAME = "session"
_VERSION = 2
"""Number of the layout below; raise it when that changes."""


@storable
@dataclass(frozen=True, eq=False)
class SavedSource:
    """A source in a file.

    Attributes:
        pixels: uint8 [H, W, 3].
        inversions: (key, tensors) each.
        trajectory: Of a generated picture, with its seed and its settings as JSON; else None.
    """

    pixels: Tensor
    prompt: str
    negative_prompt: str
    inversions: tuple[tuple[str, tuple[Tensor, ...]], ...]
    trajectory: tuple[Tensor, ...] | None
    seed: int
    settings: str


@storable
@dataclass(frozen=True, eq=False)
class SavedState:
    """A state in a file.

    Attributes:
        source: The number of its source.
        pixels: uint8 [H, W, 3].
        key: Of its drag's preparation; "" without a drag.
        tensors: begun, variable, placed and now of the drag.
    """

    source: int
    pixels: Tensor
    key: str
    tensors: tuple[Tensor, ...]


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
    adapter = session.use.adapter
    value = (
        tuple(_saved_source(source, inversions[source]) for source in sources),
        tuple(_saved_state(state, sources) for state in session.states),
        None if adapter is None else adapter.matrices,
    )
    about: dict[str, Json] = {
        "model": model.digest,
        "environment": environment_digest(model.device),
        "at": session.at,
        "config": _settings_out(session.config),
        "undo_bytes": session.undo_bytes,
        "adapter_scale": session.use.scale,
    }
    return write_sealed(path, _NAME, about, value, version=_VERSION)


@own_numerics()
def read_session(path: str | os.PathLike[str], model: Model) -> SessionState:
    """Read a session that was written for this model.

    Raises:
        SessionError: The file is missing, damaged, of another release or of another model.
    """
    try:
        file = read_sealed(path, _NAME, version=_VERSION, device=model.device)
    except BrokenError as wrong:
        raise SessionError(
            f"no session can be read from {str(path)!r} ({wrong}); "
            "give a file that a session was saved to"
        ) from wrong
    if file.about.get("model") != model.digest:
        raise SessionError(
            f"{str(path)!r} was saved with other weights, precision or backend than {model.name!r} "
            "has here; open it with the editor it was saved by"
        )
    if file.about.get("environment") != environment_digest(model.device):
        warnings.warn(
            f"{str(path)!r} was saved on another machine, with other versions or another number of "
            "threads: drags may differ by rounding",
            InputWarning,
            stacklevel=4,
        )
    try:
        return _session(file, model)
    except (DragnoiseError, KeyError, TypeError, ValueError, IndexError) as wrong:
        raise SessionError(
            f"the session {str(path)!r} was written by another release ({wrong}); "
            "open it with that one"
        ) from wrong


def _session(file: Sealed, model: Model) -> SessionState:
    saved_sources, saved_states, matrices = file.value
    sources = [_source(saved, model) for saved in saved_sources]
    states = tuple(_state(saved, sources) for saved in saved_states)
    adapter = None if matrices is None else Adapter(matrices)
    about = file.about
    return SessionState(
        states=states,
        at=about["at"],
        config=_settings_in(about["config"]),
        undo_bytes=about["undo_bytes"],
        use=AdapterUse(adapter, about["adapter_scale"]),
    )


def _saved_source(source: Source, inversions: dict[str, tuple[Tensor, ...]]) -> SavedSource:
    generated = source.generated
    return SavedSource(
        pixels=_pixels_out(source.image),
        prompt=source.prompt,
        negative_prompt=source.negative_prompt,
        inversions=tuple(inversions.items()) if generated is None else (),
        trajectory=None if generated is None else generated.trajectory,
        seed=0 if generated is None else generated.seed,
        settings="" if generated is None else _settings_out(generated.config),
    )


def _source(saved: SavedSource, model: Model) -> Source:
    image = Image(saved.pixels.cpu().numpy())
    generated = None
    if saved.trajectory is not None:
        config: Any = _settings_in(saved.settings)
        generated = Generated(
            image,
            saved.trajectory,
            saved.prompt,
            saved.negative_prompt,
            saved.seed,
            config,
            model.name,
            {},
        )
    inversions = dict(saved.inversions)
    return Source(image, saved.prompt, saved.negative_prompt, generated, inversions)


def _saved_state(state: State, sources: Sequence[Source]) -> SavedState:
    number = sources.index(state.source)
    pixels = _pixels_out(state.image)
    drag = state.drag
    if drag is None:
        return SavedState(number, pixels, "", ())
    tensors = (drag.begun, drag.variable, drag.placed, drag.now)
    return SavedState(number, pixels, drag.key, tensors)


def _state(saved: SavedState, sources: Sequence[Source]) -> State:
    source = sources[saved.source]
    image = Image(saved.pixels.cpu().numpy())
    if not saved.key:
        return State(source, image)
    inversion = source.inversions.get(saved.key, ())
    return State(source, image, LastDrag(saved.key, inversion, *saved.tensors))


def _pixels_out(image: Image) -> Tensor:
    return torch.from_numpy(image.pixels.copy())


def _settings_out(settings: Settings) -> str:
    kind = type(settings).__name__
    return json.dumps({"kind": kind, "values": settings.to_dict()})


def _settings_in(text: str) -> Settings:
    """Return the settings of a method that this release has. Raises KeyError for others."""
    saved = json.loads(text)
    kinds = {DragConfig.__name__: DragConfig}
    kinds |= {method.settings.__name__: method.settings for method in METHODS.values()}
    settings: Settings = kinds[saved["kind"]](**saved["values"])
    return settings
