"""Say who runs which part of the model, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from ..errors import BackendError

__all__ = ["Placement"]


@dataclass(frozen=True)
class Placement:
    """Names of backends by part of the model.

    Where no gradient is needed, a part may run elsewhere than the drag: at the start of a drag,
    and in both whole passes (inverting runs down, middle and up; denoising with the dragged
    bottleneck runs down and up).

    Attributes:
        drag: The differentiable path, and all of the U-Net that is not placed otherwise;
            "" for the usual backend.
        down: The encoder half; None as `drag`.
        middle: The middle block; None as `drag`.
        up: The decoder half; None as `drag`.
        unet: Both whole passes as one part each, instead of down, middle and up.
        vae: Both halves of the VAE; None for PyTorch.
    """

    drag: str = ""
    down: str | None = None
    middle: str | None = None
    up: str | None = None
    unet: str | None = None
    vae: str | None = None

    @classmethod
    def everywhere(cls, backend: str) -> "Placement":
        """Place all that needs no gradient with one backend."""
        return cls(down=backend, middle=backend, up=backend, vae=backend)

    def with_drag(self, backend: str) -> "Placement":
        return replace(self, drag=backend)

    @classmethod
    def of(cls, text: str) -> "Placement":
        """Read "down=tensorrt,up=tensorrt,drag=compiled", or a backend's name.

        A name alone stands for all that the backend can run.

        Raises:
            BackendError: For any other text.
        """
        if "=" not in text:
            return cls(drag=text)
        pairs = [part.partition("=")[::2] for part in text.split(",")]
        names = [field.name for field in fields(cls)]
        for name, backend in pairs:
            if name not in names or not backend:
                raise BackendError(
                    f"{name}={backend} places nothing; "
                    f"write part=backend, part one of {', '.join(names)}"
                )
        if len(dict(pairs)) < len(pairs):
            raise BackendError(f"{text!r} places a part twice")
        return cls(**dict(pairs))

    @property
    def frozen(self) -> Mapping[str, str]:
        """Backends of what is placed otherwise than the drag, by field."""
        return {
            name: backend
            for name, backend in vars(self).items()
            if name != "drag" and backend is not None
        }

    @property
    def backends(self) -> tuple[str, ...]:
        """Every backend's name once, the drag's first."""
        return tuple(dict.fromkeys((self.drag, *self.frozen.values())))

    def __str__(self) -> str:
        if not self.frozen:
            return self.drag
        placed = {"drag": self.drag, **self.frozen}
        return ",".join(f"{name}={backend}" for name, backend in placed.items())
