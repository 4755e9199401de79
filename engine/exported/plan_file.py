"""A plan's file: our header, which says all that the plan is for, then TensorRT's bytes as they came.

    b"DRAGNOISE PLAN 1\\n" | length of the header, 8 bytes little endian | header, JSON | plan

The header has the plan's identity, length and BLAKE2b digest, and how it was made. TensorRT itself tells a broken plan late, on the device, in its
log, or not at all; so nothing is handed to it that is not whole and meant for it.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import PlanError
from ..system.files import write_whole
from .identity import PlanId, differences, read_plan_id

__all__ = ["SUFFIX", "about_plan", "read_plan", "write_plan"]

SUFFIX = ".plan"
_MAGIC = b"DRAGNOISE PLAN 1\n"
_LARGEST_HEADER = 2**20


def write_plan(
    folder: Path, built: PlanId, plan: bytes | memoryview, made: Mapping[str, Any]
) -> Path:
    """Whole or not at all; made: figures of the build. Raises OutputError."""
    said = {
        "built": built.to_dict(),
        "bytes": len(plan),
        "digest": _digest(plan),
        "made": dict(made),
    }
    header = json.dumps(said).encode()

    def write(part: Path) -> None:
        with part.open("wb") as file:
            file.write(_MAGIC + len(header).to_bytes(8, "little") + header)
            file.write(plan)
            file.flush()
            os.fsync(file.fileno())

    return write_whole(folder / built.file, write)


def about_plan(path: Path) -> tuple[PlanId, dict[str, Any]]:
    """(identity, how it was made) from the header alone. Raises PlanError for what is no plan of ours, or cut off."""
    built, said, _ = _head(path)
    return built, dict(said["made"])


def read_plan(path: Path, wanted: PlanId) -> bytes:
    """TensorRT's bytes, if the file is whole and the plan that is wanted. Raises PlanError that says what is wrong with it."""
    built, said, start = _head(path)
    if found := differences(built.to_dict(), wanted.to_dict()):
        raise PlanError(f"the plan {str(path)!r} is another's: {'; '.join(found)}; build it again")
    with path.open("rb") as file:
        file.seek(start)
        plan = file.read()
    if len(plan) < said["bytes"]:
        raise PlanError(
            f"the plan {str(path)!r} is cut off: it has {len(plan)} bytes of {said['bytes']}; build it again"
        )
    if _digest(plan) != said["digest"]:
        raise PlanError(
            f"the plan {str(path)!r} is corrupt: its digest does not match; build it again"
        )
    return plan


def _head(path: Path) -> tuple[PlanId, dict[str, Any], int]:
    """(identity, the header, where the plan begins)"""
    try:
        with path.open("rb") as file:
            magic, size = file.read(len(_MAGIC)), file.read(8)
            length = int.from_bytes(size, "little")
            header = file.read(min(length, _LARGEST_HEADER))
    except OSError as refused:
        raise PlanError(f"the plan {str(path)!r} cannot be read ({refused})") from refused
    if not magic or not _MAGIC.startswith(magic):
        raise PlanError(
            f"{str(path)!r} is no plan of ours (it begins with {magic[:12]!r}); build it with dragnoise.export"
        )
    if len(magic) < len(_MAGIC) or len(size) < 8 or len(header) < length:
        raise PlanError(f"the plan {str(path)!r} is cut off in its header; build it again")
    try:
        said = json.loads(header)
        built = read_plan_id(said["built"])
        if (
            not isinstance(said["bytes"], int)
            or not isinstance(said["digest"], str)
            or not isinstance(said["made"], dict)
        ):
            raise TypeError("a field is of another type")
    except (ValueError, KeyError, TypeError) as wrong:
        raise PlanError(
            f"the plan {str(path)!r} has a header that cannot be read ({wrong}); build it again"
        ) from wrong
    return built, said, len(_MAGIC) + 8 + length


def _digest(plan: bytes | memoryview) -> str:
    return hashlib.blake2b(plan, digest_size=32).hexdigest()
