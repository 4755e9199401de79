"""Keep verdicts about this machine: one JSON file each, with a digest."""

import json
import logging
from pathlib import Path

from ..cache.digest import bytes_digest
from ..errors import OutputError
from ..system.files import write_whole
from ..system.incoming import read_json
from ..system.schema import Fields, Plain, Text

__all__ = ["Verdicts"]

_log = logging.getLogger("dragnoise")

_LARGEST_BYTES = 2**20
_KEPT = Fields({"verdict": Plain(), "digest": Text(longest=64)})


class Verdicts:
    """A folder of verdicts. One that cannot be read is judged again; one that cannot be kept, too.

    Args:
        folder: Where they are kept; made when the first is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: str) -> object:
        """Return the verdict under `key` as JSON has it; None where none can be read.

        One that is not what was written under this key, bit for bit, is none.
        """
        try:
            kept = read_json(self._path(key), OutputError, _LARGEST_BYTES)
            _KEPT.check(kept, "verdict")
        except ValueError:  # of the reader and the rule: it is judged again
            return None
        verdict: object = kept["verdict"]
        return verdict if kept["digest"] == _digest(key, verdict) else None

    def keep(self, key: str, verdict: object) -> None:
        """Write a verdict, whole or not at all; log where that is impossible."""
        text = json.dumps({"verdict": verdict, "digest": _digest(key, verdict)}, indent=1)
        path = self._path(key)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
        except (OSError, OutputError) as refused:
            _log.warning("a verdict is not kept (%s): it is found anew next time", refused)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def _digest(key: str, verdict: object) -> str:
    return bytes_digest(json.dumps([key, verdict], sort_keys=True).encode())
