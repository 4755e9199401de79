"""TensorRT in either of its flavours, behind one door: `tensorrt` (data centre and RTX cards, builds on the card it is for) and TensorRT for RTX
(`tensorrt_rtx`, builds anywhere, compiles for the card on arrival).

Both have the same interface but for a few features, each asked for by its name. Neither says in an exception why something failed: the reason stands
in its log, so every step is taken with a log of its own (`Log`), and what it says is raised.
"""

import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ...errors import BackendError

__all__ = ["FLAVOURS", "Library", "Log", "library", "objections_to_tensorrt"]

_log = logging.getLogger("dragnoise")

FLAVOURS: Mapping[str, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
"""flavour -> the modules it may be installed as."""

_OLDEST = {"tensorrt": (10, 12), "tensorrt_rtx": (1, 1)}
_EXTRA = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}


@dataclass
class Log:
    """What TensorRT has said: (severity, text). `logger` is what it is handed."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    logger: Any = None

    def text(self) -> str:
        """Its errors, one after the other; where there are none, its last words."""
        errors = [text for severity, text in self.lines if severity in ("ERROR", "INTERNAL_ERROR")]
        return (
            "; ".join(dict.fromkeys(errors))
            or "; ".join(text for _, text in self.lines[-2:])
            or "it said nothing"
        )


@dataclass(frozen=True, eq=False)
class Library:
    """flavour: a key of `FLAVOURS`. module: it. version: its own."""

    flavour: str
    module: Any
    version: str

    def log(self) -> Log:
        """An empty log, with a logger that writes to it."""
        log = Log()

        base: Any = self.module.ILogger  # of a module that is chosen now

        class Logger(base):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()

            def log(self, severity: Any, text: str) -> None:
                log.lines.append((severity.name, text))

        log.logger = Logger()
        return log

    def targets(self, capability: tuple[int, int] | None) -> tuple[str, ...]:
        """For what a plan may have been built that is to run on a device of that compute capability (None: on none), the usual first: "sm89";
        TensorRT for RTX: "any" of those that it knows, too."""
        own = "none" if capability is None else f"sm{capability[0]}{capability[1]}"
        return ("any", own) if self.flavour == "tensorrt_rtx" else (own,)


def library(flavour: str | None = None) -> Library:
    """That flavour, or the first that is here. Raises BackendError with the reasons of each that is not."""
    if flavour is not None and flavour not in FLAVOURS:
        raise BackendError(
            f"there is no TensorRT flavour {flavour!r}; known: {', '.join(FLAVOURS)}"
        )
    reasons: list[str] = []
    for name in (flavour,) if flavour else FLAVOURS:
        found = _load(name)
        if isinstance(found, Library):
            return found
        reasons += found
    raise BackendError("; ".join(reasons))


def objections_to_tensorrt(flavour: str | None = None) -> list[str]:
    """Why there is no TensorRT here; empty if there is."""
    try:
        library(flavour)
    except BackendError as missing:
        return [str(missing)]
    return []


@cache
def _load(flavour: str) -> Library | Sequence[str]:
    said = []
    for name in FLAVOURS[flavour]:
        try:
            module = importlib.import_module(name)
        except (
            ImportError,
            OSError,
            RuntimeError,
        ) as failed:  # a placeholder on the package index raises what it likes
            said.append(str(failed).splitlines()[0])
            continue
        version = str(getattr(module, "__version__", "0"))
        if not hasattr(module, "Builder"):
            return [
                f"{flavour}: the module {name} is here, but has no Builder (a placeholder without its libraries?)"
            ]
        if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST[flavour]:
            oldest = ".".join(map(str, _OLDEST[flavour]))
            return [f"{flavour} {version} is too old; {oldest} or newer is needed"]
        return Library(flavour, module, version)
    return [
        f"{flavour} cannot be imported ({said[-1]}); pip install 'dragnoise[{_EXTRA[flavour]}]'"
    ]
