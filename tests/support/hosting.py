"""A host's canvas in a real browser, for the tests of hosts."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["Board", "page_of"]

WAIT_S = 60
ARTEFACTS = Path(__file__).parents[2] / "artifacts" / "hosts"


@contextmanager
def page_of(browser: "Browser", width: int, height: int) -> Iterator["Page"]:
    """Open a page of that size, on which no script may fail while this is open."""
    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(1000 * WAIT_S)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    context.close()
    assert problems == []


class Board:
    """A host's canvas in a browser, as somebody uses it."""

    def __init__(self, page: "Page") -> None:
        self.page = page
        self._side = 0

    def opened(self, side: int) -> None:
        """Wait until a square picture is seen."""
        self.page.wait_for_selector("#tools:not([hidden])")
        self._side = side

    def at(self, point: tuple[float, float]) -> tuple[float, float]:
        """Return where a point of the picture, which fits, lies on the page."""
        box = self.page.locator("#canvas").bounding_box()
        assert box is not None
        room = 12 if box["width"] < 600 else 32
        scale = (min(box["width"], box["height"]) - 2 * room) / self._side
        left = box["x"] + (box["width"] - scale * self._side) / 2
        top = box["y"] + (box["height"] - scale * self._side) / 2
        return left + scale * point[0], top + scale * point[1]

    def drag(self, handle: tuple[float, float], target: tuple[float, float]) -> None:
        """Press, pull until the model's picture is seen, and let go."""
        self.pull(handle, target)
        self.shown("model")
        self.page.mouse.up()

    def pull(self, handle: tuple[float, float], target: tuple[float, float]) -> None:
        """Press, and pull."""
        self.page.mouse.move(*self.at(handle))
        self.page.mouse.down()
        for share in (0.25, 0.5, 0.75, 1):
            way = zip(handle, target, strict=True)
            x, y = (begin + share * (end - begin) for begin, end in way)
            self.page.mouse.move(*self.at((x, y)))
            self.page.wait_for_timeout(30)

    def shown(self, kind: str) -> None:
        """Wait until the badge says what kind of picture is seen."""
        self.page.wait_for_selector(f'#badge[data-kind="{kind}"]', state="attached")

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds, while the page goes on."""
        end_s = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < end_s, "it did not come to be"
            self.page.wait_for_timeout(30)

    def photograph(self, name: str) -> None:
        """Keep what is seen."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{name}.png")
