"""What stages have made, kept by content in three tiers: device, host, disk."""

from .disk import Disk, Entry, default_folder
from .store import Hold, Limits, Store

__all__ = ["Disk", "Entry", "Hold", "Limits", "Store", "default_folder"]
