"""Parts of the network through torch.compile, each behind a gate.

The compiler has returned a gradient of exactly zero for this network, with the forward pass right and no error (inductor on a CPU, PyTorch 2.13).
So a compiled part is run beside the eager one before its first use: outputs and, where it is differentiated, the gradient of a fixed combination of
them must agree. The verdict is kept beside the compiler's own cache, for this network, part, kind of input, device and versions; a part that fails
runs eagerly, with a warning that says why.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.utils._pytree import tree_flatten, tree_map

from ..errors import OutputError
from ..system.files import write_whole
from ..system.packages import version_of

__all__ = ["TOLERANCE", "Gate", "cache_folder", "identity"]

_log = logging.getLogger("dragnoise")

TOLERANCE: Mapping[torch.dtype, float] = {
    torch.float64: 1e-9,
    torch.float32: 1e-3,
    torch.float16: 2e-2,
    torch.bfloat16: 8e-2,
}
"""Allowed relative difference (L2) of a compiled output or gradient: what another order of rounding makes of a whole network, several times over."""


def cache_folder() -> Path:
    """Where verdicts are kept: in the compiler's cache, so that emptying the one empties the other."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return Path(cache_dir()) / "dragnoise-gate"


def identity(network: Any, device: torch.device) -> dict[str, str]:
    """What a verdict holds for, beside the kind of input: the network (its configuration and a digest of its output layer), device and versions."""
    weight = network.conv_out.weight.detach().float().cpu().numpy().tobytes()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    versions = {package: version_of(package) for package in ("torch", "triton", "dragnoise")}
    config = json.dumps(dict(network.config), sort_keys=True, default=str)
    return {
        "config": config,
        "weights": hashlib.sha256(weight).hexdigest(),
        "device": name,
    } | versions


@dataclass
class Gate:
    """A part, compiled, and its eager self; called like either.

    eager: a function of tensors, nests of tensors and constants. compiled: what is to be used in its place. folder: where verdicts are kept.
    reasons: why the eager one runs, by kind of input; shown in results.
    """

    part: str
    eager: Callable[..., Any]
    compiled: Callable[..., Any]
    identity: Mapping[str, str]
    folder: Path
    reasons: dict[str, str] = field(default_factory=dict)
    _chosen: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def __call__(self, *given: Any) -> Any:
        kind = _kind(given)
        if kind not in self._chosen:
            self._chosen[kind] = self._choose(kind, given)
        return self._chosen[kind](*given)

    def _choose(self, kind: str, given: tuple[Any, ...]) -> Callable[..., Any]:
        said = json.dumps(dict(self.identity) | {"part": self.part, "kind": kind}, sort_keys=True)
        path = self.folder / f"{hashlib.sha256(said.encode()).hexdigest()}.json"
        objection = _read(path)
        if objection is None:
            objection = self._compare(given)
            _keep(path, json.dumps({"objection": objection, "about": json.loads(said)}, indent=1))
        if not objection:
            return self.compiled
        self.reasons[kind] = objection
        _log.warning("the compiled part %r is not used: %s; it runs eagerly", self.part, objection)
        return self.eager

    def _compare(self, given: tuple[Any, ...]) -> str:
        """Why the compiled part may not be used here; empty if it may."""
        try:
            theirs, found = _seen(self.compiled, given)
        except (TorchDynamoException, RuntimeError) as failed:
            return f"it does not compile: {type(failed).__name__}: {str(failed).strip().splitlines()[0][:300]}"
        mine, expected = _seen(self.eager, given)
        for name, one, other in (("output", mine, theirs), ("gradient", expected, found)):
            for number, (right, got) in enumerate(zip(one, other, strict=True)):
                error = _relative(right, got)
                if not error <= (allowed := TOLERANCE[right.dtype]):
                    zero = " (it is exactly zero)" if name == "gradient" and not got.any() else ""
                    return f"its {name} {number} is {error:.1e} off, {allowed:.0e} is allowed{zero}"
        return ""


def _seen(
    function: Callable[..., Any], given: tuple[Any, ...]
) -> tuple[list[Tensor], list[Tensor]]:
    """What a function gives, and the gradients of a fixed combination of that at those of its inputs that ask for one."""
    fresh = tree_map(_fresh, given)
    leaves = [
        leaf for leaf in tree_flatten(fresh)[0] if isinstance(leaf, Tensor) and leaf.requires_grad
    ]
    outputs = [output for output in tree_flatten(function(*fresh))[0] if isinstance(output, Tensor)]
    if not (leaves and torch.is_grad_enabled()):
        return [output.detach() for output in outputs], []
    combined = torch.stack([(output.float() * _weights(output)).sum() for output in outputs]).sum()
    return [output.detach() for output in outputs], list(torch.autograd.grad(combined, leaves))


def _fresh(given: Any) -> Any:
    return (
        given.detach().clone().requires_grad_(given.requires_grad)
        if isinstance(given, Tensor)
        else given
    )


def _weights(like: Tensor) -> Tensor:
    return torch.arange(like.numel(), device=like.device).float().sin().view(like.shape)


def _relative(expected: Tensor, found: Tensor) -> float:
    expected, found = expected.float(), found.float()
    return float((expected - found).norm() / expected.norm().clamp(min=1e-30))


def _kind(given: tuple[Any, ...]) -> str:
    """Shapes, layouts, dtypes, whether a gradient is asked for, and the constants."""

    def described(leaf: Any) -> str:
        if not isinstance(leaf, Tensor):
            return repr(leaf)
        wants = leaf.requires_grad and torch.is_grad_enabled()
        return f"{list(leaf.shape)} {list(leaf.stride())} {leaf.dtype} {leaf.device}{' grad' if wants else ''}"

    leaves, structure = tree_flatten(given)
    return f"{'; '.join(map(described, leaves))} in {structure}"


def _keep(path: Path, verdict: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda part: part.write_text(verdict, encoding="utf-8"))
    except (OSError, OutputError) as refused:
        _log.warning(
            "a verdict on compiled code is not kept (%s): it will be judged again next time",
            refused,
        )


def _read(path: Path) -> str | None:
    """A verdict that was kept: "" for approval, else the objection; None where there is none to be read."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))["objection"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if isinstance(kept, str) else None
