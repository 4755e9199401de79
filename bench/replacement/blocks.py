"""Record and replace what the blocks of a diffusers U-Net hand on, by hooks on the stock network.

A block's output is all that it hands on: of a down block the map for the next one and the skips for
the decoder half, of the middle block and the up blocks one map. Beside the blocks only the first
convolution hands something on, the highest skip, which is never replaced.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["Output", "blocks_of", "holding", "recording", "zeros_like"]

Output: TypeAlias = "Tensor | tuple[Output, ...]"
"""What a block hands on: a map [1, C, h, w]; of a down block (map, skips)."""


def blocks_of(network: UNet2DConditionModel) -> dict[str, nn.Module]:
    """Return the blocks by name, in the order in which they run: down 0 ..., middle, up 0 ..."""
    downs = {f"down {number}": block for number, block in enumerate(network.down_blocks)}
    ups = {f"up {number}": block for number, block in enumerate(network.up_blocks)}
    return {**downs, "middle": network.mid_block, **ups}


@contextmanager
def recording(blocks: Mapping[str, nn.Module]) -> Iterator[dict[str, Output]]:
    """Give a dictionary that fills with what the blocks hand on while this is open."""
    recorded: dict[str, Output] = {}

    def record_as(name: str, block: nn.Module) -> RemovableHandle:
        def record(module: nn.Module, inputs: object, output: Output) -> None:
            recorded[name] = output

        return block.register_forward_hook(record)

    hooks = [record_as(name, block) for name, block in blocks.items()]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def holding(block: nn.Module, output: Output) -> Iterator[None]:
    """Let a block hand on `output` in place of its own while this is open."""
    hook = block.register_forward_hook(lambda module, inputs, own: output)
    try:
        yield
    finally:
        hook.remove()


def zeros_like(output: Output) -> Output:
    """Return an output of the same shapes, all zeros."""
    if isinstance(output, Tensor):
        return output.new_zeros(output.shape)
    return tuple(zeros_like(part) for part in output)
