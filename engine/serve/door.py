"""The door: the page is there at once, everything else as soon as there is a model.

A model takes seconds to minutes to load, and PyTorch seconds to import. Meanwhile the page and its
files are served, /healthz says that the process lives and /readyz that it loads; whatever needs the
model waits for it, and is answered 503 after a while.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from .guard import App, Guard, Receive, Scope, Send
from .log import log
from .page_files import page_routes
from .refusals import Refusal, answer
from .settings import ServeSettings

__all__ = ["Door"]

_WAIT_S = 20.0
"""Seconds that a request waits for the model; the page asks again by itself."""

_AGAIN_S = 5

_OURS = ("/", "/healthz", "/readyz")
"""Paths that the door answers itself, beside the page's files."""


class Door:
    """An ASGI app that lets another in when it has been made.

    Args:
        make: Makes the other, in a thread: it imports, loads and may take long.
        settings: Who may ask meanwhile.
        failed: Called where it could not be made.
    """

    def __init__(
        self,
        make: Callable[[], FastAPI],
        settings: ServeSettings,
        failed: Callable[[], object] = lambda: None,
    ) -> None:
        self._make = make
        self._failed = failed
        self._since_s = time.monotonic()
        self._inside: FastAPI | None = None
        self._open = asyncio.Event()
        self._making: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()
        self._early = Guard(self._serve_early, settings)
        self._page: App = self._page_app()
        self.error: BaseException | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to whoever answers it now."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._inside is not None:
            await self._inside(scope, receive, send)
        else:
            await self._early(scope, receive, send)

    async def drain(self) -> None:
        """Let what runs inside come to its end."""
        if self._inside is not None:
            await self._inside.state.service.drain()

    async def _live(self, receive: Receive, send: Send) -> None:
        """Begin to load when the server does, and end what was loaded when it ends."""
        await receive()
        self._making = asyncio.create_task(self._load())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._making.cancel()
        with suppress(asyncio.CancelledError):
            await self._making
        await self._stack.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _load(self) -> None:
        log("loading")
        try:
            made = await asyncio.to_thread(self._make)
            await self._stack.enter_async_context(made.router.lifespan_context(made))
        except Exception as error:  # noqa: BLE001 whoever runs the server raises it
            self.error = error
            self._failed()
            return
        self._inside = made
        self._open.set()

    async def _serve_early(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what needs no model; hold what does until there is one."""
        path = scope["path"]
        if scope["type"] == "http" and (path in _OURS or path.startswith("/page/")):
            await self._page(scope, receive, send)
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._open.wait(), _WAIT_S)
        if self._inside is not None:
            await self._inside(scope, receive, send)
        elif scope["type"] == "http":
            about = f"the model is being loaded, {self._loading_s:.0f} s until now; try again"
            refusal = Refusal("loading", about, retry_s=_AGAIN_S)
            await answer(refusal)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1013, "reason": "loading"})

    @property
    def _loading_s(self) -> float:
        return time.monotonic() - self._since_s

    def _page_app(self) -> App:
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
        app.include_router(page_routes())
        app.add_api_route("/healthz", self._healthy)
        app.add_api_route("/readyz", self._loading)
        app.add_exception_handler(Refusal, _refused)
        return app

    async def _healthy(self) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def _loading(self) -> JSONResponse:
        return JSONResponse({"status": "loading", "seconds": round(self._loading_s, 1)}, 503)


async def _refused(request: object, error: Any) -> Any:
    return answer(error)
