"""The studio's canvas as one text, for hosts that load a single script.

The modules stay what the service serves (`engine/serve/page`): the text holds their sources, and
page/load.js gives each an address of its own in the browser.
"""

import functools
import json
from pathlib import Path

__all__ = ["bundle", "glue"]

_HERE = Path(__file__).parent / "page"
_PAGE = Path(__file__).parents[1] / "serve" / "page"
_FILES = (
    _PAGE / "warp.js",
    _PAGE / "drag-canvas.js",
    _PAGE / "ui.js",
    _HERE / "board.js",
    _PAGE / "index.html",
    _PAGE / "style.css",
)
"""Modules each after those that they import."""


@functools.cache
def bundle() -> str:
    """Return lines of JavaScript, for where `await` is allowed, after which there is a `Board`."""
    files = json.dumps({path.name: path.read_text(encoding="utf-8") for path in _FILES})
    # It may stand inside a script element, which ends at the first "</".
    safe = files.replace("</", r"<\/")
    return f"const FILES = {safe};\n{glue('load')}"


def glue(name: str) -> str:
    """Return a host's own lines."""
    return (_HERE / f"{name}.js").read_text(encoding="utf-8")
