"""Do what is not to be trusted in a process of its own, with limits on what it may take.

The parent calls `done_apart`; the module that it names ends in `apart`, and sets its limits before
it looks into the file. The child hands over nothing but what it writes.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from .incoming import first_line, told_as

__all__ = ["Limits", "apart", "done_apart"]


@dataclass(frozen=True)
class Limits:
    """What a process may take.

    Attributes:
        seconds: Processor time.
        memory_bytes: Beyond what the process has when the limit is set.
        written_bytes: Of a file.
    """

    seconds: int
    memory_bytes: int
    written_bytes: int

    def set(self) -> None:
        """Set the limits of this process, for good."""
        try:
            import resource
        except ImportError:  # Windows has no such limits
            return
        pages = Path("/proc/self/statm")
        used = int(pages.read_text().split()[0]) * resource.getpagesize() if pages.exists() else 0
        for kind, most in (
            (resource.RLIMIT_AS, used + self.memory_bytes),
            (resource.RLIMIT_CPU, self.seconds),
            (resource.RLIMIT_FSIZE, self.written_bytes),
            (resource.RLIMIT_NOFILE, 256),
        ):
            _, hard = resource.getrlimit(kind)
            least = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (least, least))


def done_apart(module: str, source: Path, target: Path, seconds: int) -> str | None:
    """Run a module in a process of its own and wait; return None, or why it failed, in one line.

    Args:
        module: Ends in `apart`.
        source: What it reads.
        target: What it writes.
        seconds: The longest that it is waited for.
    """
    command = [sys.executable, "-m", module, str(source), str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"it took more than {seconds} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
    return lines[-1][:200]


def apart(work: Callable[[Path, Path], object], otherwise: str) -> None:
    """Do the work on the two files that the command line names, and end the process.

    Args:
        work: Reads the first, writes the second; it sets its own limits first.
        otherwise: The first words of what is said where it raises anything but an error of ours.
    """
    try:
        with told_as(ModelError, otherwise):
            work(Path(sys.argv[1]), Path(sys.argv[2]))
    except MemoryError:
        sys.stderr.write("it takes more memory than what it could hold\n")
        sys.exit(1)
    except ValueError as failed:
        sys.stderr.write(first_line(failed) + "\n")
        sys.exit(1)
    sys.exit(0)
