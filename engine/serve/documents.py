"""The documents that a service reads and writes, as they stand in docs/protocol.md."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Document",
    "DragAsked",
    "ErrorDocument",
    "Info",
    "Limits",
    "Model",
    "PersonaliseAsked",
    "PointEnded",
    "PresetAbout",
    "Progress",
    "Result",
    "SampleAbout",
    "State",
]

Coordinate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
XY = tuple[Coordinate, Coordinate]
Four = tuple[Coordinate, Coordinate, Coordinate, Coordinate]
Scalar = bool | int | float | str

_STATE: dict[str, Any] = {
    "id": "4f1d2a0c9b8e47d6a1c3e5f708192a3b",
    "width": 128,
    "height": 128,
    "prompt": "a red boat",
    "negative_prompt": "",
    "version": 1,
    "can_undo": True,
    "can_redo": False,
    "mask": True,
    "grip": False,
    "adapter": False,
    "warnings": [],
}
_RESULT: dict[str, Any] = {
    "state": _STATE,
    "reached": True,
    "iterations": 10,
    "seconds": 0.42,
    "timings_ms": {"drag": 301.2, "decode": 24.0, "total": 402.0},
    "method": "fast",
    "preset": "fast",
    "base": "source",
    "points": [{"ended": [69.5, 82.9], "target": [69.9, 82.9]}],
    "warnings": [],
}


class Document(BaseModel):
    """A document with these fields and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ErrorAbout(Document):
    """What was wrong."""

    code: str
    message: str


class ErrorDocument(Document):
    """The answer to what cannot be done."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "code": "mask",
                        "message": "the mask is 3x3 but the image is 64x64; "
                        "give a mask of the image's size",
                    }
                }
            ]
        }
    )
    error: ErrorAbout


class Model(Document):
    """The model: its name, and the side of the pictures it was made for, in pixels."""

    name: str
    side: int


class PresetAbout(Document):
    """A way to drag that has a name."""

    name: str
    summary: str


class Limits(Document):
    """What a request may bring: bytes, and a picture's pixels, in all and on a side."""

    body_bytes: int
    pixels: int
    side: int


class SampleAbout(Document):
    """A picture that ships with the model, and what to drag on it."""

    name: str
    prompt: str
    width: int
    height: int
    drags: list[Four]
    mask: bool


class Info(Document):
    """What the service is and has."""

    version: str
    protocol: Literal[1] = 1
    model: Model
    presets: list[PresetAbout]
    limits: Limits
    samples: list[SampleAbout]
    personalise: bool


class State(Document):
    """A session; `version` rises with every change of what is seen."""

    model_config = ConfigDict(json_schema_extra={"examples": [_STATE]})
    id: str
    width: int
    height: int
    prompt: str
    negative_prompt: str
    version: int
    can_undo: bool
    can_redo: bool
    mask: bool
    grip: bool
    adapter: bool
    warnings: list[str]


class PointEnded(Document):
    """Where a handle ended, and where it was to go."""

    ended: XY
    target: XY


class Result(Document):
    """What came of a drag, or of a training (which has no points)."""

    model_config = ConfigDict(json_schema_extra={"examples": [_RESULT]})
    state: State
    reached: bool
    iterations: int
    seconds: float
    timings_ms: dict[str, float]
    method: str
    preset: str
    base: str
    points: list[PointEnded]
    warnings: list[str]


class DragAsked(Document):
    """A drag: pairs of handle and target, and how."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"drags": [[50.3, 82.9, 69.9, 82.9]], "preset": "fast"}]}
    )
    drags: list[Four] = Field(min_length=1, max_length=64)
    preset: str | None = Field(default=None, max_length=100)
    base: Literal["source", "result", "inverted", "last"] = "source"
    settings: dict[str, Scalar] = Field(default={}, max_length=64)
    timeout_s: float | None = Field(default=None, gt=0, le=1e6, allow_inf_nan=False)


class PersonaliseAsked(Document):
    """A training on the session's picture."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"steps": 60}]})
    steps: int = Field(default=60, ge=1, le=1000)
    timeout_s: float | None = Field(default=None, gt=0, le=1e6, allow_inf_nan=False)


class Progress(Document):
    """How far a stage is."""

    stage: str
    done: int
    of: int
