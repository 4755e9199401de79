"""What stages have made, kept by content in three tiers: device, host, disk."""

from .disk import BrokenError, Disk, Entry, default_folder, seal, unseal
from .store import Hold, Limits, Store
from .structure import flatten, kinds_of, rebuild

__all__ = [
    "BrokenError",
    "Disk",
    "Entry",
    "Hold",
    "Limits",
    "Store",
    "default_folder",
    "flatten",
    "kinds_of",
    "rebuild",
    "seal",
    "unseal",
]
