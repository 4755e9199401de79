"""A kernel that must spill, to show that the test that looks for spills finds one."""

import triton
import triton.language as tl

__all__ = ["spilling_kernel"]


@triton.jit
def spilling_kernel(source, target, count, BLOCK: tl.constexpr):
    """Keep sixteen blocks alive at once, 256 values of each in a thread."""
    place = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    first = tl.load(source + place)
    second = tl.load(source + BLOCK + place)
    for step in range(count):
        again = tl.load(source + step * BLOCK + place)
        total += first * again + second
        first = first * 1.5 + total
        second = second - again * total
    tl.store(target + place, total + first + second)
