"""Read tensors out of a pickle in a process of its own, with limits, and write them without one.

A pickle can hold code. The process refuses everything but tensors and plain containers
(`weights_only`), may neither run nor write for long, and hands over nothing but a file of tensors.
"""

from pathlib import Path

from ..errors import ModelError
from ..system.incoming import open_regular
from ..system.limited import Limits, apart, done_apart

__all__ = ["convert_pickle"]

SECONDS = 600
"""Most processor time of the process, and the longest that it is waited for."""

_GIGABYTE = 2**30


def convert_pickle(source: Path, target: Path) -> None:
    """Write the tensors of a pickled state dict into a `.safetensors` file.

    Nested dicts become names with dots.

    Raises:
        ModelError: For a file that cannot be read so, with the reason.
    """
    open_regular(source, ModelError).close()
    reason = done_apart("dragnoise.engine.gan.unpickled", source, target, SECONDS)
    if reason is not None:
        raise ModelError(
            f"{str(source)!r} could not be converted ({reason}); give a state dict "
            "saved with torch.save, not a pickled network"
        )


def _convert(source: Path, target: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from torch import Tensor

    size = source.stat().st_size
    Limits(SECONDS, 2 * _GIGABYTE + 6 * size, 2 * size + _GIGABYTE // 1024).set()
    content = torch.load(source, map_location="cpu", weights_only=True)
    found: dict[str, Tensor] = {}

    def collect(value: object, name: str, depth: int) -> None:
        if isinstance(value, Tensor):
            found[name] = value.detach().contiguous().clone()
        elif isinstance(value, dict) and depth < 4:
            for key, inner in value.items():
                collect(inner, f"{name}.{key}" if name else str(key), depth + 1)

    collect(content, "", 0)
    save_file(found, target)


if __name__ == "__main__":
    apart(_convert, "it holds more than tensors")
