"""Open TensorRT in either of its flavours.

`tensorrt` is for data centre and RTX cards and builds on the card that a plan is for. TensorRT for
RTX (`tensorrt_rtx`) builds anywhere and compiles for the card on arrival. Both have the same
interface but for a few features, each looked for by its name. Neither says in an exception why
something failed: the reason stands in its log, so every step is taken with a log of its own
(`Log`), and what it says is raised.
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
_RTX = ((7, 5), (8, 0), (8, 6), (8, 9))
_EXTRA = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}


@dataclass
class Log:
    """A log of TensorRT's words.

    Attributes:
        lines: (severity, text) each.
        logger: What TensorRT is handed.
    """

    lines: list[tuple[str, str]] = field(default_factory=list)
    logger: Any = None

    def text(self) -> str:
        """Return its errors, one after the other; where there are none, its last words."""
        errors = [text for severity, text in self.lines if severity in ("ERROR", "INTERNAL_ERROR")]
        last = [text for _, text in self.lines[-2:]]
        return "; ".join(dict.fromkeys(errors)) or "; ".join(last) or "it said nothing"


@dataclass(frozen=True, eq=False)
class Library:
    """A flavour of TensorRT that is installed here.

    Attributes:
        flavour: A key of `FLAVOURS`.
        module: Its Python module.
        version: Of the module.
    """

    flavour: str
    module: Any
    version: str

    def log(self) -> Log:
        """Return an empty log, with a logger that writes to it."""
        log = Log()

        base: Any = self.module.ILogger  # of a module that is known only now

        class Logger(base):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()

            def log(self, severity: Any, text: str) -> None:
                log.lines.append((severity.name, text))

        log.logger = Logger()
        return log

    def targets(self, capability: tuple[int, int] | None) -> tuple[str, ...]:
        """Return the targets of plans that run on a device, the usual first.

        Args:
            capability: The device's compute capability; None without a device.

        Returns:
            "sm89"; for TensorRT for RTX also "any" of those that it knows.
        """
        own = "none" if capability is None else f"sm{capability[0]}{capability[1]}"
        return ("any", own) if self.flavour == "tensorrt_rtx" else (own,)

    def objections_to(self, capability: tuple[int, int]) -> list[str]:
        """List why it runs no plan on a device; empty if it does.

        TensorRT for RTX refuses the cards of data centres after Ampere when a plan is loaded: 1.7.1
        names 8.0, 8.6, 8.9, 12.0, 12.1 and what comes after, on an H100. Its documents add 7.5.
        """
        if self.flavour != "tensorrt_rtx" or capability in _RTX or capability >= (12, 0):
            return []
        known = ", ".join(f"{major}.{minor}" for major, minor in _RTX)
        return [
            f"TensorRT for RTX takes compute capabilities {known} and from 12.0 on, this card has "
            f"{capability[0]}.{capability[1]}; pip install 'dragnoise[tensorrt]', whose flavour "
            "comes first"
        ]


def library(flavour: str | None = None) -> Library:
    """Return a flavour, or the first that is installed.

    Raises:
        BackendError: With the reasons of each that is not.
    """
    if flavour is not None and flavour not in FLAVOURS:
        raise BackendError(
            f"there is no TensorRT flavour {flavour!r}; known: {', '.join(FLAVOURS)}"
        )
    reasons: list[str] = []
    for name in (flavour,) if flavour else FLAVOURS:
        loaded = _load(name)
        if isinstance(loaded, Library):
            return loaded
        reasons += loaded
    raise BackendError("; ".join(reasons))


def objections_to_tensorrt(flavour: str | None = None) -> list[str]:
    """List why there is no TensorRT here; empty if there is."""
    try:
        library(flavour)
    except BackendError as missing:
        return [str(missing)]
    return []


@cache
def _load(flavour: str) -> Library | Sequence[str]:
    """Import a flavour; the reasons where that is not possible."""
    failures = []
    for name in FLAVOURS[flavour]:
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as failed:
            # A placeholder on the package index raises RuntimeError.
            failures.append(str(failed).splitlines()[0])
            continue
        return _checked(flavour, name, module)
    extra = _EXTRA[flavour]
    return [f"{flavour} cannot be imported ({failures[-1]}); pip install 'dragnoise[{extra}]'"]


def _checked(flavour: str, name: str, module: Any) -> Library | Sequence[str]:
    version = str(getattr(module, "__version__", "0"))
    if not hasattr(module, "Builder"):
        return [
            f"{flavour}: the module {name} is here, but has no Builder "
            "(a placeholder without its libraries?)"
        ]
    if tuple(int(number) for number in version.split(".")[:2]) < _OLDEST[flavour]:
        oldest = ".".join(map(str, _OLDEST[flavour]))
        return [f"{flavour} {version} is too old; {oldest} or newer is needed"]
    return Library(flavour, module, version)
