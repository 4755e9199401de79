"""The page: its files, and nothing from elsewhere."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response

from .refusals import Refusal

__all__ = ["page_routes"]

PAGE = Path(__file__).parent / "page"

_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
}
_HEADERS = {"Cache-Control": "no-cache"}
_PLAIN = (
    "<!doctype html><title>dragnoise</title><p>The service runs; this installation has no page. "
    "Its protocol is at /api/v1/openapi.json."
)


def page_routes(folder: Path = PAGE) -> APIRouter:
    """Return the routes of the page. folder: its files."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    def index() -> Response:
        if not (folder / "index.html").is_file():
            return HTMLResponse(_PLAIN, headers=_HEADERS)
        return FileResponse(folder / "index.html", headers=_HEADERS)

    @routes.get("/page/{name:path}")
    def file(name: str) -> Response:
        path = _inside(folder, name)
        kind = _TYPES.get(path.suffix)
        if kind is None or not path.is_file():
            raise Refusal("not_found", "there is no such file")
        return FileResponse(path, media_type=kind, headers=_HEADERS)

    return routes


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder. Raises Refusal for one that leads outside."""
    try:
        path = (folder / name).resolve()
    except (OSError, ValueError):
        path = folder.parent
    if not path.is_relative_to(folder.resolve()):
        raise Refusal("not_found", "there is no such file")
    return path
