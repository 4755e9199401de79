"""Read tensors out of a pickle in a process of its own, with limits, and write them without one.

A pickle can hold code. The process refuses everything but tensors and plain containers
(`weights_only`), may neither run nor write for long, and hands over nothing but a file of tensors.
"""

import subprocess
import sys
from pathlib import Path

from ..errors import ModelError
from ..system.incoming import first_line, open_regular, told_as

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
    command = [sys.executable, "-m", "dragnoise.engine.gan.unpickled", str(source), str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as late:
        raise ModelError(f"{str(source)!r} was not read within {SECONDS} s") from late
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise ModelError(
            f"{str(source)!r} could not be converted ({lines[-1][:200]}); give a state dict saved "
            "with torch.save, not a pickled network"
        )


def _limit(size: int) -> None:
    """Limit what this process may take: memory, processor time, what it writes."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    pages = Path("/proc/self/statm")
    used = int(pages.read_text().split()[0]) * resource.getpagesize() if pages.exists() else 0
    memory = used + 2 * _GIGABYTE + 6 * size
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_FSIZE, 2 * size + _GIGABYTE // 1024),
        (resource.RLIMIT_NOFILE, 256),
    ):
        _, hard = resource.getrlimit(kind)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))


def _main(source: Path, target: Path) -> int:
    import torch
    from safetensors.torch import save_file
    from torch import Tensor

    _limit(source.stat().st_size)
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
    return 0


if __name__ == "__main__":
    try:
        with told_as(ModelError, "it holds more than tensors"):
            sys.exit(_main(Path(sys.argv[1]), Path(sys.argv[2])))
    except (ModelError, MemoryError) as failed:
        sys.stderr.write(first_line(failed) + "\n")
        sys.exit(1)
