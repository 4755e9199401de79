"""Learn a picture for a session: an adapter of it, and the rest of an interrupted training."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..cache.digest import digest
from ..cache.sealed import BrokenError, Json, read_sealed, write_sealed
from ..config import PersonaliseConfig
from ..diffusion.lora.adapter import Adapter
from ..diffusion.model import Model
from ..errors import ConfigError, NumbersError, SessionError
from ..inputs.frame import Frame
from ..pipelines.source import Source
from ..run import Run
from ..stages import embed, encode
from ..system.incoming import first_line, told_as
from ..system.numerics import own_numerics
from ..system.schema import ANY_TEXT, Fields, Plain
from ..training.lora import TrainingState, personalise, state_rule

__all__ = ["PictureLearner"]

_NAME = "learning"
_VERSION = 2
"""Number of the file's layout; raise it when `TrainingState` or what is said beside it changes."""

_ABOUT = Fields({"config": Plain(depth=2), "key": ANY_TEXT})


@dataclass(frozen=True, eq=False)
class _Interrupted:
    """An interrupted training, and of what."""

    source: Source
    config: PersonaliseConfig
    state: TrainingState


class PictureLearner:
    """Trains adapters of pictures; an interrupted training goes on when it is asked for again."""

    def __init__(self) -> None:
        self._interrupted: _Interrupted | None = None

    def learn(
        self,
        run: Run,
        model: Model,
        source: Source,
        config: PersonaliseConfig,
        on_step: Callable[[int, float], None],
    ) -> Adapter:
        """Return the adapter of a picture.

        Args:
            model: With no adapter merged.
            on_step: Called with the steps done and the loss; what it raises interrupts.
        """
        before = self._interrupted
        goes_on = before is not None and before.config == config and before.source is source
        latest: list[Callable[[], TrainingState]] = []

        def watch(done: int, loss: float, state: Callable[[], TrainingState]) -> None:
            latest[:] = [state]
            on_step(done, loss)

        frame = Frame.of(source.image, model.factor)
        latent = run(encode, model, run.once(Frame.pixels, frame, source.image))
        text = run(embed, model, source.prompt, None)
        begun = before.state if before is not None and goes_on else None
        try:
            adapter = run(personalise, model, latent, text, config, resume=begun, on_step=watch)
        except NumbersError:
            raise  # there is nothing to go on with
        except BaseException:
            if latest:
                self._interrupted = _Interrupted(source, config, latest[0]())
            raise
        # Until its caller has it: who is interrupted while it ends has lost nothing.
        self._interrupted = _Interrupted(source, config, latest[0]()) if latest else None
        return adapter

    def forget(self) -> None:
        """Let go of what `learn` has returned: its caller has it."""
        self._interrupted = None

    @own_numerics()
    def save(self, path: str | os.PathLike[str], model: Model) -> Path | None:
        """Write the interrupted training, whole or not at all; None if there is none.

        Raises:
            OutputError: The file cannot be written there.
        """
        interrupted = self._interrupted
        if interrupted is None:
            return None
        about: dict[str, Json] = {
            "config": interrupted.config.to_dict(),
            "key": _key(model, interrupted.source),
        }
        return write_sealed(path, _NAME, about, interrupted.state, version=_VERSION)

    @own_numerics()
    def resume(self, path: str | os.PathLike[str], model: Model, source: Source) -> None:
        """Read what `save` wrote, to go on with it.

        Raises:
            SessionError: The file is missing, damaged, of another release, picture or model.
        """
        try:
            file = read_sealed(path, _NAME, version=_VERSION, device=model.device)
        except BrokenError as wrong:
            raise SessionError(
                f"no training can be read from {str(path)!r} ({wrong}); remove it to begin anew"
            ) from wrong
        with _refused(path):
            _ABOUT.check(file.about, "")
            config = PersonaliseConfig(**file.about["config"])
        if file.about["key"] != _key(model, source):
            raise SessionError(
                f"{str(path)!r} was begun with another picture, prompt or model; "
                "remove it to begin anew"
            )
        with _refused(path):
            state_rule(model, config).check(file.value, "state")
        self._interrupted = _Interrupted(source, config, file.value)


@contextmanager
def _refused(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise whatever is wrong with a file's contents as SessionError, in one line."""
    what = f"the training in {str(path)!r} holds what none does; remove it to begin anew"
    try:
        with told_as(SessionError, what):
            yield
    except ConfigError as wrong:
        raise SessionError(f"{what} ({first_line(wrong)})") from wrong


def _key(model: Model, source: Source) -> str:
    """Digest what a training is of. The model must be as it was loaded."""
    return digest(model, source.image.pixels, source.prompt)
