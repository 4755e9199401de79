"""A session as one file: its pictures, their inversions, every state that can be undone or done again.

What follows from these is not kept but computed again: the same bits, on the same machine with the same versions and threads.
"""

import dataclasses
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cache import BrokenError, flatten, rebuild, seal, unseal
from ..cache.digest import environment_digest
from ..config import DragConfig
from ..diffusion.lora.adapter import Adapter, AdapterUse
from ..diffusion.model import Model
from ..errors import InputWarning, SessionError
from ..inputs.image import Image
from ..pipelines.generate import Generated
from ..pipelines.source import Source
from ..system.files import writable, write_whole
from .state import LastDrag, State

__all__ = ["SessionState", "read_session", "write_session"]

_NAME, _SUFFIXES = "session", (".safetensors",)


@dataclass(frozen=True, eq=False)
class SessionState:
    """What a session is made of. states: oldest first; at: the one that is shown. used: the adapter that is worn."""

    states: tuple[State, ...]
    at: int
    config: DragConfig
    undo_bytes: int
    used: AdapterUse


def write_session(path: str | os.PathLike[str], saved: SessionState, model: Model) -> Path:
    """Whole or not at all. Raises OutputError."""
    target = writable(path, _SUFFIXES)
    sources = list(dict.fromkeys(state.source for state in saved.states))
    value = (
        tuple(_source_out(source) for source in sources),
        tuple(_state_out(state, sources) for state in saved.states),
        None if saved.used.adapter is None else saved.used.adapter.matrices,
    )
    structure, tensors = flatten(value, {})
    about = {
        "model": model.digest,
        "surroundings": environment_digest(model.device),
        "at": saved.at,
        "config": dataclasses.asdict(saved.config),
        "undo_bytes": saved.undo_bytes,
        "adapter_scale": saved.used.scale,
        "structure": structure,
    }
    raw = seal(_NAME, about, tensors)
    return write_whole(target, lambda part: part.write_bytes(raw))


def read_session(path: str | os.PathLike[str], model: Model) -> SessionState:
    """Raises SessionError for a file that is not there, is not whole, or belongs to another model."""
    try:
        about, tensors = unseal(Path(path).read_bytes(), _NAME)
    except (OSError, BrokenError) as wrong:
        raise SessionError(
            f"no session can be read from {str(path)!r} ({wrong}); give a file that a session was saved to"
        ) from wrong
    if about["model"] != model.digest:
        raise SessionError(
            f"{str(path)!r} was saved with other weights, precision or backend than {model.name!r} has here; open it with the editor it was saved by"
        )
    if about["surroundings"] != environment_digest(model.device):
        warnings.warn(
            f"{str(path)!r} was saved on another machine, with other versions or another number of threads: drags may differ by rounding",
            InputWarning,
            stacklevel=3,
        )
    placed = [tensor.to(model.device) for tensor in tensors]
    sources_in, states_in, matrices = rebuild(about["structure"], placed, {})
    sources = [_source_in(source, model) for source in sources_in]
    states = tuple(_state_in(state, sources) for state in states_in)
    used = AdapterUse(None if matrices is None else Adapter(matrices), about["adapter_scale"])
    return SessionState(
        states, about["at"], DragConfig(**about["config"]), about["undo_bytes"], used
    )


def _source_out(source: Source) -> tuple[Any, ...]:
    made = source.generated
    known = tuple((json.dumps(key), trajectory) for key, trajectory in source.trajectories.items())
    generated = made and (made.trajectory, made.seed, json.dumps(dataclasses.asdict(made.config)))
    return (_pixels_out(source.image), source.prompt, source.negative_prompt, known, generated)


def _source_in(kept: tuple[Any, ...], model: Model) -> Source:
    pixels, prompt, negative_prompt, known, generated = kept
    image = _pixels_in(pixels)
    made = None
    if generated is not None:
        trajectory, seed, config = generated
        made = Generated(
            image,
            trajectory,
            prompt,
            negative_prompt,
            seed,
            DragConfig(**json.loads(config)),
            model.name,
            {},
        )
    trajectories = {_key(key): trajectory for key, trajectory in known}
    return Source(image, prompt, trajectories, negative_prompt=negative_prompt, generated=made)


def _state_out(state: State, sources: Sequence[Source]) -> tuple[Any, ...]:
    dragged = state.dragged
    kept = dragged and (
        json.dumps(dragged.key),
        dragged.begun,
        dragged.variable,
        dragged.placed,
        dragged.now,
    )
    return (sources.index(state.source), _pixels_out(state.image), kept)


def _state_in(kept: tuple[Any, ...], sources: Sequence[Source]) -> State:
    source, pixels, dragged = kept
    if dragged is None:
        return State(sources[source], _pixels_in(pixels))
    key, *tensors = dragged
    return State(sources[source], _pixels_in(pixels), LastDrag(_key(key), *tensors))


def _pixels_out(image: Image) -> Tensor:
    return torch.from_numpy(image.pixels.copy())


def _pixels_in(pixels: Tensor) -> Image:
    return Image(pixels.cpu().numpy())


def _key(text: str) -> tuple[Any, ...]:
    """JSON knows no tuples."""
    return tuple(tuple(part) if isinstance(part, list) else part for part in json.loads(text))
