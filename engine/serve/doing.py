"""The routes that need the device: drags and trainings, answered at once or as events."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from .documents import DragAsked, PersonaliseAsked, Result
from .drags import Told, dragged, learned, silent
from .held import Held
from .log import log_crash
from .refusals import Refusal, of_error
from .rest import HeldHere, ServiceHere, refusals
from .service import Service
from .work import Work

__all__ = ["routes"]

routes = APIRouter(prefix="/api/v1")

_LOOK_S = 0.2
"""Seconds between two looks whether the client is still there."""

_BEAT_S = 10.0
"""Seconds after which a stream that has nothing to say says so."""

_EVENTS: Mapping[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}
_ERRORS = {**refusals(400, 404, 409, 429, 499, 503, 504), **_EVENTS}

Plan = Callable[[Told], Callable[[], Result]]
"""Makes a work of what it tells its events."""


@routes.post("/sessions/{id}/drag", response_model=Result, responses=_ERRORS)
async def drag(asked: DragAsked, held: HeldHere, service: ServiceHere, request: Request) -> Any:
    """Drag: what is under the handles to the targets."""
    return await _done(
        service,
        held,
        "a drag",
        request,
        lambda tell: dragged(service.editor, service.settings, held, asked, tell),
    )


@routes.post("/sessions/{id}/personalise", response_model=Result, responses=_ERRORS)
async def personalise(
    asked: PersonaliseAsked, held: HeldHere, service: ServiceHere, request: Request
) -> Any:
    """Learn the session's picture, so that it is dragged more faithfully."""
    if not service.settings.personalise:
        raise Refusal("forbidden", "this service learns no pictures")
    return await _done(
        service,
        held,
        "a training",
        request,
        lambda tell: learned(service.settings, held, asked, tell),
    )


async def _done(service: Service, held: Held, what: str, request: Request, plan: Plan) -> Any:
    """Return the result of a work, or the stream of its events where these are asked for."""
    if "text/event-stream" in request.headers.get("accept", ""):
        events = _Events()
        work = await Work.begin(service.queue, service.threads, held, what, plan(events.tell))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(
            events.stream(work), media_type="text/event-stream", headers=headers
        )
    work = await Work.begin(service.queue, service.threads, held, what, plan(silent))
    try:
        while not await work.wait(_LOOK_S):
            if await request.is_disconnected():
                work.cancel(Refusal("cancelled", "the client has gone"))
        return await work.result()
    except asyncio.CancelledError:
        work.cancel(Refusal("cancelled", "the client has gone"))
        raise


class _Events:
    """The events of a work, from its thread to the client."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[str, Mapping[str, Any]]] = asyncio.Queue()

    def tell(self, event: str, data: Mapping[str, Any]) -> None:
        """Put an event; from any thread."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, (event, data))

    async def stream(self, work: Work[Result]) -> AsyncIterator[str]:
        """Yield the events as they come, then the result or the error."""
        try:
            async for event, data in self._until(work):
                yield _event(event, data)
            try:
                result = await work.result()
            except Exception as error:  # noqa: BLE001 whatever it is, the client is told
                refusal = of_error(error)
                if refusal.code == "internal":
                    log_crash(error)
                about = {"code": refusal.code, "message": refusal.message}
                yield _event("error", {"error": about})
            else:
                yield _event("result", result.model_dump())
        finally:
            work.cancel(Refusal("cancelled", "the client has gone"))

    async def _until(self, work: Work[Result]) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Yield what is told until a work has ended; a beat where nothing is for long."""
        silent_s = 0.0
        while not (work.has_ended() and self._queue.empty()):
            try:
                yield await asyncio.wait_for(self._queue.get(), _LOOK_S)
                silent_s = 0.0
            except TimeoutError:
                silent_s += _LOOK_S
                if silent_s >= _BEAT_S:
                    silent_s = 0.0
                    yield "", {}


def _event(event: str, data: Mapping[str, Any]) -> str:
    """Return an event as it is sent; one without a name is a comment."""
    return f"event: {event}\ndata: {json.dumps(data)}\n\n" if event else ": \n\n"
