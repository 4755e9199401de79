"""The table of drag methods. A method is one file that ends in its row."""

from ..drag.method import AnyMethod, Method
from ..errors import ConfigError
from .baseline import BASELINE, BASELINE_PLAIN
from .baseline_latent import (
    DRAGDIFFUSION_BASELINE,
    DRAGDIFFUSION_BASELINE_PLAIN,
    FREEDRAG_BASELINE,
    FREEDRAG_BASELINE_PLAIN,
)
from .dragdiffusion import DRAGDIFFUSION
from .draggan import DRAGGAN
from .dragnoise import DRAGNOISE
from .fast import FAST
from .freedrag import FREEDRAG
from .gooddrag import GOODDRAG
from .warp import WARP

__all__ = ["METHODS", "method_row"]

METHODS: dict[str, AnyMethod] = {
    method.name: method
    for method in (
        DRAGNOISE,
        DRAGDIFFUSION,
        FREEDRAG,
        GOODDRAG,
        FAST,
        WARP,
        DRAGGAN,
        BASELINE,
        BASELINE_PLAIN,
        DRAGDIFFUSION_BASELINE,
        FREEDRAG_BASELINE,
        DRAGDIFFUSION_BASELINE_PLAIN,
        FREEDRAG_BASELINE_PLAIN,
    )
}


def method_row(method: str | AnyMethod) -> AnyMethod:
    """Return the row of a name, or a row of one's own as it is.

    Raises:
        ConfigError: For a name that is not in the table, or what is neither.
    """
    if isinstance(method, Method):
        return method
    given: object = method
    if not isinstance(given, str) or method not in METHODS:
        raise ConfigError(f"there is no method {method!r}; known: {', '.join(METHODS)}")
    return METHODS[method]
