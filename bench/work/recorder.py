"""Count what code costs as PyTorch dispatches its operators.

On the meta device nothing is computed and no weights are needed. What is counted, and how:

- FLOPs: one multiply-add is two, by the formulas of `torch.utils.flop_counter` (convolution, matrix
  products, attention; forward and backward). The backward of a fused attention counts as the
  products that the wanted gradients need; what such a kernel computes beside them (the scores
  again, because it stored none) is not counted.
- Bytes: every operator reads each of its inputs and writes its outputs once, whatever a cache may
  hold. An input that holds weights, or what was computed from weights alone (a cast, a slice laid
  out anew), counts as weights; the rest as activations. Views cost nothing.
- Launches: one for every operator that reads or writes memory, as a captured graph would hold them
  if every operator were one kernel (cuDNN and cuBLAS may need several). Attention is one operator,
  as on CUDA; the meta device by itself would take it apart.
- Synchronisations: every read of a value, and every copy between host and device that is not
  declared non-blocking. The value is what was copied there from the host, else 0 or False.
- Live bytes: storages that somebody holds, weights included; neither what an operator needs while
  it runs nor what an allocator rounds up.
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
    """A counter of what runs on a device inside `watching()`: by stage, and between `mark()`s.

    `stage` is an observer for `Run`. Code outside any stage is not counted, but what it makes of
    weights counts as weights. On another device than meta everything is computed, reads give the
    real values, and attention is what PyTorch chooses.

    Attributes:
        stages: The counts by stage: of what ran before the first mark, between each two, and after
            the last. A stage that runs again continues its list.
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
        """Count a module's parameters and buffers as weights, named after `prefix`."""
        for name, weight in (*module.named_parameters(prefix), *module.named_buffers(prefix)):
            self._hold([weight], (name,))
            self._weight_shapes.add(tuple(weight.shape))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count what runs inside."""
        with self, AsOnDevice(self._kind):
            yield

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what runs inside as the stage `name`."""
        segments = self.stages.setdefault(name, [Counts()])
        self._stage = name
        self._now = segments[-1]
        self._now.peak_bytes = max(self._now.peak_bytes, self._live_bytes)
        yield
        segments[-1].live_bytes = self._live_bytes
        self._now = None

    def mark(self) -> None:
        """End a segment of the present stage, such as a step or an iteration."""
        segments = self.stages[self._stage]
        segments[-1].live_bytes = self._live_bytes
        self._now = Counts(peak_bytes=self._live_bytes)
        segments.append(self._now)

    def synchronise(self) -> None:
        """Count that the host waits for the device."""
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
        inputs = self._on_device((args, kwargs))
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
        outputs = self._on_device(made)
        if crosses:
            self._hold(outputs, ())
            self._values.update(
                {_key(output): args[func is aten.copy_.default].clone() for output in outputs}
            )
        elif inputs or outputs:
            self._count(call, inputs, outputs, made)
        return made

    def _count(
        self, call: Call, inputs: Sequence[Tensor], outputs: Sequence[Tensor], made: Any
    ) -> None:
        signature = Signature.of(call.operator)
        changed = self._on_device(signature.changed(call))
        keys = {_key(tensor) for tensor in inputs}
        fresh = [tensor for tensor in outputs if _key(tensor) not in keys]
        read = self._read(call, signature, inputs, changed)
        names = [self._weights.get(_key(tensor), ()) for tensor in read]
        sources = tuple(sorted({name for some in names for name in some})) if all(names) else ()
        for tensor in changed:
            self._values.pop(_key(tensor), None)
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
        weight_bytes = sum(_bytes(tensor) for tensor, some in zip(read, names, strict=True) if some)
        read_bytes = sum(_bytes(tensor) for tensor in read) - weight_bytes
        written_bytes = sum(_bytes(tensor) for tensor in written)
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
        """Return the inputs whose values the operator needs."""
        if signature.reads_nothing:
            return []
        unread = list(changed) if signature.overwrites else []
        if call.operator is aten.convolution_backward.default and not signature.wants_weight(call):
            unread.append(call.args[1])  # the gradient of the input needs the weight alone
        return [tensor for tensor in inputs if not any(tensor is other for other in unread)]

    def _like_a_weight(self, product: Tensor) -> bool:
        shape = tuple(product.shape)
        return shape in self._weight_shapes or shape[::-1] in self._weight_shapes

    def _on_device(self, values: Any) -> list[Tensor]:
        leaves: Iterable[Any] = tree_leaves(values)
        return [
            leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.device.type == self._kind
        ]

    def _hold(self, tensors: Iterable[Tensor], weights: Names) -> None:
        """Count the tensors' memory as alive until nobody holds it.

        Args:
            tensors: The tensors.
            weights: The names of the weights that they were made of alone; none for activations.
        """
        for tensor in tensors:
            key = _key(tensor)
            storage = tensor.untyped_storage()
            if weights:
                self._weights[key] = weights
            if key not in self._alive:
                self._alive[key] = storage.nbytes()
                self._live_bytes += storage.nbytes()
                weakref.finalize(storage, self._gone, key).atexit = False

    def _value(self, tensor: Tensor) -> Tensor:
        """Return what the tensor holds: what was copied there from the host, else zeros."""
        values = self._values.get(_key(tensor))
        if values is not None and values.shape == tensor.shape and values.dtype == tensor.dtype:
            return values
        return torch.zeros(tensor.shape, dtype=tensor.dtype)

    def _gone(self, key: int) -> None:
        self._live_bytes -= self._alive.pop(key)
        self._values.pop(key, None)
        self._weights.pop(key, None)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _bytes(tensor: Tensor) -> int:
    """Return the bytes that a tensor shows; an expanded one shows the same bytes many times."""
    span = 1 + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return int(min(tensor.numel(), span) * tensor.element_size())
