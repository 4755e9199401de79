"""Count the operators that are called."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Called"]


class Called(TorchDispatchMode):
    """A mode that counts operators while it is entered.

    Attributes:
        times: Calls by name, without the overload ("aten::addmm").
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.times: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.times[func.name().split(".")[0]] += 1
        return func(*args, **(kwargs or {}))
