"""What a lack of memory looks like, whoever raises it."""

import errno

__all__ = ["is_out_of_memory"]

_WORDS = (
    "allocate memory",  # PyTorch on a CPU, the operating system
    "out of memory",  # CUDA
    "not enough memory",
    "unable to allocate",
    "bad_alloc",
    "can't start new thread",
    "could not create a memory",  # oneDNN
    "storage size calculation overflowed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory, or no room for one more thread.

    PyTorch has no class of its own for it on a CPU.
    """
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, (RuntimeError, ImportError)) and any(word in text for word in _WORDS)
