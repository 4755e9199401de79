"""Find the document within a run's: of the drags on a generator's own pictures.

    {"drags": ..., "contestants": ..., "generated": {"drags": ..., "contestants": ..., ...}}

It is read as any other (`document.py`), and never with the one around it: its pictures are others.
"""

from .document import Document

__all__ = ["GENERATED", "generated"]

GENERATED = "generated"
"""Its name."""


def generated(document: Document) -> Document | None:
    """Return the document within; None if there is none, or no drag in it."""
    own: Document | None = document.get(GENERATED)
    return own if own and own["drags"] else None
