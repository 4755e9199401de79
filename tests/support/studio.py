"""The studio's page in a real browser, on a running service: for its tests and its recording."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["Studio", "browser", "missing", "service", "way"]

XY: TypeAlias = tuple[float, float]

_ROOT = Path(__file__).parents[2]
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_LONGEST_S = 60
_LAUNCHED = (
    "--no-sandbox",  # a test's machine is often a container, run as root
    "--use-angle=swiftshader",  # WebGL2 without a graphics card
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


def missing() -> str:
    """Return why no browser can be driven here; "" where one can."""
    try:
        import playwright.sync_api  # noqa: F401 whether it is there
    except ImportError:
        return "playwright is not installed"
    return "" if _program() else f"there is no browser on PATH: none of {', '.join(_NAMES)}"


def _program() -> str | None:
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


@contextlib.contextmanager
def browser() -> Iterator["Browser"]:
    """Start a browser without a window, and end it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=_program(), args=list(_LAUNCHED))
        try:
            yield started
        finally:
            started.close()


@contextlib.contextmanager
def service(*options: str) -> Iterator[str]:
    """Serve the embedded model at a free port, yield the page's address, and end it."""
    command = [sys.executable, "-m", "dragnoise.engine.cli", "serve", "--port", "0", *options]
    process = subprocess.Popen(
        command,
        cwd=_ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = re.search(r"http://\S+", process.stdout.readline())
        assert address is not None, "the service did not start"
        yield address.group()
    finally:
        process.terminate()
        process.wait(60)
        if process.stdout is not None:
            process.stdout.close()


class Studio:
    """The page, as somebody uses it.

    Attributes:
        page: Playwright's.
        problems: What the page's console said of errors.
        hosts: Whom it asked.
    """

    def __init__(self, page: "Page", address: str) -> None:
        self.page = page
        self.problems: list[str] = []
        self.hosts: set[str] = set()
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        page.goto(address)
        page.wait_for_selector("#welcome:not([hidden]), footer:not([hidden])")

    def open_sample(self, name: str = "boat") -> None:
        """Open one of the embedded model's pictures, and wait until it is seen."""
        self.page.click(f'#samples li:has(img[src$="/{name}.png"]) button')
        self.opened()

    def opened(self) -> None:
        """Wait until a picture is seen and the service has its mask."""
        self.page.wait_for_selector("footer:not([hidden])")
        self.page.wait_for_selector("#work", state="hidden")
        self.wait("studio.live.open && studio.stored()")

    def wait(self, what: str, argument: Any = None) -> None:
        """Wait until an expression of JavaScript is true.

        Asked from here: the page's policy lets none be evaluated inside it.
        """
        until_s = time.monotonic() + _LONGEST_S
        while not self.ask(what, argument):
            assert time.monotonic() < until_s, f"not within {_LONGEST_S} s: {what}"
            self.page.wait_for_timeout(40)

    def ask(self, what: str, argument: Any = None) -> Any:
        """Return the value of an expression of JavaScript."""
        return self.page.evaluate(what, argument)

    @property
    def state(self) -> dict[str, Any]:
        """The session, as the page knows it."""
        return cast("dict[str, Any]", self.ask("studio.session"))

    @property
    def steps(self) -> int:
        """Pictures in the history."""
        return self.page.locator("#history li").count()

    def at(self, point: XY) -> XY:
        """Return where a point of the picture lies on the page."""
        view = self.ask(
            "(() => { const box = document.getElementById('canvas').getBoundingClientRect();"
            " const { x, y, scale } = studio.canvas.view;"
            " return [box.left + x, box.top + y, scale] })()"
        )
        return view[0] + point[0] * view[2], view[1] + point[1] * view[2]

    def press(self, handle: XY) -> None:
        """Move the mouse to a point of the picture, and press."""
        self.page.mouse.move(*self.at(handle))
        self.page.mouse.down()

    def pull(self, points: Sequence[XY], pause_ms: float = 16) -> None:
        """Move what is pressed along points."""
        for point in points:
            self.page.mouse.move(*self.at(point))
            self.page.wait_for_timeout(pause_ms)

    def drag(self, handle: XY, target: XY, steps: int = 8) -> None:
        """Press, move, and let go."""
        self.press(handle)
        self.pull(way(handle, target, steps))
        self.page.mouse.up()

    def shown(self, kind: str) -> None:
        """Wait until the badge says what kind of picture is seen."""
        self.page.wait_for_selector(f'#badge[data-kind="{kind}"]', state="attached")

    def refined(self, steps: int) -> None:
        """Wait until the history has so many pictures, and nothing is being done."""
        self.wait("(steps) => document.querySelectorAll('#history li').length === steps", steps)
        self.page.wait_for_selector("#work", state="hidden")

    def pixels(self) -> bytes:
        """Return the service's picture of the session, a PNG file."""
        address = f"/api/v1/sessions/{self.state['id']}/image?format=png"
        numbers = self.ask(
            "(address) => fetch(address).then((answer) => answer.arrayBuffer())"
            ".then((buffer) => [...new Uint8Array(buffer)])",
            address,
        )
        return bytes(numbers)

    def photograph(self, path: Path) -> None:
        """Write what is seen as a PNG file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.ask("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        self.page.screenshot(path=path)


def way(start: XY, end: XY, steps: int) -> list[XY]:
    """Return points from one to another, without the first."""
    shares = [step / steps for step in range(1, steps + 1)]
    return [
        (start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]))
        for share in shares
    ]
