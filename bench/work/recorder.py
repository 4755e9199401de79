"""What code costs, counted as PyTorch dispatches its operators: on the meta device, so that nothing is computed and no weights are needed.

What is counted, and how:

- FLOPs: one multiply-add is two, by the formulas of `torch.utils.flop_counter` (convolution, matrix products, attention; forward and backward). The
  backward of a fused attention counts as the products that the gradients asked for need; what such a kernel computes beside them (the scores
  again, to have stored none) is not counted.
- Bytes: every operator reads each of its inputs and writes its outputs once, whatever a cache may hold. An input that holds weights, or what was
  computed from weights alone (a cast, a slice laid out anew), counts as weights; the rest as activations. Views cost nothing.
- Launches: one for every operator that reads or writes memory, as a captured graph would hold them, if every operator were one kernel (cuDNN and
  cuBLAS may need several). Attention is one operator, as on CUDA; the meta device by itself would take it apart.
- Synchronisations: every read of a value, and every copy between host and device that is not declared non-blocking. What is read is what was
  copied there from the host, else 0 or False.
- Live bytes: storages that somebody holds, weights included; neither what an operator needs while it runs nor what an allocator rounds up.
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .counts import Counts, Kernel
from .operators import (
    ANSWERS,
    FLOPS,
    PRODUCTS,
    AsOnDevice,
    Call,
    Signature,
    crossing,
    host_copy,
    is_composite,
)

__all__ = ["Recorder"]

aten = torch.ops.aten
Names = tuple[str, ...]


class Recorder(TorchDispatchMode):
    """Counts what runs on `device` inside `watching()`, by stage (`stage` is an observer for `Run`) and, within it, between `mark()`s.

    stages: name -> what ran before the first mark, between each two, and after the last. A stage that runs again goes on where it was.
    What runs outside any stage is not counted, but what it makes of weights is known as weights.
    On another device than meta everything is computed, reads give what is there, and attention is what PyTorch chooses.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stages: dict[str, list[Counts]] = {}
        self._kind = device.type
        self._stage = ""
        self._now: Counts | None = None
        self._weights: dict[int, Names] = {}
        self._weight_shapes: set[tuple[int, ...]] = set()
        self._values: dict[int, Tensor] = {}
        self._alive: dict[int, int] = {}
        self._live_bytes = 0

    def register(self, prefix: str, module: nn.Module) -> None:
        """The module's parameters and buffers are weights, named after `prefix`."""
        for name, weight in (*module.named_parameters(prefix), *module.named_buffers(prefix)):
            self._hold([weight], (name,))
            self._weight_shapes.add(tuple(weight.shape))

    @contextmanager
    def watching(self) -> Iterator[None]:
        with self, AsOnDevice(self._kind):
            yield

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        segments = self.stages.setdefault(name, [Counts()])
        self._stage, self._now = name, segments[-1]
        self._now.peak_bytes = max(self._now.peak_bytes, self._live_bytes)
        yield
        segments[-1].live_bytes = self._live_bytes
        self._now = None

    def mark(self) -> None:
        """A turn of the present stage ends here."""
        segments = self.stages[self._stage]
        segments[-1].live_bytes = self._live_bytes
        self._now = Counts(peak_bytes=self._live_bytes)
        segments.append(self._now)

    def synchronise(self) -> None:
        """The host waits for the device."""
        if self._now is not None:
            self._now.synchronisations += 1

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        call = Call(func, args, kwargs or {})
        inputs = self._mine((args, kwargs))
        crosses, waits = crossing(call, self._kind)
        if waits or (inputs and func in ANSWERS):
            self.synchronise()
        if inputs and self._kind == "meta":
            if func in ANSWERS:
                return ANSWERS[func](self._value(inputs[0]))
            if crosses:
                return host_copy(call, self._value(inputs[0]))
        if func._overloadpacket not in FLOPS and is_composite(func):
            with self:
                return func.decompose(*args, **call.kwargs)
        made = func(*args, **call.kwargs)
        outputs = self._mine(made)
        if crosses:
            self._hold(outputs, ())
            self._values.update(
                {_key(given): args[func is aten.copy_.default].clone() for given in outputs}
            )
        elif inputs or outputs:
            self._count(call, inputs, outputs, made)
        return made

    def _count(
        self, call: Call, inputs: Sequence[Tensor], outputs: Sequence[Tensor], made: Any
    ) -> None:
        signature = Signature.of(call.operator)
        changed = self._mine(signature.changed(call))
        known = {_key(given) for given in inputs}
        fresh = [given for given in outputs if _key(given) not in known]
        read = self._read(call, signature, inputs, changed)
        names = [self._weights.get(_key(given), ()) for given in read]
        sources = tuple(sorted({name for some in names for name in some})) if all(names) else ()
        for given in changed:
            self._values.pop(_key(given), None)
        self._hold(fresh + (changed if signature.overwrites else []), sources)
        if self._now is None:
            return
        self._now.operators += 1
        self._now.peak_bytes = max(self._now.peak_bytes, self._live_bytes)
        if signature.allocates or not (fresh or changed):
            return
        formula = FLOPS.get(call.operator._overloadpacket)
        flops = 0 if formula is None else int(formula(*call.args, **call.kwargs, out_val=made))
        self._launch(self._now, flops, read, names, fresh + changed)
        product = call.operator in PRODUCTS and not any(names) and self._like_a_weight(outputs[0])
        self._now.weight_gradients += product or signature.wants_weight(call)

    def _launch(
        self,
        now: Counts,
        flops: int,
        read: Sequence[Tensor],
        names: Sequence[Names],
        written: Sequence[Tensor],
    ) -> None:
        weight_bytes = sum(_bytes(given) for given, some in zip(read, names, strict=True) if some)
        read_bytes = sum(_bytes(given) for given in read) - weight_bytes
        written_bytes = sum(_bytes(given) for given in written)
        now.flops += flops
        now.weight_bytes += weight_bytes
        now.activation_bytes_read += read_bytes
        now.activation_bytes_written += written_bytes
        now.launches += 1
        now.kernels[
            Kernel(flops, weight_bytes + read_bytes + written_bytes, (*read, *written)[0].dtype)
        ] += 1
        now.reads.update(name for some in names for name in some)

    @staticmethod
    def _read(
        call: Call, signature: Signature, inputs: Sequence[Tensor], changed: Sequence[Tensor]
    ) -> list[Tensor]:
        """The inputs whose values the operator needs."""
        if signature.reads_nothing:
            return []
        unread = list(changed) if signature.overwrites else []
        if call.operator is aten.convolution_backward.default and not signature.wants_weight(call):
            unread.append(call.args[1])  # the gradient of the input needs the weight alone
        return [given for given in inputs if not any(given is other for other in unread)]

    def _like_a_weight(self, product: Tensor) -> bool:
        shape = tuple(product.shape)
        return shape in self._weight_shapes or shape[::-1] in self._weight_shapes

    def _mine(self, values: Any) -> list[Tensor]:
        leaves: Iterable[Any] = tree_leaves(values)
        return [
            leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.device.type == self._kind
        ]

    def _hold(self, tensors: Iterable[Tensor], weights: Names) -> None:
        """Their memory is alive until nobody holds it, and holds values made of these weights alone (none: activations)."""
        for tensor in tensors:
            key, storage = _key(tensor), tensor.untyped_storage()
            if weights:
                self._weights[key] = weights
            if key not in self._alive:
                self._alive[key] = storage.nbytes()
                self._live_bytes += storage.nbytes()
                weakref.finalize(storage, self._gone, key).atexit = False

    def _value(self, tensor: Tensor) -> Tensor:
        """What the tensor holds, on the host: what was copied there from the host, else noughts."""
        known = self._values.get(_key(tensor))
        if known is not None and known.shape == tensor.shape and known.dtype == tensor.dtype:
            return known
        return torch.zeros(tensor.shape, dtype=tensor.dtype)

    def _gone(self, key: int) -> None:
        self._live_bytes -= self._alive.pop(key)
        self._values.pop(key, None)
        self._weights.pop(key, None)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _bytes(tensor: Tensor) -> int:
    """Of the places that the tensor shows: an expanded one shows its few places many times."""
    span = 1 + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return int(min(tensor.numel(), span) * tensor.element_size())
