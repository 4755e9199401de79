"""Record the operators that a function calls, and call them again: what a CUDA graph does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["Replayed"]


class Replayed(TorchDispatchMode):
    """A recording of one call of a function, that can be made again of other tensors.

    Whatever the host decided, and every value that it read, stays as it was in the recorded call.

    Args:
        function: Of tensors, to a tensor.
        given: Tensors.
    """

    def __init__(self, function: Callable[..., Tensor], *given: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls: list[tuple[Any, Sequence[Any], Mapping[str, Any], Any]] = []
        self._given = given
        with self:
            self._result = function(*given)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, made))
        return made

    def __call__(self, *given: Tensor) -> Tensor:
        """Return the recorded operators' result of other tensors."""
        now = {id(before): each for before, each in zip(self._given, given, strict=True)}

        def put(part: Any) -> Any:
            return now.get(id(part), part) if isinstance(part, Tensor) else part

        for function, args, kwargs, before in self._calls:
            made = function(*tree_map(put, args), **tree_map(put, kwargs))
            for old, new in zip(tree_leaves(before), tree_leaves(made), strict=True):
                if isinstance(old, Tensor):
                    now[id(old)] = new
        result: Tensor = now[id(self._result)]
        return result
