"""A service as a process: it listens, and ends in order when it is told to.

SIGTERM, or Ctrl-C: /readyz says 503, what runs ends or is cancelled, sessions are saved, and the
process ends with 0. A second signal does not wait.
"""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import uvicorn

from ..errors import ConfigError
from .door import Door
from .settings import ServeSettings, is_loopback

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ..editor import Editor

__all__ = ["Server", "address", "listening", "run"]

_MESSAGE_BYTES = 2**16
_SEND_BYTES = 2**17
"""Bytes that the system keeps for a client that reads slowly: older frames than these are not."""

_CLOSE_S = 3


class Server(uvicorn.Server):
    """A server that drains its app before it closes.

    Args:
        app: What it serves.
        drain: Lets what runs in the app come to its end.
        told: Called when it listens.
    """

    def __init__(
        self,
        app: Any,
        drain: Callable[[], Awaitable[None]],
        told: Callable[[], object] = lambda: None,
    ) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_CLOSE_S,
            ws="websockets-sansio",
            ws_max_size=_MESSAGE_BYTES,
            ws_per_message_deflate=False,
        )
        super().__init__(config)
        self._drain_app = drain
        self._told = told
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        if self.started:
            self._told()

    def stop(self) -> None:
        """Drain, then end; a second time: end now. From any thread, or a signal's handler."""
        if self._loop is None:
            self.should_exit = True
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let signals stop the server while this is open, and not be raised again after it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, lambda *_: self.stop()) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self) -> None:
        if self._draining is not None:
            self.should_exit = self.force_exit = True
            return
        self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        try:
            await self._drain_app()
        finally:
            self.should_exit = True


def listening(settings: ServeSettings) -> socket.socket:
    """Return a socket that listens where the settings say.

    Raises:
        ConfigError: Nothing can listen there.
    """
    where = f"{settings.host}:{settings.port}"
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, _, _, _, place = found[0]
        made = socket.create_server(place[:2], family=family, backlog=128)
    except OSError as refused:
        raise ConfigError(
            f"nothing can listen at {where} ({refused.strerror}); choose another --port or --host"
        ) from refused
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
    # asyncio sets it on sockets of its own only; without it an answer's last bytes wait 40 ms.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def address(settings: ServeSettings, port: int) -> str:
    """Return the page's address, with the token where there is one."""
    host = settings.host if is_loopback(settings.host) else socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    query = f"?token={quote(settings.token, safe='')}" if settings.token else ""
    return f"http://{shown}:{port}/{query}"


def run(
    editor: "Editor | Callable[[], Editor]",
    settings: ServeSettings,
    told: Callable[[str], object] = lambda url: None,
) -> int:
    """Serve until a signal says otherwise; return the exit code.

    Args:
        editor: That does the work; or what loads one, called in a thread when the page is there.
        settings: Where to listen, and what is allowed.
        told: Called with the page's address when it is served.

    Raises:
        ConfigError: Nothing can listen there.
        DragnoiseError: The editor could not be loaded, or cannot be served.
    """

    def make() -> "FastAPI":
        from .app import create_app

        return create_app(editor() if callable(editor) else editor, settings)

    with listening(settings) as place:
        port = place.getsockname()[1]
        door = Door(make, settings, lambda: server.stop())
        server = Server(door, door.drain, lambda: told(address(settings, port)))
        server.run(sockets=[place])
    if door.error is not None:
        raise door.error
    return 0 if server.started else 1
