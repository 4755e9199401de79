"""What a client says on the WebSocket."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from .documents import XY, Document
from .refusals import Refusal

__all__ = ["Cancel", "Grab", "Keep", "Message", "Move", "Ping", "Release", "message_of"]

_LONGEST = 2**16
_Points = Annotated[list[XY], Field(min_length=1, max_length=64)]
_Preset = Annotated[str, Field(max_length=100)]


class Grab(Document):
    """Take hold at the handles."""

    type: Literal["grab"]
    handles: _Points
    preset: _Preset = "live"
    base: Literal["source", "result"] = "source"
    format: Literal["jpeg", "webp", "png"] = "jpeg"
    quality: int = Field(default=90, ge=1, le=100)


class Move(Document):
    """Go to the targets; `seq` rises."""

    type: Literal["move"]
    seq: int = Field(ge=0, le=2**32 - 1)
    targets: _Points


class Release(Document):
    """Drag to the last targets, by a preset that takes its time."""

    type: Literal["release"]
    preset: _Preset | None = None


class Keep(Document):
    """Let the last frame become the picture."""

    type: Literal["keep"]


class Cancel(Document):
    """Let go."""

    type: Literal["cancel"]


class Ping(Document):
    """Ask for a pong with the same."""

    type: Literal["ping"]
    at: float | int | str | None = None


Message: TypeAlias = Annotated[
    Grab | Move | Release | Keep | Cancel | Ping, Field(discriminator="type")
]
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)


def message_of(text: str) -> Message:
    """Return a message. Raises Refusal where it is none: malformed."""
    if len(text) > _LONGEST:
        raise Refusal("malformed", f"a message may have {_LONGEST} letters, got {len(text)}")
    try:
        return _MESSAGE.validate_json(text)
    except ValidationError as wrong:
        raise Refusal("malformed", what_is_wrong(wrong)) from None


def what_is_wrong(wrong: ValidationError) -> str:
    """Return where a document is wrong and how, without what it says there."""
    first = wrong.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))[:100]
    return f"{where or 'the message'}: {first['msg']}"
