"""Logs of one JSON object a line: what was asked and how it went, no prompt, picture or token.

A session's id is its key: of it the logs have a digest.
"""

import hashlib
import json
import logging
import sys
import traceback
from datetime import UTC, datetime

__all__ = ["log", "log_crash", "short", "start_logging"]

_LOGGER = logging.getLogger("dragnoise.serve")


def log(event: str, level: int = logging.INFO, **about: object) -> None:
    """Log an event.

    Args:
        event: What happened, one word.
        level: As logging's.
        about: Numbers and names of our own choosing; never what a client has sent.
    """
    if _LOGGER.isEnabledFor(level):
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        name = logging.getLevelName(level).lower()
        _LOGGER.log(level, json.dumps({"at": at, "level": name, "event": event} | about))


def log_crash(error: BaseException) -> None:
    """Log an error of ours: its kind and its places in the code, not what it says."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-12:]]
    log("crash", logging.ERROR, error=type(error).__name__, where=where)


def short(id: str) -> str:
    """Return what logs call a session."""
    return hashlib.sha256(id.encode()).hexdigest()[:8]


def start_logging() -> None:
    """Let the service's logs go to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False
