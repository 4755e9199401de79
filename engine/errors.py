"""What can be wrong with what a person gives us. Every message says what was seen and what to do."""


class DragnoiseError(ValueError):
    """Base of every error that a better input would avoid; the command line prints it in one line and exits with 2."""


class ImageError(DragnoiseError):
    """The image cannot be read, is empty, or has a shape or type that is not a picture's."""


class PointError(DragnoiseError):
    """The pairs of handle and target are missing, malformed or outside the image."""


class MaskError(DragnoiseError):
    """The mask cannot be read or does not have the image's size."""


class ConfigError(DragnoiseError):
    """A setting is out of its range."""


class ModelError(DragnoiseError):
    """The model cannot be loaded, or is of a kind that this engine cannot cut at the bottleneck."""


class DeviceError(DragnoiseError):
    """The device or precision asked for is not available here."""


class BackendError(DragnoiseError):
    """The backend or attention asked for cannot serve here; the message has every reason."""


class ExportError(DragnoiseError):
    """A part cannot be exported as asked, or what was exported is not right and was not kept."""


class PlanError(DragnoiseError):
    """An exported part is missing, is not whole, or was not made for this model, device or library; the message has the command that makes it."""


class OutputError(DragnoiseError):
    """The result cannot be written where it was asked to be."""


class AdapterError(DragnoiseError):
    """The adapter cannot be read, or was not made for this model."""


class SessionError(DragnoiseError):
    """What a session was asked for does not fit what it holds (nothing to undo, a drag that cannot go on, a file of another model)."""


class CancelledError(Exception):
    """The work was cancelled; the session is as it was before and can be used."""


class DeadlineError(TimeoutError):
    """The work did not end within its `timeout_s`; the session is as it was before and can be used."""


class CacheWarning(UserWarning):
    """Something kept cannot be used, or nothing can be kept; editing goes on without it."""


class InputWarning(UserWarning):
    """The input is used, but not quite as it was given (a truncated prompt, a mask that allows nothing)."""
