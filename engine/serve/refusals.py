"""What a client is told where something cannot be done: a status, a code, and a sentence."""

from collections.abc import Mapping

from starlette.responses import JSONResponse

from ..errors import CancelledError, DeadlineError, DragnoiseError, OutputError

__all__ = ["CODES", "Refusal", "answer", "of_error"]

CODES: Mapping[str, int] = {
    "image": 400,
    "point": 400,
    "mask": 400,
    "settings": 400,
    "session": 400,
    "busy": 409,
    "cancelled": 499,
    "deadline": 504,
    "too_large": 413,
    "unsupported": 415,
    "malformed": 422,
    "unauthorised": 401,
    "forbidden": 403,
    "not_found": 404,
    "draining": 503,
    "loading": 503,
    "internal": 500,
}
"""The status that usually goes with a code."""

_OF_ENGINE: Mapping[str, str] = {
    "image": "image",
    "points": "point",
    "mask": "mask",
    "config": "settings",
    "session": "session",
    "numbers": "settings",
}
"""Our code of an error of the engine's; others are nobody's but ours: internal."""


class Refusal(Exception):
    """Something that cannot be done, and what the client is told.

    Attributes:
        code: One of `CODES`.
        message: One sentence.
        status: Of the answer.
        retry_s: Seconds after which it may be tried again; None: nothing is said.
    """

    def __init__(
        self, code: str, message: str, *, status: int | None = None, retry_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message.encode("utf-8", "replace").decode()  # halves of characters
        self.status = CODES[code] if status is None else status
        self.retry_s = retry_s

    def headers(self) -> dict[str, str]:
        """Return the headers that go with it."""
        headers = {"Cache-Control": "no-store"}
        if self.retry_s is not None:
            headers["Retry-After"] = str(self.retry_s)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


def answer(refusal: Refusal) -> JSONResponse:
    """Return the response that says it."""
    error = {"code": refusal.code, "message": refusal.message}
    return JSONResponse({"error": error}, refusal.status, refusal.headers())


def of_error(error: BaseException) -> Refusal:
    """Return what a client is told of an error; of one that is ours, no more than that it was."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, CancelledError):
        return Refusal("cancelled", str(error))
    if isinstance(error, DeadlineError):
        return Refusal("deadline", str(error))
    if isinstance(error, DragnoiseError) and not isinstance(error, OutputError):
        code = _OF_ENGINE.get(error.code)
        if code is not None:
            return Refusal(code, str(error))
    if isinstance(error, MemoryError):
        return Refusal("internal", "out of memory; take a smaller picture", status=503, retry_s=5)
    return Refusal("internal", "something went wrong in the service; its log says what")
