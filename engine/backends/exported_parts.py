"""Run parts of a model from exported files, whatever library runs them."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ..diffusion.model import Model
from ..diffusion.parts import Part, PartFunction
from ..errors import BackendError
from ..exported import Extent, Signature, extent_of, precision_of, signature

__all__ = ["Executable", "ExportedParts", "needs_gradient"]

W = TypeVar("W")


class Executable(Protocol):
    """A file, loaded."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return outputs by name; the caller owns them, no later call writes to them."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Describe the file and the memory that it holds, JSON-ready."""
        ...


class ExportedParts(Generic[W]):
    """A model's frozen parts, run from files.

    A file is opened when it is first needed, once for all extents that it serves; those of the
    last `KEPT` parts and extents stay open.

    Args:
        model: Whose parts they are.
        find: (part's name, extent) -> the file, and the identity that it must have; it depends on
            the adapter that is merged at the time.
        load: (file, identity, part's name, extent) -> the file, loaded.

    Attributes:
        closed: Number of parts and extents that have had to make room.
    """

    KEPT = 20

    def __init__(
        self,
        model: Model,
        find: Callable[[str, Extent], tuple[Path, W]],
        load: Callable[[Path, W, str, Extent], Executable],
    ) -> None:
        self._model = model
        self._find = find
        self._load = load
        self._opened: OrderedDict[tuple[Any, ...], Executable] = OrderedDict()
        self._by_file: WeakValueDictionary[Path, Executable] = WeakValueDictionary()
        self._signatures: dict[tuple[Part, Extent], Signature] = {}
        self._lock = threading.Lock()
        self.closed = 0

    def function(self, part: Part) -> PartFunction:
        """Return a part as the networks call it: skips as a tuple, one output as a tensor."""
        several = len(part.outputs) > 1

        def run(*inputs: Any) -> Any:
            outputs = self.run(part, *inputs)
            return outputs if several else outputs[0]

        return run

    def run(self, part: Part, *inputs: Any) -> tuple[Tensor, ...]:
        """Run a part.

        Args:
            part: Its row.
            inputs: Tensors in the order of its row, skips each by itself or as a tuple.

        Returns:
            Outputs in the order of its row.

        Raises:
            BackendError: For an input of another shape.
            PlanError: Where there is no file, or not the right one.
        """
        tensors = tuple(_flat(inputs))
        skips = len(tensors) - len(part.inputs) + 1
        by_name = dict(zip(part.input_names(skips), tensors, strict=True))
        extent = extent_of(self._model, part, by_name)
        names = self._signature(part, extent)
        if len(names.inputs) != len(by_name):
            raise BackendError(f"{part.name} takes {', '.join(names.inputs)}")
        dtype = precision_of(self._model, part.name)
        for name, shape in names.inputs.items():
            if tuple(by_name[name].shape) != shape:
                raise BackendError(
                    f"{part.name} takes {name} of shape {list(shape)} at {extent}, "
                    f"got {list(by_name[name].shape)}"
                )
            by_name[name] = by_name[name].detach().to(dtype).contiguous()
        outputs = self._executable(part, extent)(by_name)
        return tuple(outputs[name] for name in names.outputs)

    def files(self) -> list[dict[str, Any]]:
        """Describe every file that is open, JSON-ready."""
        with self._lock:
            return [executable.to_dict() for executable in dict.fromkeys(self._opened.values())]

    def _signature(self, part: Part, extent: Extent) -> Signature:
        if (part, extent) not in self._signatures:
            self._signatures[part, extent] = signature(self._model, part.name, extent)
        return self._signatures[part, extent]

    def _executable(self, part: Part, extent: Extent) -> Executable:
        merged = self._model.weights.merged if part.network == "unet" else None
        key = (part.name, extent, merged)
        with self._lock:
            if key not in self._opened:
                self._opened[key] = self._file(part, extent)
                while len(self._opened) > self.KEPT:
                    self._opened.popitem(last=False)
                    self.closed += 1
            self._opened.move_to_end(key)
            return self._opened[key]

    def _file(self, part: Part, extent: Extent) -> Executable:
        path, wanted = self._find(part.name, extent)
        executable = self._by_file.get(path)
        if executable is None:
            executable = self._load(path, wanted, part.name, extent)
            self._by_file[path] = executable
        return executable


def _flat(inputs: Iterable[Any]) -> Iterator[Tensor]:
    for value in inputs:
        if isinstance(value, Tensor):
            yield value
        else:
            yield from value


def needs_gradient(inputs: tuple[Any, ...]) -> bool:
    """Whether a part is to be differentiated, which no exported one can be."""
    if not torch.is_grad_enabled():
        return False
    leaves = torch.utils._pytree.tree_leaves(inputs)
    return any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves)
