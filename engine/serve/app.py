"""The app: a service behind its guard, with every error as one document."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from ..editor import Editor
from ..errors import CancelledError, DeadlineError, DragnoiseError
from .doing import routes as doing
from .guard import Body, Guard, Watch
from .page_files import page_routes
from .pointer import Pointer
from .refusals import Refusal, answer, of_error
from .rest import routes as rest
from .service import Service
from .settings import ServeSettings

__all__ = ["create_app"]

_ABOUT = "Drag what is under a point of a picture to another point. See docs/protocol.md."
_CODES = {401: "unauthorised", 403: "forbidden", 404: "not_found", 405: "not_found"}


def create_app(editor: Editor, settings: ServeSettings | None = None) -> FastAPI:
    """Return an ASGI app that serves an editor.

    Args:
        editor: That does the work. Sessions find nothing of each other's in its cache.
        settings: None: for this machine alone, without a token.

    Raises:
        ConfigError: The settings do not go together.
        OutputError: The folder of the sessions cannot be made.
    """
    settings = ServeSettings() if settings is None else settings
    service = Service(editor, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.begin()
        yield
        await service.end()

    app = FastAPI(
        title="dragnoise",
        version=service.info.version,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.service = service
    app.include_router(rest)
    app.include_router(doing)
    app.include_router(page_routes())
    app.add_api_route("/healthz", _healthy, include_in_schema=False)
    app.add_api_route("/readyz", _ready, include_in_schema=False)
    app.add_api_route("/metrics", _metrics, include_in_schema=False)
    app.add_api_websocket_route("/api/v1/sessions/{id}/live", _live)
    for error in (Refusal, DragnoiseError, CancelledError, DeadlineError):
        app.add_exception_handler(error, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _other)
    app.add_middleware(Body, settings=settings)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Watch, metrics=service.metrics)
    return app


async def _healthy() -> JSONResponse:
    return JSONResponse({"status": "ok"})


async def _ready(request: Request) -> JSONResponse:
    if request.app.state.service.is_ready:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "draining"}, 503)


async def _metrics(request: Request) -> Response:
    text = request.app.state.service.metrics.text()
    if text is None:
        raise Refusal("not_found", "metrics need prometheus-client: pip install dragnoise[metrics]")
    return Response(text, media_type="text/plain; version=0.0.4")


async def _live(socket: WebSocket, id: str) -> None:
    """Let a connection drag a session."""
    service: Service = socket.app.state.service
    await socket.accept()
    try:
        if service.queue.is_draining:
            service.queue.check_room()
        held = await service.table.get(id)
    except Refusal as refusal:
        await socket.send_json({"type": "error", "code": refusal.code, "message": refusal.message})
        await socket.close(4000 + refusal.status if refusal.status == 404 else 1012)
        return
    await Pointer(service, held, socket).serve()


async def _refused(request: Request, error: Any) -> Response:
    refusal = of_error(error)
    if refusal.code == "internal":
        raise error  # for the log
    return answer(refusal)


async def _malformed(request: Request, error: Any) -> Response:
    """Say where a request is malformed, without repeating it."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")[:100]
    return answer(Refusal("malformed", f"{where or 'the body'}: {first['msg']}"))


async def _other(request: Request, error: Any) -> Response:
    """Answer what the framework refuses: bodies that are no documents, paths, methods."""
    code = _CODES.get(error.status_code, "malformed")
    status = 422 if error.status_code == 400 else error.status_code
    response = answer(Refusal(code, str(error.detail), status=status))
    response.headers.update(error.headers or {})
    return response
