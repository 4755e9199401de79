"""Results of stages, kept by content in three tiers: device, host, disk."""

from .disk import Disk, Entry, default_folder
from .sealed import BrokenError, Sealed, read_sealed, seal, unseal, write_sealed
from .store import Hold, Limits, Store
from .structure import StructureError, flatten, kinds_of, rebuild, storable

__all__ = [
    "BrokenError",
    "Disk",
    "Entry",
    "Hold",
    "Limits",
    "Sealed",
    "Store",
    "StructureError",
    "default_folder",
    "flatten",
    "kinds_of",
    "read_sealed",
    "rebuild",
    "seal",
    "storable",
    "unseal",
    "write_sealed",
]
