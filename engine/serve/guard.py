"""The guard before every request: who asks, from where, and with how much.

Host       on the loopback only its names: a page elsewhere cannot rebind one to reach us
token      where there is one: the header, or the page's cookie
Origin     of what changes something, and of WebSockets: our own, or one that was named
body       counted as it comes, and no more than allowed is ever read
"""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from .log import log, log_crash
from .metrics import Metrics
from .refusals import Refusal, answer, of_error
from .settings import ServeSettings, is_loopback

__all__ = ["COOKIE", "OPEN", "Body", "Guard", "Watch"]

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "dragnoise"
OPEN = ("/healthz", "/readyz")
"""Paths that need no token: they say nothing."""

_SAFE = ("GET", "HEAD", "OPTIONS")
_BODY_S = 60.0
"""Seconds within which a whole body must come."""

_LINGER_BYTES = 64 * 2**20
_LINGER_S = 2.0
"""How much of a body that is refused is still taken in, so that its sender reads the answer."""

_NAME = "this service is not reached under that name; see --allow-host"
_CSP = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self' ws: wss:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Watch:
    """Logs and counts every request, and answers for whatever goes wrong inside."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        since_s = time.perf_counter()
        status = 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                ours = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *ours]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except Exception as error:  # noqa: BLE001 whatever it is, the client is answered
            log_crash(error)
            if not status:
                await answer(of_error(error))(scope, receive, sent)
        finally:
            took_s = time.perf_counter() - since_s
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.request(scope["method"], route, status, took_s)
            ms = round(took_s * 1e3, 1)
            log("request", method=scope["method"], route=route, status=status, ms=ms)


class Guard:
    """Refuses whoever may not ask."""

    def __init__(self, app: App, settings: ServeSettings) -> None:
        self._app = app
        self._token = settings.token
        self._cookie = _digest(settings.token)
        self._hosts = _hosts(settings)
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(raw=scope["headers"])
        given = _query_token(scope)
        if given is not None and scope.get("method") == "GET" and scope["path"] == "/":
            await self._welcome(scope, given, headers)(scope, receive, send)
            return
        refusal = self._refusal(scope, headers)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            response = _page(refusal) if scope["path"] == "/" else answer(refusal)
            await response(scope, receive, send)
        else:
            await _refuse_socket(scope, receive, send, refusal)

    def _refusal(self, scope: Scope, headers: Headers) -> Refusal | None:
        host = _host_of(headers.get("host", ""))
        if self._hosts and host not in self._hosts:
            return Refusal("forbidden", _NAME)
        is_open = scope["path"] in OPEN
        if self._token and not is_open and not self._knows(headers):
            return Refusal("unauthorised", "give the token: Authorization: Bearer TOKEN")
        changes = scope["type"] == "websocket" or scope["method"] not in _SAFE
        if changes and not self._is_own(headers):
            return Refusal("forbidden", "requests of other origins are refused; see --allow-origin")
        return None

    def _knows(self, headers: Headers) -> bool:
        """Whether a request brings the token, or the cookie that it was given for it."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _is_same(token.strip(), self._token):
            return True
        return _is_same(_cookie_of(headers), self._cookie)

    def _is_own(self, headers: Headers) -> bool:
        """Whether a request comes from our own page, from one that was named, or from none."""
        origin = headers.get("origin")
        if origin is None:
            return True
        own = urlsplit(origin.lower()).netloc
        return origin.lower() in self._origins or own == headers.get("host", "").lower() != ""

    def _welcome(self, scope: Scope, given: str, headers: Headers) -> Response:
        """Return the answer to `/?token=TOKEN`: the cookie, and the way to the page."""
        if self._hosts and _host_of(headers.get("host", "")) not in self._hosts:
            return _page(Refusal("forbidden", _NAME))
        response = RedirectResponse("/", 303, {"Cache-Control": "no-store"})
        if not self._token:
            return response
        if not _is_same(given, self._token):
            return _page(Refusal("unauthorised", "this is not the token"))
        secure = scope.get("scheme") == "https"
        response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict", secure=secure)
        return response


