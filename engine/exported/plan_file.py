r"""Read and write a plan's file: our header, which says all that the plan is for, then the plan.

    b"DRAGNOISE PLAN 1\n" | length of the header, 8 bytes little endian | header, JSON | plan

The plan is TensorRT's bytes as they came. The header has the plan's identity, length and BLAKE2b
digest, and how it was made. TensorRT itself tells a broken plan late, on the device, in its log, or
not at all; so nothing is handed to it that is not whole and meant for it.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ..cache.digest import bytes_digest
from ..errors import PlanError
from ..system.files import write_whole
from ..system.incoming import open_regular, told_as
from ..system.schema import Fields, Plain, Text, Whole
from .graph_file import LARGEST_BYTES
from .identity import PlanId, differences, read_plan_id

__all__ = ["SUFFIX", "about_plan", "read_plan", "write_plan"]

SUFFIX = ".plan"
_MAGIC = b"DRAGNOISE PLAN 1\n"
_LENGTH_BYTES = 8
_LARGEST_HEADER = 2**20
_HEADER = Fields(
    {
        "built": Plain(),
        "bytes": Whole(0, LARGEST_BYTES),
        "digest": Text(longest=64),
        "made": Fields({}, more=True),
    }
)


def write_plan(
    folder: Path, identity: PlanId, plan: bytes | memoryview, made: Mapping[str, Any]
) -> Path:
    """Write a plan into `folder`, whole or not at all, and return its path.

    Args:
        folder: Where it goes.
        identity: Of the plan.
        plan: TensorRT's bytes.
        made: Figures of the build, JSON-ready.

    Raises:
        OutputError: Where the disk refuses.
    """
    fields = {
        "built": identity.to_dict(),
        "bytes": len(plan),
        "digest": bytes_digest(plan),
        "made": dict(made),
    }
    header = json.dumps(fields).encode()

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            file.write(_MAGIC + len(header).to_bytes(_LENGTH_BYTES, "little") + header)
            file.write(plan)
            file.flush()
            os.fsync(file.fileno())

    return write_whole(folder / identity.file, write)


def about_plan(path: Path) -> tuple[PlanId, dict[str, Any]]:
    """Return a plan's identity and the figures of its build, from the header alone.

    Raises:
        PlanError: For a file that is no plan of ours, or cut off.
    """
    identity, fields, _ = _read_header(path)
    return identity, dict(fields["made"])


def read_plan(path: Path, wanted: PlanId) -> bytes:
    """Return TensorRT's bytes, if the file is whole and the plan that is wanted.

    Raises:
        PlanError: That says what is wrong with the file.
    """
    identity, fields, start = _read_header(path)
    wrong = differences(identity.to_dict(), wanted.to_dict())
    if wrong:
        raise PlanError(f"the plan {str(path)!r} is another's: {'; '.join(wrong)}; build it again")
    what = f"the plan {str(path)!r} cannot be read"
    with told_as(PlanError, what), open_regular(path, PlanError) as file:
        file.seek(start)
        plan = file.read(fields["bytes"] + 1)
    if len(plan) < fields["bytes"]:
        raise PlanError(
            f"the plan {str(path)!r} is cut off: it has {len(plan)} bytes of {fields['bytes']}; "
            "build it again"
        )
    if bytes_digest(plan) != fields["digest"]:
        raise PlanError(
            f"the plan {str(path)!r} is corrupt: its digest does not match; build it again"
        )
    return plan


def _read_header(path: Path) -> tuple[PlanId, dict[str, Any], int]:
    """Return a plan's identity, its header's fields, and where the plan begins in the file."""
    what = f"the plan {str(path)!r} cannot be read"
    with told_as(PlanError, what), open_regular(path, PlanError) as file:
        header = _header_bytes(path, file)
        start = file.tell()
    what = f"the plan {str(path)!r} has a header that cannot be read; build it again"
    with told_as(PlanError, what):
        fields = json.loads(header)
        _HEADER.check(fields, "header")
        identity = read_plan_id(fields["built"])
    return identity, fields, start


def _header_bytes(path: Path, file: BinaryIO) -> bytes:
    """Read up to the end of the header. Raises PlanError, OSError."""
    magic = file.read(len(_MAGIC))
    if not magic or not _MAGIC.startswith(magic):
        raise PlanError(
            f"{str(path)!r} is no plan of ours (it begins with {magic[:12]!r}); "
            "build it with dragnoise.export"
        )
    size = file.read(_LENGTH_BYTES)
    length = int.from_bytes(size, "little")
    header = file.read(min(length, _LARGEST_HEADER))
    if len(magic) < len(_MAGIC) or len(size) < _LENGTH_BYTES or len(header) < length:
        raise PlanError(f"the plan {str(path)!r} is cut off in its header; build it again")
    return header
