"""Learning a picture for a session: an adapter of it, and what is left of a training that was interrupted, in memory or as a file."""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import stages
from ..cache import BrokenError, flatten, kinds_of, rebuild, seal, unseal
from ..cache.digest import digest
from ..config import PersonaliseConfig
from ..diffusion.lora.adapter import Adapter, AdapterUse
from ..errors import SessionError
from ..inputs.frame import Frame
from ..pipelines.runtime import Runtime
from ..pipelines.source import Source
from ..run import Run
from ..stages import Learning
from ..system.files import writable, write_whole

__all__ = ["Learner"]

_NAME, _KINDS = "learning", kinds_of((Learning,))


@dataclass(frozen=True, eq=False)
class _Left:
    """An interrupted training, and of what."""

    source: Source
    config: PersonaliseConfig
    state: Learning


class Learner:
    """Learns pictures with an editor's model; an interrupted training goes on when the same is asked for again."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._left: _Left | None = None

    def learn(
        self, source: Source, config: PersonaliseConfig, on_step: Callable[[int, float], None]
    ) -> Adapter:
        """The adapter. on_step: told the steps done and the loss; what it raises interrupts."""
        left, states = self._left, list[Callable[[], Learning]]()
        goes_on = left is not None and left.config == config and left.source is source

        def watch(done: int, loss: float, state: Callable[[], Learning]) -> None:
            states[:] = [state]
            on_step(done, loss)

        with self._runtime.working(AdapterUse()):
            model, run = self._runtime.model, Run(self._runtime.observers, self._runtime.keeper())
            latent = run(
                stages.encode, model, Frame.of(source.image, model.factor).pixels(source.image)
            )
            text = run(stages.embed, model, source.prompt, None)
            begun = left.state if left is not None and goes_on else None
            try:
                found = run(
                    stages.personalise, model, latent, text, config, resume=begun, on_step=watch
                )
            except BaseException:
                self._left = _Left(source, config, states[0]()) if states else left
                raise
        self._left = None
        return found

    def save(self, path: str | os.PathLike[str]) -> Path | None:
        """What is left, whole or not at all; None if nothing is. Raises OutputError."""
        left = self._left
        if left is None:
            return None
        target = writable(path, (".safetensors",))
        structure, tensors = flatten(left.state, _KINDS)
        about = {
            "config": dataclasses.asdict(left.config),
            "key": self._key(left.source),
            "structure": structure,
        }
        raw = seal(_NAME, about, tensors)
        return write_whole(target, lambda part: part.write_bytes(raw))

    def resume(self, path: str | os.PathLike[str], source: Source) -> None:
        """What `save` wrote is left again. Raises SessionError for a file that is not there, is not whole, or belongs to another picture or model."""
        try:
            about, tensors = unseal(Path(path).read_bytes(), _NAME)
        except (OSError, BrokenError) as wrong:
            raise SessionError(
                f"no training can be read from {str(path)!r} ({wrong}); remove it to begin anew"
            ) from wrong
        if about["key"] != self._key(source):
            raise SessionError(
                f"{str(path)!r} was begun with another picture, prompt or model; remove it to begin anew"
            )
        placed = [tensor.to(self._runtime.model.device) for tensor in tensors]
        state: Learning = rebuild(about["structure"], placed, _KINDS)
        self._left = _Left(source, PersonaliseConfig(**about["config"]), state)

    def _key(self, source: Source) -> str:
        with self._runtime.working(AdapterUse()):
            return digest(self._runtime.model, source.image.pixels, source.prompt)