class Body:
    """Counts a request's body as it comes."""

    def __init__(self, app: App, settings: ServeSettings) -> None:
        self._app = app
        self._most = settings.body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; answer it instead where its body is too long, or too slow."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reader = _Reader(receive, self._most)
        if reader.is_too_long(Headers(raw=scope["headers"]).get("content-length")):
            await self._refuse(scope, receive, send, reader)
            return
        started = False

        async def sent(message: Message) -> None:
            nonlocal started
            if reader.refusal is None or started:
                started = True
                await send(message)

        with suppress(_TooMuchError):
            await self._app(scope, reader.receive, sent)
        if reader.refusal is not None and not started:
            await self._refuse(scope, receive, send, reader)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, reader: "_Reader") -> None:
        """Answer, then take in a part of what still comes: else the answer may not be read."""
        assert reader.refusal is not None
        response = answer(reader.refusal)
        response.headers["connection"] = "close"
        start = {"type": "http.response.start", "status": response.status_code}
        await send(start | {"headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        await reader.linger(receive)
        await send({"type": "http.response.body", "body": b""})


class _TooMuchError(Exception):
    """A body was longer, or slower, than it may be."""


class _Reader:
    """Reads a body, as far as it may go."""

    def __init__(self, receive: Receive, most: int) -> None:
        self.refusal: Refusal | None = None
        self._receive = receive
        self._most = most
        self._bytes = 0
        self._is_whole = False
        self._until_s = time.monotonic() + _BODY_S

    def is_too_long(self, length: str | None) -> bool:
        """Whether a body is said to be longer than it may be."""
        if length is not None and length.isdecimal() and int(length[:20]) > self._most:
            self._refuse_length()
        return self.refusal is not None

    async def receive(self) -> Message:
        """Return the next piece. Raises _TooMuchError."""
        if self._is_whole:
            return await self._receive()
        try:
            left_s = self._until_s - time.monotonic()
            message = await asyncio.wait_for(self._receive(), max(0.0, left_s))
        except TimeoutError:
            text = f"the body did not come within {_BODY_S:g} s; send it faster"
            self.refusal = Refusal("deadline", text)
            raise _TooMuchError from None
        self._bytes += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if self._bytes > self._most:
            self._refuse_length()
            raise _TooMuchError
        return message

    async def linger(self, receive: Receive) -> None:
        """Take in, and throw away, a part of what still comes."""
        until_s = time.monotonic() + _LINGER_S
        taken = 0
        while not self._is_whole and taken < _LINGER_BYTES:
            try:
                message = await asyncio.wait_for(receive(), max(0.0, until_s - time.monotonic()))
            except TimeoutError:
                return
            taken += len(message.get("body", b""))
            self._is_whole = not message.get("more_body", False)

    def _refuse_length(self) -> None:
        most = self._most
        self.refusal = Refusal("too_large", f"a request may have {most} bytes; send less")


def _digest(token: str) -> str:
    """Return what the cookie holds: not the token itself, which may be used elsewhere."""
    return hmac.new(token.encode(), b"dragnoise's cookie", hashlib.sha256).hexdigest()


def _is_same(given: str, wanted: str) -> bool:
    """Compare in a time that tells nothing of where the two differ."""
    return hmac.compare_digest(
        hashlib.sha256(given.encode("utf-8", "replace")).digest(),
        hashlib.sha256(wanted.encode("utf-8", "replace")).digest(),
    )


def _cookie_of(headers: Headers) -> str:
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""


def _query_token(scope: Scope) -> str | None:
    query = scope["query_string"].decode("latin-1")
    tokens = parse_qs(query, keep_blank_values=True).get("token")
    return tokens[0] if tokens else None


def _hosts(settings: ServeSettings) -> frozenset[str]:
    """Return the names that a request may be sent to; none: any, since it needs the token."""
    named = {_host_of(host) for host in settings.hosts}
    if is_loopback(settings.host):
        return frozenset({"localhost", "127.0.0.1", "::1", _host_of(settings.host)} | named)
    return frozenset(named)


def _host_of(header: str) -> str:
    """Return a Host header's name, without its port."""
    header = header.strip().lower()
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header if header.count(":") > 1 else header.partition(":")[0]


def _page(refusal: Refusal) -> Response:
    """Return what a person sees who opens the page without being allowed to."""
    text = f"{refusal.message}\nOpen the address that `dragnoise serve` printed.\n"
    return PlainTextResponse(text, refusal.status, refusal.headers())


async def _refuse_socket(scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
    """Answer a WebSocket's handshake with a status."""
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 4000 + refusal.status})
        return
    response = answer(refusal)
    start = {"type": "websocket.http.response.start", "status": response.status_code}
    await send(start | {"headers": response.raw_headers})
    await send({"type": "websocket.http.response.body", "body": response.body})
