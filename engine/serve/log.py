"""Logs of one JSON object a line: what was asked and how it went, no prompt, picture or token.

A session's id is its key: of it the logs have a digest.
"""

import hashlib
import json
import logging
import sys
import time
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
        name = logging.getLevelName(level).lower()
        head = {"at": _at(time.time()), "level": name, "event": event}
        _LOGGER.log(level, json.dumps(head | about))


def log_crash(error: BaseException) -> None:
    """Log an error of ours: its kind and its places in the code, not what it says."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-12:]]
    log("crash", logging.ERROR, error=type(error).__name__, where=where)


def short(id: str) -> str:
    """Return what logs call a session."""
    return hashlib.sha256(id.encode()).hexdigest()[:8]


def start_logging() -> None:
    """Let logs and warnings go to stderr, one object a line, whoever writes them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    _LOGGER.setLevel(logging.INFO)


class _Lines(logging.Formatter):
    """Ours are lines already; of a library's errors the kind is told, not what they say."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's line."""
        if record.name == _LOGGER.name:
            return record.getMessage()
        error = record.exc_info[0] if record.exc_info else None
        about = {
            "at": _at(record.created),
            "level": record.levelname.lower(),
            "event": "library",
            "logger": record.name,
            "text": record.getMessage().strip().partition("\n")[0][:200],
        }
        return json.dumps(about if error is None else about | {"error": error.__name__})


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
