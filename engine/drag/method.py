"""A drag method is a row of functions; methods differ in the functions that stand in the row.

    start      what is constant during the drag, and the float32 variable that is optimised
               (a bottleneck, a latent, style vectors)
    features   one forward pass: the feature map that is supervised, and what else it shows
    begin      the state before the first update: where the handles (or templates) are
    follow     where they are now
    finished   whether to stop
    supervise  the loss
    finish     what the method's pipeline makes the image of: for a diffusion model, where denoising
               starts and what predicts the noise
    preview    what the image is expected to become, while the drag goes on
    prepare    the model as the method runs it, in every stage
    gradient   the loss's gradient with respect to the variable
    captured   whether an iteration reads nothing from the device, so that it can be captured as a
               graph and the stop condition read late
    exact      whether the variable is read in float32, whatever the network's precision is
    mutual     what the denoising reads of the unedited picture's own; None: nothing
    grips      whether a drag takes a grip, a mask of what moves as one piece
    aim        the scene and the start of one drag, where they depend on its points, of those of
               the place and the inversion, storable both; None: all drags at a place begin alike
    rounds     how many updates at each step, for methods that denoise between their updates; None:
               all at one step

A method names its pipeline (how an image gets to a place and back) and the dataclass of its
settings. Nothing in this room knows a network.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor

from ..cache.structure import storable
from ..config import DragSettings, Mutual
from .scene import Scene

__all__ = ["AnyMethod", "Forward", "Method", "Start", "State", "WarmStart"]

P = TypeVar("P")
Q = TypeVar("Q", bound=DragSettings)
C = TypeVar("C")
F = TypeVar("F", bound="Forward")
S = TypeVar("S", bound="State")


@storable
@dataclass(frozen=True, eq=False)
class Start(Generic[C]):
    """The constants and the variable of a method before its first update at a place.

    Attributes:
        constants: The method's own; nobody but its functions looks into it.
        variable: The first value of what is optimised, float32, of any shape.
    """

    constants: C
    variable: Tensor


@storable
@dataclass(frozen=True, eq=False)
class Forward:
    """One forward pass, as far as the loss reads it; methods that see more extend it.

    Attributes:
        features: The supervised map [1, C, h, w] before any resizing (with guidance C is both
            texts').
    """

    features: Tensor

    def detach(self) -> Self:
        """Return the same tensors without their history."""
        tensors = {name: value.detach() for name, value in vars(self).items() if value is not None}
        return dataclasses.replace(self, **tensors)


@dataclass(frozen=True, eq=False)
class State:
    """Tensors of fixed shapes that move from iteration to iteration beside the variable.

    Methods that keep more extend it.

    Attributes:
        handles: Where the handles are now, [N, 2], (row, column) in the supervision map: int64, or
            float32 where they lie between its cells.
    """

    handles: Tensor


@dataclass(frozen=True, eq=False)
class WarmStart:
    """A beginning of a drag that is not its method's own start.

    Attributes:
        variable: An optimum that is at hand, float32, of the variable's shape.
        reference: What a forward pass at the method's start shows, to go on with the same drag;
            None: a drag of its own, whose reference is its first forward pass.
        handles: Where the handles are now, int64 [N, 2], (row, column) in the supervision map;
            None: where they were placed.
    """

    variable: Tensor
    reference: Forward | None = None
    handles: Tensor | None = None


def _unchanged(model: Any) -> Any:
    return model


def _gradient(loss: Tensor, variable: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, variable)
    return gradient


@dataclass(frozen=True, eq=False)
class Method(Generic[P, Q, C, F, S]):
    """A row of the table of methods.

    Its types: P the place, Q the settings, C the constants, F a forward pass, S the state.

    Attributes:
        name: Its name in `METHODS`, in results and on the command line.
        source: The paper or implementation that it follows.
        pipeline: How an image gets to a place and back; a row of `pipelines`.
        settings: The dataclass of its settings.
    """

    name: str
    source: str
    pipeline: Any
    settings: type[Q]
    start: Callable[[P], Start[C]]
    features: Callable[[Scene[P, Q], C, Tensor], F]
    begin: Callable[[Scene[P, Q], F], S]
    follow: Callable[[Scene[P, Q], F, F, S], S]
    finished: Callable[[Scene[P, Q], S], Tensor]
    supervise: Callable[[Scene[P, Q], F, F, S], Tensor]
    finish: Callable[[Scene[P, Q], C, Tensor], Any]
    preview: Callable[[Scene[P, Q], C, Tensor, F], Tensor]
    prepare: Callable[[Any], Any] = _unchanged
    gradient: Callable[[Tensor, Tensor], Tensor] = _gradient
    captured: bool = True
    exact: bool = False
    mutual: Callable[[Q], Mutual] | None = None
    rounds: Callable[[Q], tuple[int, ...]] | None = None
    grips: bool = False
    aim: (
        Callable[[Scene[P, Q], Start[C], tuple[Tensor, ...]], tuple[Scene[P, Q], Start[C]]] | None
    ) = None

    @property
    def goes_on(self) -> bool:
        """Whether a later drag can begin at the optimum: not where it belongs to its own drag."""
        return self.rounds is None and self.aim is None


AnyMethod = Method[Any, Any, Any, Any, Any]
"""A method of whatever types."""
