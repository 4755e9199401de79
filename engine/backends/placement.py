"""Who runs which part of the model, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from ..errors import BackendError

__all__ = ["FROZEN", "Placement"]

FROZEN = ("down", "middle", "up", "unet", "vae")


@dataclass(frozen=True)
class Placement:
    """Names of backends. drag: the differentiable path, and everything of the U-Net that is not placed otherwise; "" for the usual one.

    down, middle, up: where no gradient is asked for: the start of a drag, and both whole passes (inverting: down, middle, up; denoising with the
    dragged bottleneck: down, up). unet: both whole passes as one part each, instead. vae: both halves. None: for the U-Net as `drag`, for the VAE
    PyTorch.
    """

    drag: str = ""
    down: str | None = None
    middle: str | None = None
    up: str | None = None
    unet: str | None = None
    vae: str | None = None

    @classmethod
    def everywhere(cls, backend: str) -> "Placement":
        """All that needs no gradient."""
        return cls(down=backend, middle=backend, up=backend, vae=backend)

    def with_drag(self, backend: str) -> "Placement":
        return replace(self, drag=backend)

    @classmethod
    def of(cls, text: str) -> "Placement":
        """Of "down=tensorrt,up=tensorrt,drag=compiled", or the name of a backend for all that it can run. Raises BackendError for anything else."""
        if "=" not in text:
            return cls(drag=text)
        pairs = [part.partition("=")[::2] for part in text.split(",")]
        known = [field.name for field in fields(cls)]
        for name, backend in pairs:
            if name not in known or not backend:
                raise BackendError(
                    f"{name}={backend} places nothing; write part=backend, part one of {', '.join(known)}"
                )
        if len(dict(pairs)) < len(pairs):
            raise BackendError(f"{text!r} places a part twice")
        return cls(**dict(pairs))

    @property
    def frozen(self) -> Mapping[str, str]:
        """What is placed otherwise than the drag."""
        return {name: backend for name in FROZEN if (backend := getattr(self, name)) is not None}

    def __str__(self) -> str:
        placed = {"drag": self.drag, **self.frozen}
        return (
            self.drag
            if not self.frozen
            else ",".join(f"{name}={backend}" for name, backend in placed.items())
        )
