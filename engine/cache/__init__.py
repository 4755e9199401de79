"""What stages have made, kept by content in three tiers: device, host, disk."""

from .disk import BrokenError, Disk, Entry, default_folder, sealed, unsealed
from .store import Hold, Limits, Store
from .structure import kinds_of, put_together, taken_apart

__all__ = [
    "BrokenError",
    "Disk",
    "Entry",
    "Hold",
    "Limits",
    "Store",
    "default_folder",
    "kinds_of",
    "put_together",
    "sealed",
    "taken_apart",
    "unsealed",
]
