"""The stages of an edit, in the order in which they run: plain functions of values.

Positional arguments are what a result depends on; keyword arguments only watch. A stage holds no
timer, no cache and no device query. Those whose results are worth keeping are marked `kept`.
"""

from .decode import decode
from .encode import condition, embed, encode, prompt_notices
from .generate import draw_noise, generate
from .invert import invert
from .preview import preview
from .propagate import Denoising, denoise, propagate
from .rebuild import rebuild
from .show import Showing, show

__all__ = [
    "Denoising",
    "Showing",
    "condition",
    "decode",
    "denoise",
    "draw_noise",
    "embed",
    "encode",
    "generate",
    "invert",
    "preview",
    "prompt_notices",
    "propagate",
    "rebuild",
    "show",
]
