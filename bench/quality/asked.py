"""What a command line asks of the table of quality: who edits which drags, with which settings."""

from argparse import Namespace
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dragnoise.engine import Editor
from dragnoise.engine.errors import ConfigError
from dragnoise.engine.methods import METHODS

from ..jobs import Shard
from ..jobs.settings import settings_of
from ..world.kinds import KINDS
from .contestants import CONTESTANTS, DRAGGAN, ENGINE, Studio
from .generated import GENERATED
from .table import AGAINST

__all__ = ["Asked", "studio_of"]


@dataclass(frozen=True)
class Asked:
    """Who edits which drags.

    Attributes:
        methods: The contestants.
        against: Whom all others are compared with.
        kinds: Of the drags, drawn and generated.
        each: Drags of a kind.
        lot: Whose drags.
        shard: Which of them.
        resume: Whether what is done is left out.
        folder: Where everything lies.
    """

    methods: Sequence[str]
    against: Sequence[str]
    kinds: Sequence[str]
    each: int
    lot: str
    shard: Shard
    resume: bool
    folder: Path

    @classmethod
    def of(cls, parsed: Namespace) -> Self:
        """Return what the arguments ask for. Raises ConfigError for a name that is not known."""
        usual = [name for name, contestant in CONTESTANTS.items() if contestant.usual]
        known = [*CONTESTANTS, DRAGGAN]
        kinds = [*KINDS, *GENERATED]
        return cls(
            methods=_chosen("contestant", parsed.methods, [*usual, DRAGGAN], known),
            against=_chosen("contestant", parsed.against, AGAINST, CONTESTANTS),
            kinds=_chosen("kind", parsed.kinds, kinds, kinds),
            each=parsed.each,
            lot=parsed.lot,
            shard=Shard.of(parsed.shard),
            resume=parsed.resume,
            folder=Path(parsed.out),
        )


def _chosen(
    what: str, text: str | None, usual: Sequence[str], known: Collection[str]
) -> Sequence[str]:
    """Return the names of "NAME,...", each once. Raises ConfigError for one that is not known."""
    if text is None:
        return usual
    for name in (names := list(dict.fromkeys(text.split(",")))):
        if name not in known:
            raise ConfigError(f"there is no {what} {name!r}; use {', '.join(known)}")
    return names


def studio_of(parsed: Namespace) -> Studio:
    """Load the model and return it with the settings. Raises ConfigError, ModelError."""
    editor = (
        Editor.from_pretrained(device=parsed.device)
        if parsed.model == "embedded"
        else Editor.from_pretrained(parsed.model, device=parsed.device)
    )
    return Studio(editor, parsed.steps, _settings(parsed.settings, (*ENGINE, DRAGGAN)))


def _settings(text: str | None, methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the changes by method; each goes to the methods that have such a setting.

    Raises:
        ConfigError: No method has one, or its value is out of range.
    """
    changes: dict[str, dict[str, Any]] = {method: {} for method in methods}
    for part in filter(None, (text or "").split(",")):
        name = part.partition("=")[0]
        having = [
            method for method in methods if name in METHODS[method].settings.__dataclass_fields__
        ] or list(methods[:1])
        for method in having:
            changes[method] |= settings_of(method, part)
    return changes
