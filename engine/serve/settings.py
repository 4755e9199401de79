"""What a service allows: checked once, safe where nothing is said."""

import ipaddress
from dataclasses import dataclass

from ..config import PictureLimits, Settings, of_kind, shown
from ..errors import ConfigError
from ..inputs.preset import preset_of

__all__ = ["SERVICE_LIMITS", "ServeSettings", "is_loopback"]

SERVICE_LIMITS = PictureLimits(picture_pixels=20_000_000, picture_side=8192)
"""How large a picture may be that a service reads."""


@dataclass(frozen=True)
class ServeSettings(Settings):
    """How a service is reached and what it allows.

    Attributes:
        host: Address to listen at; beyond this machine a token is needed.
        port: Port to listen at, 0 for any that is free, to 65,535.
        token: What whoever asks has to know; empty: nothing, for this machine alone.
        hosts: Names under which it is reached, beside those of the loopback.
        origins: Origins of pages that may use it, beside its own ("https://app.example").
        preset: How drags are done that do not say.
        state: Folder where sessions are kept over a restart; empty: nowhere.
        sessions: Sessions in memory, 1 to 10,000.
        idle_s: Seconds after which a session that nobody uses is dropped from memory, above 0.
        keep_s: Seconds after which one that nobody uses is removed from the folder, above 0.
        undo_bytes: Bytes that a session keeps for undo, 0 to 2^40.
        waiting: Drags and trainings that wait or run, 1 to 10,000; one more is told to come back.
        timeout_s: Seconds that a drag or a training may take, waiting included, above 0.
        drain_s: Seconds that what runs may take when the service ends, 0 or more.
        body_bytes: Bytes of a request, 1,024 to 2^31.
        personalise: Whether pictures may be learned.

    Raises:
        ConfigError: Naming the value and its range.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str = ""
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    preset: str = "fast"
    state: str = ""
    sessions: int = 32
    idle_s: float = 3600.0
    keep_s: float = 7 * 86_400.0
    undo_bytes: int = 2**26
    waiting: int = 8
    timeout_s: float = 300.0
    drain_s: float = 25.0
    body_bytes: int = 20 * 2**20
    personalise: bool = True

    def __post_init__(self) -> None:
        for name in ("host", "token", "state"):
            of_kind(name, getattr(self, name), str)
        if not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            raise ConfigError("a token is made of ASCII letters, digits and signs, without spaces")
        preset_of(self.preset)
        self._check_whole("port", 0, 65_535)
        self._check_whole("sessions", 1, 10_000)
        self._check_whole("waiting", 1, 10_000)
        self._check_whole("undo_bytes", 0, 2**40)
        self._check_whole("body_bytes", 1024, 2**31)
        for name in ("idle_s", "keep_s", "timeout_s"):
            self._check_real(name, "above 0", lambda value: value > 0)
        self._check_real("drain_s", "0 or more", lambda value: value >= 0)
        self._check_flag("personalise")
        if not self.token and not is_loopback(self.host):
            raise ConfigError(
                f"host={shown(self.host)} is reached from other machines, so the service needs a "
                "token; give one, or listen at 127.0.0.1"
            )


def is_loopback(host: str) -> bool:
    """Whether an address, or a name, is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
