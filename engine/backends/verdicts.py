"""Keep verdicts about this machine: one JSON file each."""

import json
import logging
from pathlib import Path

from ..errors import OutputError
from ..system.files import write_whole

__all__ = ["Verdicts"]

_log = logging.getLogger("dragnoise")


class Verdicts:
    """A folder of verdicts. One that cannot be read is judged again; one that cannot be kept, too.

    Args:
        folder: Where they are kept; made when the first is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: str) -> object:
        """Return the verdict under `key` as JSON has it; None where none can be read."""
        try:
            verdict: object = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return verdict

    def keep(self, key: str, verdict: object) -> None:
        """Write a verdict, whole or not at all; log where that is impossible."""
        text = json.dumps(verdict, indent=1)
        path = self._path(key)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
        except (OSError, OutputError) as refused:
            _log.warning("a verdict is not kept (%s): it is found anew next time", refused)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"
