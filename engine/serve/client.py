"""A client in Python: a service's sessions as if they were here.

    with Client("http://127.0.0.1:8765") as client:
        session = client.open("picture.png", prompt="a boat")
        session.drag([(60, 40, 80, 40)])
        Path("edited.png").write_bytes(session.image())

Needs httpx, and for `live` websockets (`pip install dragnoise[serve]`).
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from .documents import Info, Result, State
from .frames import Frame

__all__ = ["Client", "LiveConnection", "RemoteSession", "Said", "ServiceError"]

Point: TypeAlias = tuple[float, float]
Content: TypeAlias = bytes | str | os.PathLike[str]
"""A file's content, or its path."""

Said: TypeAlias = Frame | Mapping[str, Any]
"""What a service says on a WebSocket: a frame, or a message."""

_API = "/api/v1"
_FRAME_BYTES = 2**26


class ServiceError(Exception):
    """A service has refused something.

    Attributes:
        status: HTTP's number; 0 on a WebSocket.
        code: As docs/protocol.md names them.
        message: One sentence.
        retry_s: Seconds after which it may be tried again, where the service says so.
    """

    def __init__(self, status: int, code: str, message: str, retry_s: float | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.retry_s = retry_s


class Client:
    """A connection to a service.

    Args:
        url: Where it is, "http://127.0.0.1:8765".
        token: What it wants to know, if it does.
        timeout_s: Seconds that an answer may take.
    """

    def __init__(self, url: str, token: str = "", timeout_s: float = 300.0) -> None:
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self._url, headers=self._headers, timeout=timeout_s, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the sessions stay."""
        self._http.close()

    def info(self) -> Info:
        """Return what the service is, has and allows."""
        return Info.model_validate_json(self.ask("GET", "/info").content)

    def open(
        self,
        image: Content | None = None,
        *,
        sample: str | None = None,
        prompt: str = "",
        negative_prompt: str = "",
    ) -> "RemoteSession":
        """Open a session on a picture's file, or on one of the service's samples."""
        form = {"prompt": prompt, "negative_prompt": negative_prompt}
        if sample is not None:
            form["sample"] = sample
        files = None if image is None else {"image": ("image", _content(image))}
        answer = self.ask("POST", "/sessions", data=form, files=files)
        return RemoteSession(self, State.model_validate_json(answer.content).id)

    def restore(self, file: Content) -> "RemoteSession":
        """Open a session from what `RemoteSession.file` gave."""
        kind = {"Content-Type": "application/octet-stream"}
        answer = self.ask("POST", "/sessions/restore", content=_content(file), headers=kind)
        return RemoteSession(self, State.model_validate_json(answer.content).id)

    def session(self, id: str) -> "RemoteSession":
        """Return a session whose id is known."""
        return RemoteSession(self, id)

    def ask(self, method: str, path: str, **how: Any) -> httpx.Response:
        """Ask for a path under /api/v1. Raises ServiceError."""
        return _checked(self._http.request(method, _API + path, **how))

    @contextmanager
    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[Iterator[tuple[str, Any]]]:
        """Give the events of a work as (name, data) while this is open. Raises ServiceError."""
        accept = {"Accept": "text/event-stream"}
        with self._http.stream("POST", _API + path, json=body, headers=accept) as answer:
            if answer.is_error:
                answer.read()
            yield _events(_checked(answer).iter_lines())

    def connect(self, path: str) -> ClientConnection:
        """Open a WebSocket under /api/v1."""
        url = "ws" + self._url.removeprefix("http") + _API + path
        return connect(
            url,
            additional_headers=self._headers,
            max_size=_FRAME_BYTES,
            compression=None,
            proxy=None,
        )


class RemoteSession:
    """A session of a service.

    Attributes:
        id: Its key: who has it has the session.
    """

    def __init__(self, client: Client, id: str) -> None:
        self.id = id
        self._client = client

    def state(self) -> State:
        """Return the session's state."""
        return State.model_validate_json(self._ask("GET").content)

    def image(self, format: str = "png") -> bytes:
        """Return the file of the picture that is seen."""
        return self._ask("GET", "/image", params={"format": format}).content

    def source(self, format: str = "png") -> bytes:
        """Return the file of the picture that it began with."""
        return self._ask("GET", "/source", params={"format": format}).content

    def file(self) -> bytes:
        """Return the session's own file, for `Client.restore`."""
        return self._ask("GET", "/file").content

    def mask(self) -> bytes:
        """Return the file of the mask. Raises ServiceError where there is none."""
        return self._ask("GET", "/mask").content

    def grip(self) -> bytes:
        """Return the file of the grip. Raises ServiceError where there is none."""
        return self._ask("GET", "/grip").content

    def set_mask(self, mask: Content | None) -> None:
        """Set where the picture may change (white); None: everywhere."""
        self._set("/mask", mask)

    def set_grip(self, grip: Content | None) -> None:
        """Set what moves as one piece (white); None: a disc about each handle."""
        self._set("/grip", grip)

    def drag(self, drags: Sequence[Sequence[float]], **how: Any) -> Result:
        """Drag; how: preset, base, settings, timeout_s."""
        return self._result("/drag", {"drags": [list(drag) for drag in drags], **how})

    def drag_events(
        self, drags: Sequence[Sequence[float]], **how: Any
    ) -> Iterator[tuple[str, Any]]:
        """Drag, and yield (name, data) of every event; the last is the result."""
        body = {"drags": [list(drag) for drag in drags], **how}
        with self._client.events(f"/sessions/{self.id}/drag", body) as events:
            yield from events

    def personalise(self, steps: int = 60, **how: Any) -> Result:
        """Learn the picture."""
        return self._result("/personalise", {"steps": steps, **how})

    def undo(self) -> State:
        """Show the picture before the last drag."""
        return State.model_validate_json(self._ask("POST", "/undo").content)

    def redo(self) -> State:
        """Show the picture that was undone last."""
        return State.model_validate_json(self._ask("POST", "/redo").content)

    def cancel(self) -> State:
        """End what runs."""
        return State.model_validate_json(self._ask("POST", "/cancel").content)

    def delete(self) -> None:
        """Forget the session."""
        self._ask("DELETE")

    @contextmanager
    def live(self) -> Iterator["LiveConnection"]:
        """Give a connection that drags as a pointer moves, while this is open."""
        with self._client.connect(f"/sessions/{self.id}/live") as socket:
            yield LiveConnection(socket)

    def _ask(self, method: str, path: str = "", **how: Any) -> httpx.Response:
        return self._client.ask(method, f"/sessions/{self.id}{path}", **how)

    def _result(self, path: str, body: Mapping[str, Any]) -> Result:
        return Result.model_validate_json(self._ask("POST", path, json=body).content)

    def _set(self, path: str, layer: Content | None) -> None:
        if layer is None:
            self._ask("DELETE", path)
        else:
            self._ask("PUT", path, content=_content(layer), headers={"Content-Type": "image/png"})


class LiveConnection:
    """A connection that drags. What the service says is read by `read`, in its order."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._seq = 0

    def grab(self, *handles: Point, **how: Any) -> None:
        """Take hold at the handles; how: preset, base, format, quality."""
        self.say(type="grab", handles=[list(handle) for handle in handles], **how)

    def move(self, *targets: Point) -> int:
        """Go to the targets; return the move's number, which its frame will have."""
        self._seq += 1
        self.say(type="move", seq=self._seq, targets=[list(target) for target in targets])
        return self._seq

    def release(self, preset: str | None = None) -> None:
        """Drag to the last targets by a preset that takes its time."""
        self.say(type="release", **({} if preset is None else {"preset": preset}))

    def keep(self) -> None:
        """Let the last frame become the picture."""
        self.say(type="keep")

    def cancel(self) -> None:
        """Let go."""
        self.say(type="cancel")

    def say(self, **message: Any) -> None:
        """Send a message."""
        self._socket.send(json.dumps(message))

    def read(self, timeout_s: float | None = None) -> Said:
        """Return what the service says next: a frame, or a message.

        Raises:
            TimeoutError: It says nothing within this time.
            ServiceError: The connection was closed.
        """
        try:
            said = self._socket.recv(timeout_s)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            raise ServiceError(0, "closed", f"the connection was closed ({code})") from closed
        if isinstance(said, bytes):
            return Frame.of(said)
        message: Mapping[str, Any] = json.loads(said)
        return message

    def until(self, type: str, timeout_s: float = 60.0) -> Said:
        """Read until a message of a type comes, or a frame of a kind, and return it.

        Raises:
            ServiceError: An error came before it.
        """
        while True:
            said = self.read(timeout_s)
            kind = said.kind if isinstance(said, Frame) else said["type"]
            if kind == type:
                return said
            if kind == "error":
                assert isinstance(said, Mapping)
                raise ServiceError(0, said["code"], said["message"])


def _content(source: Content) -> bytes:
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def _checked(answer: httpx.Response) -> httpx.Response:
    """Return an answer. Raises ServiceError for one that refuses."""
    if not answer.is_error:
        return answer
    retry = answer.headers.get("retry-after")
    retry_s = None if retry is None else float(retry)
    try:
        error = answer.json()["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        code, message = "internal", f"the answer is no document ({answer.status_code})"
    raise ServiceError(answer.status_code, code, message, retry_s)


def _events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Yield the events in the lines of a stream. Raises ServiceError for an error's."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data = json.loads(line.removeprefix("data: "))
            if name == "error":
                raise ServiceError(0, data["error"]["code"], data["error"]["message"])
            yield name, data
