"""`dragnoise serve`: the page in a browser, and the service that products embed."""

import importlib.util
import secrets
import sys
import warnings
from argparse import ArgumentParser, Namespace

from ..config import PictureLimits
from ..errors import ConfigError, InputWarning
from ..inputs.preset import PRESETS
from ..serve.log import start_logging
from ..serve.settings import SERVICE_LIMITS, ServeSettings, is_loopback
from .options import add_model_options, add_settings, given_settings, load_editor
from .program import Command

__all__ = ["SERVE"]

_NEEDED = ("fastapi", "uvicorn", "websockets", "python_multipart")
_LIMITS = ("sessions", "idle_s", "waiting", "timeout_s", "drain_s", "body_bytes", "undo_bytes")


def _add_options(parser: ArgumentParser) -> None:
    usual = ServeSettings()
    parser.add_argument(
        "place",
        nargs="?",
        metavar="MODEL",
        help="diffusers folder or .safetensors file (default: the embedded model)",
    )
    parser.add_argument(
        "--host", default=usual.host, help="address to listen at (default: %(default)s)"
    )
    parser.add_argument(
        "--port",
        type=int,
        default=usual.port,
        metavar="N",
        help="port to listen at; 0: any that is free (default: %(default)s)",
    )
    parser.add_argument(
        "--token",
        default="",
        metavar="TEXT",
        help="what a client must know (default: none on this machine; elsewhere one is made)",
    )
    parser.add_argument(
        "--preset",
        default=usual.preset,
        choices=sorted(PRESETS),
        help="how to drag after the release (default: %(default)s)",
    )
    parser.add_argument(
        "--state",
        default="",
        metavar="FOLDER",
        help="keep sessions here, so that they outlive the service",
    )
    for name, metavar, about in (
        ("--allow-host", "NAME", "also answer to this name; repeat for more"),
        ("--allow-origin", "URL", "also let this origin's pages use it; repeat for more"),
    ):
        parser.add_argument(name, action="append", default=[], metavar=metavar, help=about)
    defaults = {name: getattr(usual, name) for name in _LIMITS}
    add_settings(parser, "what is allowed", ServeSettings, only=_LIMITS, **defaults)
    add_settings(
        parser,
        "how large a picture may be",
        PictureLimits,
        only=("edit_pixels",),
        edit_pixels=SERVICE_LIMITS.edit_pixels,
    )
    add_model_options(parser)


def _run(parsed: Namespace) -> int:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"serving needs {', '.join(missing)}: pip install 'dragnoise[serve]'")
    if parsed.place is not None:
        if parsed.model is not None:
            raise ConfigError("MODEL and --model both name the model; give one of them")
        parsed.model = parsed.place
    settings = _settings(parsed)
    parsed.picture_pixels = SERVICE_LIMITS.picture_pixels
    parsed.picture_side = SERVICE_LIMITS.picture_side
    start_logging()
    warnings.simplefilter("ignore", InputWarning)  # they may quote prompts; results have them

    from ..serve.server import run

    return run(lambda: load_editor(parsed), settings, _tell)


def _settings(parsed: Namespace) -> ServeSettings:
    """Return how to serve; beyond this machine with a token, made where none was given."""
    token = parsed.token
    if not token and not is_loopback(parsed.host):
        token = secrets.token_urlsafe(24)
    limits = {name: given_settings(parsed, ServeSettings)[name] for name in _LIMITS}
    return ServeSettings(
        host=parsed.host,
        port=parsed.port,
        token=token,
        hosts=tuple(parsed.allow_host),
        origins=tuple(parsed.allow_origin),
        preset=parsed.preset,
        state=parsed.state,
        **limits,
    )


def _tell(url: str) -> None:
    print(f"open {url}")
    sys.stdout.flush()


SERVE = Command(
    name="serve",
    summary="drag in a browser, and serve other programs",
    description=(
        "Serve the page to drag in, and sessions by HTTP and WebSocket (docs/protocol.md). "
        "It ends with Ctrl-C."
    ),
    add_options=_add_options,
    run=_run,
)
