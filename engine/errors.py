"""Errors and warnings. Every message says what was seen and what to do.

A program that serves others tells errors apart by `code`, which stays the same from release to
release.
"""

from typing import ClassVar

__all__ = [
    "AdapterError",
    "BackendError",
    "CacheWarning",
    "CancelledError",
    "ConfigError",
    "DeadlineError",
    "DeviceError",
    "DragnoiseError",
    "ExportError",
    "ForkError",
    "ImageError",
    "InputWarning",
    "MaskError",
    "ModelError",
    "NumbersError",
    "OutputError",
    "PlanError",
    "PointError",
    "SessionError",
]


class DragnoiseError(ValueError):
    """An error that a better input would avoid. The command line prints it and exits with 2."""

    code: ClassVar[str] = "input"


class ImageError(DragnoiseError):
    """The image cannot be read, is empty, or has a shape or type that no picture has."""

    code = "image"


class PointError(DragnoiseError):
    """The pairs of handle and target are missing, malformed or outside the image."""

    code = "points"


class MaskError(DragnoiseError):
    """The mask cannot be read or does not have the image's size."""

    code = "mask"


class ConfigError(DragnoiseError):
    """A setting is out of its range."""

    code = "config"


class ModelError(DragnoiseError):
    """The model cannot be loaded, or this engine cannot cut it at the bottleneck."""

    code = "model"


class DeviceError(DragnoiseError):
    """The device or precision that was asked for is not available here."""

    code = "device"


class BackendError(DragnoiseError):
    """The backend or attention that was asked for cannot serve here, for the reasons named."""

    code = "backend"


class ExportError(DragnoiseError):
    """A part cannot be exported as asked, or the exported one was wrong and was not kept."""

    code = "export"


class PlanError(DragnoiseError):
    """An exported part is missing, damaged, or made for another model, device or library.

    The message has the command that makes it.
    """

    code = "plan"


class OutputError(DragnoiseError):
    """The result cannot be written to the place that was named."""

    code = "output"


class AdapterError(DragnoiseError):
    """The adapter cannot be read, or was not made for this model."""

    code = "adapter"


class SessionError(DragnoiseError):
    """The session does not hold what was asked for.

    Nothing to undo, a drag that cannot go on, a file of another model.
    """

    code = "session"


class NumbersError(DragnoiseError):
    """What was computed is not finite: NaN or infinity. Nothing of it is kept.

    The message names the stage where it began and what to try.
    """

    code = "numbers"


class ForkError(DragnoiseError):
    """The process was forked after the engine had worked with threads or a GPU: it would hang.

    The message says what to do: start processes by "spawn".
    """

    code = "fork"


class CancelledError(Exception):
    """The work was cancelled. The session is as it was before and can be used."""

    code: ClassVar[str] = "cancelled"


class DeadlineError(TimeoutError):
    """The work did not end within its `timeout_s`, waiting included.

    The session is as it was before and can be used.
    """

    code: ClassVar[str] = "deadline"


class CacheWarning(UserWarning):
    """A kept result cannot be used, or nothing can be kept; editing goes on without it."""


class InputWarning(UserWarning):
    """The input is used, but not quite as it was given (a prompt that was cut, for example)."""
