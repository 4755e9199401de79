"""A service that runs in a thread of this process, on a real port, with the golden model."""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import PIL.Image

from dragnoise.engine import Editor
from dragnoise.engine.serve import Client, ServeSettings, create_app
from dragnoise.engine.serve.server import Server, address, listening
from dragnoise.engine.serve.service import Service
from sessions import MASK, PICTURE, editor

DRAG = [[20.0, 20.0, 40.0, 34.0]]
QUICK = {"steps": 10, "strength": 0.3, "iterations": 2}
API = "/api/v1"
WAIT_S = 60


def png(image: PIL.Image.Image) -> bytes:
    return written(image, "PNG")


def written(image: PIL.Image.Image, format: str, **how: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, format, **how)
    return content.getvalue()


FACE = png(PICTURE.to_pil())
LAYER = png(PIL.Image.fromarray(MASK))


@dataclass(frozen=True)
class Running:
    """A service that runs.

    Attributes:
        url: Where it is.
        settings: Its settings.
        inside: The service itself.
        server: What serves it.
    """

    url: str
    settings: ServeSettings
    inside: Service
    server: Server

    def client(self, **how: Any) -> Client:
        return Client(self.url, self.settings.token, **how)

    def http(self, **how: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=WAIT_S, trust_env=False, **how)


@contextmanager
def service(on: Editor | None = None, **settings: Any) -> Iterator[Running]:
    """Run a service while this is open."""
    chosen = ServeSettings(**{"port": 0} | settings)
    began = threading.Event()
    with listening(chosen) as place:
        app = create_app(on or editor(), chosen)
        server = Server(app, app.state.service.drain, began.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
        thread.start()
        try:
            assert began.wait(WAIT_S)
            url = address(chosen, place.getsockname()[1]).partition("/?")[0].rstrip("/")
            yield Running(url, chosen, app.state.service, server)
        finally:
            server.stop()
            thread.join(WAIT_S)
    assert not thread.is_alive()


@contextmanager
def busy(on: Editor | None = None) -> Iterator[None]:
    """Keep the editor's device busy while this is open."""
    gate, begun = threading.Event(), threading.Event()

    def wait(job: object) -> None:
        begun.set()
        gate.wait(WAIT_S)

    job = (on or editor()).worker.submit(wait, what="the wait")
    assert begun.wait(WAIT_S)
    try:
        yield
    finally:
        gate.set()
        job.wait()


def eventually(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait until something holds."""
    pause = threading.Event()
    for _ in range(int(within_s / 0.02)):
        if holds():
            return
        pause.wait(0.02)
    raise AssertionError("it did not come to be")
