"""Hold every block's output from every start step on, and see how far the picture comes to be.

A block that holds what the picture is about, early and for good, has two marks: with its own output
held the picture stays, and with another picture's it becomes the other. Hence three sources of what
is held: the picture's own output of the start step, the other picture's of that step, and zeros,
which say how much the network leans on the block at all.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from dragnoise.engine import Image

from .blocks import Output, blocks_of, zeros_like
from .distances import SHARED, Distance, distance, share
from .rebuild import Held, Rebuilt, denoise, outputs_at

__all__ = ["SOURCES", "Cell", "observe"]

Source = Callable[[Rebuilt, Rebuilt, int], Mapping[str, Output]]
"""(the picture, the other picture, start step) -> what every block is to hand on."""


def _own(rebuilt: Rebuilt, other: Rebuilt, start: int) -> Mapping[str, Output]:
    return outputs_at(rebuilt, start)


def _other(rebuilt: Rebuilt, other: Rebuilt, start: int) -> Mapping[str, Output]:
    return outputs_at(other, start)


def _zeros(rebuilt: Rebuilt, other: Rebuilt, start: int) -> Mapping[str, Output]:
    own = outputs_at(rebuilt, start)
    return {block: zeros_like(output) for block, output in own.items()}


SOURCES: Mapping[str, Source] = {"own": _own, "other": _other, "zeros": _zeros}
"""What is held, by name."""


@dataclass(frozen=True, eq=False)
class Cell:
    """A picture with one block held from one step on.

    Attributes:
        source: A name in `SOURCES`.
        block: The block's name.
        start: The first step with the block held.
        image: What came of it.
        to_own: Its distance to the picture's own reconstruction.
        to_other: Its distance to the other picture's reconstruction.
    """

    source: str
    block: str
    start: int
    image: Image
    to_own: Distance
    to_other: Distance

    def figures(self) -> dict[str, float]:
        """Return the distances to the own reconstruction, and where between the two it lies."""
        own = asdict(self.to_own)
        other = asdict(self.to_other)
        shares = {f"{name}_share": share(own[name], other[name]) for name in SHARED}
        return own | shares


def observe(
    rebuilt: Rebuilt,
    other: Rebuilt,
    starts: Sequence[int],
    sources: Sequence[str],
    watch: Callable[[str], object],
) -> Iterator[Cell]:
    """Yield a picture's cells: by source, then by start step, then by block.

    Args:
        rebuilt: The picture.
        other: Another of the same size.
        starts: Steps, from 0 at the noisiest that is denoised.
        sources: Names in `SOURCES`.
        watch: Called with what is being done.
    """
    own_image = rebuilt.image
    other_image = other.image
    for source in sources:
        for start in starts:
            watch(f"{rebuilt.subject.name}: {source} held from step {start}")
            outputs = SOURCES[source](rebuilt, other, start)
            for block in blocks_of(rebuilt.place.model.unet.network):
                held = Held(block, outputs[block])
                latent = denoise(rebuilt.place, rebuilt.latents[start], start, held)[-1]
                image = rebuilt.decoded(latent)
                to_own = distance(image, own_image)
                yield Cell(source, block, start, image, to_own, distance(image, other_image))
