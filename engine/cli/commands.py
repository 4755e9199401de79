"""The command `dragnoise`: edits, comparisons, what they need, and what can be known of it.

Results go to stdout (with --json as one JSON document), progress and messages to stderr.
`program.py` says what the exit codes mean.
"""

import importlib.metadata

from .cache import CACHE
from .compare import COMPARE
from .convert import CONVERT
from .demo import DEMO
from .edit import EDIT
from .generate import GENERATE
from .info import INFO
from .personalise import PERSONALISE
from .program import Program
from .serve import SERVE

__all__ = ["DRAGNOISE"]

DRAGNOISE = Program(
    name="dragnoise",
    usage="dragnoise",
    description="Drag what is under a point of an image to another point.",
    commands=(EDIT, COMPARE, GENERATE, PERSONALISE, SERVE, CONVERT, CACHE, DEMO, INFO),
    version=f"dragnoise {importlib.metadata.version('dragnoise')}",
)
