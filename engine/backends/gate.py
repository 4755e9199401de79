"""Run a compiled part only after it has been compared with its eager self.

The compiler has returned a gradient of exactly zero for this network, with the forward pass right
and no error (inductor on a CPU, PyTorch 2.13). So a compiled part is run beside the eager one
before its first use: outputs and, where it is differentiated, the gradient of a fixed combination
of them must agree. The verdict is kept for this network, part, kind of input, device and versions;
a part that fails runs eagerly, with a warning that says why. What is the moment's fault, not the
code's, is never kept: memory or disk that ran out, a compiler that is missing. And what was allowed
where there was a compiler runs eagerly where there is none.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.exc import CppCompileError, InvalidCxxCompiler
from torch.utils._pytree import tree_flatten, tree_map

from ..system.incoming import first_line
from .verdicts import Verdicts

__all__ = ["TOLERANCE", "Gate"]

_log = logging.getLogger("dragnoise")

TOLERANCE: Mapping[torch.dtype, float] = {
    torch.float64: 1e-9,
    torch.float32: 1e-3,
    torch.float16: 2e-2,
    torch.bfloat16: 8e-2,
}
"""Allowed relative difference (L2) of a compiled output or gradient, by dtype: several times what
another order of rounding makes of a whole network."""

_PASSING = (MemoryError, OSError, torch.OutOfMemoryError, InvalidCxxCompiler, CppCompileError)
_PASSING_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "No space left")
"""What PyTorch's allocators, and compilers, say in a plain RuntimeError."""


@dataclass
class Gate:
    """A compiled part that is called like its eager self, and is it where the two disagree.

    Attributes:
        part: Name of the part, for messages and for the verdict's key.
        eager: A function of tensors, nests of tensors and constants.
        compiled: What is to be used in its place.
        identity: What a verdict holds for, beside the part and the kind of input.
        verdicts: Where verdicts are kept.
        reasons: Why the eager part runs, by kind of input; shown in results.
        told: Reasons that were logged already, by any of the gates that share it.
    """

    part: str
    eager: Callable[..., Any]
    compiled: Callable[..., Any]
    identity: Mapping[str, str]
    verdicts: Verdicts
    reasons: dict[str, str] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    _chosen: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def __call__(self, *inputs: Any) -> Any:
        kind = _kind_of(inputs)
        if kind not in self._chosen:
            self._chosen[kind] = self._choose(kind, inputs)
        return self._chosen[kind](*inputs)

    def _choose(self, kind: str, inputs: tuple[Any, ...]) -> Callable[..., Any]:
        subject = dict(self.identity) | {"part": self.part, "kind": kind}
        key = hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()
        objection = _objection_in(self.verdicts.read(key))
        if objection == "":
            return lambda *inputs: self._try(kind, inputs)
        if objection is None:
            try:
                objection = self._compare(inputs)
            except _Passing as passing:
                return self._refuse(kind, str(passing))
            self.verdicts.keep(key, {"objection": objection, "about": subject})
        return self._refuse(kind, objection) if objection else self.compiled

    def _try(self, kind: str, inputs: tuple[Any, ...]) -> Any:
        """Run the compiled part that an earlier process has allowed, if it compiles here too."""
        try:
            result = self.compiled(*inputs)
        except TorchDynamoException as failed:
            self._chosen[kind] = self._refuse(kind, _told(failed))
            return self.eager(*inputs)
        self._chosen[kind] = self.compiled
        return result

    def _refuse(self, kind: str, objection: str) -> Callable[..., Any]:
        """Return the eager part, and say once why."""
        self.reasons[kind] = objection
        if objection not in self.told:
            self.told.add(objection)
            _log.warning(
                "the compiled part %r is not used: %s; it runs eagerly", self.part, objection
            )
        return self.eager

    def _compare(self, inputs: tuple[Any, ...]) -> str:
        """Say why the compiled part may not be used on such inputs; empty if it may.

        Raises:
            _Passing: It could not be tried, which says nothing of the code.
        """
        try:
            compiled = _outputs_and_gradients(self.compiled, inputs)
        except (TorchDynamoException, RuntimeError, MemoryError, OSError) as failed:
            if _passes(failed):
                raise _Passing(_told(failed)) from failed
            return _told(failed)
        eager = _outputs_and_gradients(self.eager, inputs)
        for name, wanted, results in zip(("output", "gradient"), eager, compiled, strict=True):
            for number, (right, candidate) in enumerate(zip(wanted, results, strict=True)):
                error = _relative_error(right, candidate)
                allowed = TOLERANCE[right.dtype]
                if not error <= allowed:
                    is_zero = name == "gradient" and not candidate.any()
                    zero = " (it is exactly zero)" if is_zero else ""
                    return f"its {name} {number} is {error:.1e} off, {allowed:.0e} is allowed{zero}"
        return ""


class _Passing(Exception):
    """A failure that is the moment's, not the code's."""


def _told(failed: BaseException) -> str:
    return f"it does not compile: {type(failed).__name__}: {first_line(failed)}"


def _passes(failed: BaseException) -> bool:
    """Whether a failure may be gone next time: no memory, no room on a disk, no compiler."""
    seen: list[BaseException] = []
    inner: BaseException | None = failed
    while inner is not None and inner not in seen:
        seen.append(inner)
        inner = getattr(inner, "inner_exception", None) or inner.__cause__ or inner.__context__
    return any(
        isinstance(error, _PASSING) or any(words in str(error) for words in _PASSING_WORDS)
        for error in seen
    )


def _outputs_and_gradients(
    function: Callable[..., Any], inputs: tuple[Any, ...]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return a function's outputs, and the gradients of a fixed weighted sum of them.

    There is a gradient for every input that requires one.
    """
    copies = tree_map(_copy, inputs)
    leaves = [
        leaf for leaf in tree_flatten(copies)[0] if isinstance(leaf, Tensor) and leaf.requires_grad
    ]
    results = tree_flatten(function(*copies))[0]
    outputs = [output for output in results if isinstance(output, Tensor)]
    detached = [output.detach() for output in outputs]
    if not (leaves and torch.is_grad_enabled()):
        return detached, []
    combined = torch.stack([(output.float() * _weights(output)).sum() for output in outputs]).sum()
    return detached, list(torch.autograd.grad(combined, leaves))


def _copy(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    return leaf.detach().clone().requires_grad_(leaf.requires_grad)


def _weights(like: Tensor) -> Tensor:
    return torch.arange(like.numel(), device=like.device).float().sin().view(like.shape)


def _relative_error(expected: Tensor, candidate: Tensor) -> float:
    expected = expected.float()
    difference = (expected - candidate.float()).norm()
    return float(difference / expected.norm().clamp(min=1e-30))


def _kind_of(inputs: tuple[Any, ...]) -> str:
    """Describe inputs: shapes, layouts, dtypes, whether a gradient is wanted, and constants."""

    def described(leaf: Any) -> str:
        if not isinstance(leaf, Tensor):
            return repr(leaf)
        gradient = " grad" if leaf.requires_grad and torch.is_grad_enabled() else ""
        return f"{list(leaf.shape)} {list(leaf.stride())} {leaf.dtype} {leaf.device}{gradient}"

    leaves, structure = tree_flatten(inputs)
    return f"{'; '.join(map(described, leaves))} in {structure}"


def _objection_in(verdict: object) -> str | None:
    """Return the objection in a verdict ("" for approval); None where there is no verdict."""
    objection = verdict.get("objection") if isinstance(verdict, dict) else None
    return objection if isinstance(objection, str) else None
