"""`dragnoise cache`: list, check or remove what is kept on disk."""

import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, OutputError
from .options import add_json_option
from .program import Command
from .show import print_json

if TYPE_CHECKING:
    from ..cache import Disk

__all__ = ["CACHE", "cache_summary"]


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("act", choices=_ACTS, help="list, check every file, or remove all")
    parser.add_argument(
        "--folder", metavar="FOLDER", help="default: DRAGNOISE_CACHE, else the user's cache folder"
    )
    add_json_option(parser)


def _run(parsed: Namespace) -> int:
    """Return 1 if there were broken files, else 0."""
    document, text = _ACTS[parsed.act](_disk(parsed.folder))
    if parsed.json:
        print_json(document)
    else:
        print(text)
    return 1 if document.get("set_aside") or document.get("left") else 0


def _list(disk: "Disk") -> tuple[dict[str, Any], str]:
    now = time.time()
    entries = [
        {
            "key": entry.path.stem,
            "stage": entry.about.get("stage", "?"),
            "bytes": entry.nbytes,
            "unused_s": round(now - entry.used),
            "made_ms": round(entry.about.get("made_ms", 0.0), 1),
        }
        for entry in disk.entries()
    ]
    lines = [
        f"{entry['key'][:12]}  {entry['stage']:12}  {entry['bytes']:>12,} bytes"
        f"  took {entry['made_ms']:>10,.1f} ms  unused for {entry['unused_s']:,} s"
        for entry in entries
    ]
    total = sum(entry["bytes"] for entry in entries)
    lines.append(f"{len(entries)} entries, {total:,} bytes in {disk.folder}")
    return {"folder": str(disk.folder), "entries": entries}, "\n".join(lines)


def _verify(disk: "Disk") -> tuple[dict[str, Any], str]:
    sound, broken = disk.verify()
    left = [path.name for path in broken if os.path.lexists(path)]
    aside = [path.name for path in broken if path.name not in left]
    document = {"folder": str(disk.folder), "sound": sound, "set_aside": aside}
    text = f"{sound} sound, {len(aside)} set aside in {disk.folder}"
    if left:
        document["left"] = left
        text += f"; {len(left)} broken ones cannot be moved"
    return document, text


def _clear(disk: "Disk") -> tuple[dict[str, Any], str]:
    """Raises OutputError if a file cannot be removed."""
    try:
        removed = disk.clear()
    except OSError as error:
        raise OutputError(f"the cache {str(disk.folder)!r} cannot be cleared ({error})") from error
    document = {"folder": str(disk.folder), "removed": removed}
    return document, f"{removed} files removed from {disk.folder}"


_ACTS: Mapping[str, Callable[["Disk"], tuple[dict[str, Any], str]]] = {
    "ls": _list,
    "verify": _verify,
    "clear": _clear,
}
"""Acts on a cache; each returns a JSON document and the same as text."""


def cache_summary() -> dict[str, str]:
    """Return what `dragnoise info` shows of the default folder."""
    disk = _disk(None)
    total, entries = disk.nbytes()
    return {"cache folder": str(disk.folder), "cache": f"{entries} entries, {total:,} bytes"}


def _disk(folder: str | None) -> "Disk":
    """Return a folder's cache without a limit of its size: it is only looked at."""
    from ..cache import Disk

    return Disk(_folder(folder), 2**62)


def _folder(path: str | None) -> Path:
    from ..cache import default_folder

    if path == "":
        raise ConfigError("--folder is empty; give the path of a folder, or leave it out")
    return default_folder() if path is None else Path(path)


CACHE = Command(
    name="cache",
    summary="what is kept on disk",
    description="List, check or remove what `--cache` has kept on disk.",
    add_options=_add_options,
    run=_run,
)
