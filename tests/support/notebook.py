"""A notebook without a notebook: a widget's line to it, and a page that shows the widget."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import comm
import comm.base_comm

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["FakeComm", "bridged", "fake_comms"]

WAIT_S = 60


class FakeComm(comm.base_comm.BaseComm):  # type: ignore[misc]
    """A comm without a kernel: it keeps what is said, and tells who waits."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.said: list[tuple[dict[str, Any], list[bytes]]] = []
        self.came = threading.Condition()
        super().__init__(*args, **kwargs)

    def publish_msg(
        self,
        msg_type: str,
        data: Any = None,
        metadata: Any = None,
        buffers: Any = None,
        **keys: Any,
    ) -> None:
        data = data or {}
        if msg_type == "comm_msg" and data.get("method") == "custom":
            with self.came:
                self.said.append((data["content"], [bytes(each) for each in buffers or ()]))
                self.came.notify_all()

    def hear(self, content: dict[str, Any], *buffers: bytes) -> None:
        """Take a message, as from the browser."""
        data = {"method": "custom", "content": content}
        self.handle_msg({"content": {"data": data}, "buffers": [memoryview(b) for b in buffers]})

    def until(
        self, holds: Callable[[dict[str, Any]], bool], since: int = 0
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Wait for a message and return it."""

        def found() -> tuple[dict[str, Any], list[bytes]] | None:
            return next((each for each in self.said[since:] if holds(each[0])), None)

        with self.came:
            assert self.came.wait_for(found, WAIT_S), "nothing of the kind was said"
            message = found()
        assert message is not None
        return message

    def ask(self, number: int, asked: dict[str, Any], *buffers: bytes) -> Any:
        """Ask as a canvas does; return (answer, its pictures)."""
        self.hear({"view": "v", "number": number, "asked": asked}, *buffers)
        content, pictures = self.until(lambda said: said.get("number") == number)
        return content["answer"], pictures


@contextmanager
def fake_comms() -> Iterator[None]:
    """Let widgets that are made meanwhile speak on such comms."""
    before, comm.create_comm = comm.create_comm, FakeComm
    try:
        yield
    finally:
        comm.create_comm = before


_PAGE = """<!doctype html><meta charset=utf-8><body style="margin:0;background:%s">
<div id=cell style="padding:16px"></div>
<script type=module>
const traits = %s, heard = [];
const model = {
  get: (name) => traits[name],
  on: (type, call) => heard.push(call),
  off: (type, call) => heard.splice(heard.indexOf(call), 1),
  send: async (content, _, buffers) => {
    const texts = buffers.map((buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))));
    for (const [said, pictures] of await window.kernel(content, texts)) {
      const views = pictures.map((text) => {
        return new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
      });
      for (const call of [...heard]) call(said, views);
    }
  },
};
const { default: widget } = await import("/widget.js");
window.leave = widget.render({ model, el: document.getElementById("cell") });
</script>"""
"""A notebook's page with one cell, and what anywidget hands a widget there."""


def bridged(page: "Page", widget: Any, background: str = "white") -> None:
    """Show a widget in a browser; what its canvas says reaches the widget, and back."""
    line: FakeComm = widget.comm
    heard = len(line.said)

    def kernel(content: dict[str, Any], texts: list[str]) -> list[Any]:
        nonlocal heard
        line.hear(content, *(base64.b64decode(text) for text in texts))
        line.until(lambda said: said.get("number") == content["number"], heard)
        with line.came:
            fresh, heard = line.said[heard:], len(line.said)
        return [[said, [base64.b64encode(each).decode() for each in pics]] for said, pics in fresh]

    page.expose_function("kernel", kernel)
    traits = json.dumps({"height": widget.height, "preset": widget.preset})
    shown = _PAGE % (background, traits)
    served = {"/": (shown, "text/html"), "/widget.js": (str(widget._esm), "text/javascript")}

    def answer(route: Any) -> None:
        body, kind = served[route.request.url.removeprefix("http://notebook")]
        route.fulfill(body=body, content_type=kind)

    page.route("http://notebook/**", answer)
    page.goto("http://notebook/")
