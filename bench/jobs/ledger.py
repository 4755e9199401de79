"""Keep the results of many jobs in a folder, a line of JSON each, as they come.

    about.json            what the results depend on beside the jobs' names, written once
    results-2-of-4.jsonl  {"name": ..., "result": ..., "commit": ...}: the second of four shards

A line is appended in one piece. What a killed process has left of one is dropped. Numbers that are
none (an infinite PSNR) are written as Python writes them: NaN, Infinity.
"""

import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

from dragnoise.engine.errors import ConfigError, InputWarning, OutputError
from dragnoise.engine.system.files import unfinished_folder, writable_folder
from dragnoise.engine.system.incoming import read_json, told_as

from .shards import WHOLE, Shard

if sys.platform != "win32":
    import fcntl

__all__ = ["Ledger"]

_FIELDS = {"name", "result", "commit"}


class Ledger:
    """The results in a folder; what is added goes to one shard's file, what is read is of all.

    Args:
        folder: Made if it is not there.
        about: What the results depend on beside the jobs' names: settings, the model's digest, the
            protocol's version. Ready for JSON.
        shard: Whose results are added.
        commit: Of the code that makes them; stands in every line.

    Raises:
        ConfigError: The folder's results were made with another `about`; it names what differs.
        OutputError: The folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        shard: Shard = WHOLE,
        commit: str | None = None,
    ) -> None:
        self._folder = writable_folder(folder)
        self._commit = commit
        self._file = folder / f"results-{shard.index}-of-{shard.count}.jsonl"
        wanted = json.loads(json.dumps(about))
        _write_once(folder / "about.json", wanted)
        self.about: dict[str, Any] = read_json(folder / "about.json", ConfigError)
        differing = "; ".join(_differences(self.about, wanted))
        if differing:
            raise ConfigError(
                f"the results in {str(folder)!r} were made with {differing}; ask for the same, or "
                "name another folder"
            )

    @classmethod
    def found(cls, folder: Path) -> Self:
        """Return the ledger that is in a folder. Raises ConfigError if there is none."""
        return cls(folder, read_json(folder / "about.json", ConfigError))

    def done(self) -> dict[str, dict[str, Any]]:
        """Return the results of all shards by the jobs' names, in the order of files and lines."""
        return {line["name"]: line["result"] for line in self._all_lines()}

    def commits(self) -> dict[str, str | None]:
        """Return the commit that each job's result was made by; None where none is told."""
        return {line["name"]: line.get("commit") for line in self._all_lines()}

    def _all_lines(self) -> Iterator[dict[str, Any]]:
        for file in sorted(self._folder.glob("results-*-of-*.jsonl")):
            yield from _lines(file)

    def add(self, name: str, result: Mapping[str, Any]) -> None:
        """Append a job's result, whole and flushed to the disk.

        Args:
            name: The job's; a later result of the same name counts.
            result: Ready for JSON.

        Raises:
            OutputError: It could not be written.
        """
        told = {"name": name, "result": result, "commit": self._commit}
        line = json.dumps(told).encode() + b"\n"
        with (
            told_as(OutputError, f"{str(self._file)!r} could not be written"),
            self._file.open("ab+", buffering=0) as file,
            _alone(file),
        ):
            end = _whole_end(file)
            file.truncate(end)
            if file.write(line) != len(line):
                raise OSError("the disk is full")
            os.fsync(file.fileno())


def _write_once(file: Path, about: Mapping[str, Any]) -> None:
    """Write a document unless it is there; of many that do so at once one succeeds."""
    if file.exists():
        return
    with (
        unfinished_folder(file.parent) as own,
        told_as(OutputError, f"{str(file)!r} could not be written"),
    ):
        text = json.dumps(about, indent=1) + "\n"
        (own / file.name).write_text(text, encoding="utf-8")
        with suppress(FileExistsError):
            os.link(own / file.name, file)


@contextmanager
def _alone(file: BinaryIO) -> Iterator[None]:
    """Let no other process write to a file while this is open, where files can be locked."""
    if sys.platform == "win32":
        yield
        return
    fcntl.flock(file.fileno(), fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)


def _whole_end(file: BinaryIO) -> int:
    """Return where the file's last whole line ends, in bytes."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(end - 65536, 0)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Yield what the lines of a file hold; one that is broken is dropped with a notice."""
    for number, text in enumerate(file.read_bytes().splitlines(keepends=True), 1):
        line = _line(text)
        if line is not None:
            yield line
            continue
        warnings.warn(
            f"line {number} of {str(file)!r} is broken, as a process leaves it that is killed "
            "while it writes; its job is done again",
            InputWarning,
            stacklevel=3,
        )


def _line(text: bytes) -> dict[str, Any] | None:
    """Return what a whole line of a ledger holds; None of another."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    is_whole = text.endswith(b"\n") and isinstance(line, dict)
    return line if is_whole and {"name", "result"} <= line.keys() <= _FIELDS else None


def _differences(there: object, wanted: object, name: str = "") -> Iterator[str]:
    """Yield what is another in two documents, as "settings.lr = 0.01, not 0.02"."""
    if isinstance(there, dict) and isinstance(wanted, dict):
        for key in {**there, **wanted}:
            inner = f"{name}.{key}" if name else str(key)
            yield from _differences(there.get(key), wanted.get(key), inner)
    elif there != wanted:
        yield f"{name} = {json.dumps(there)}, not {json.dumps(wanted)}"
