"""Load a plan and run it on torch tensors where they lie.

TensorRT raises nothing: a plan that does not load is None, a call that fails returns False, and the
reason is in the log. Every answer is looked at. Outputs are allocated anew for every call and
belong to the caller. There is one execution context a thread and set of shapes: one that changed
its shapes could not be captured at once, and what was captured with it would be lost. Work is
queued on the caller's stream, or where that is the default stream, which TensorRT would wait for,
on one of our own between two events; a call neither waits for the device nor reads from it, so
calls can be captured in a CUDA graph once one has run plainly.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ...errors import PlanError
from ...exported import Signature
from ...system.files import write_whole
from .flavours import Library

__all__ = ["Cuda", "Device", "Engine"]


class Device(Protocol):
    """A device that plans run on.

    Attributes:
        device: Where tensors lie.
        name: Of the card.
    """

    device: torch.device
    name: str

    def here(self) -> AbstractContextManager[None]:
        """Make it the current device while a plan is loaded."""
        ...

    def working(self) -> AbstractContextManager[int]:
        """Yield the handle of a stream that is not the default one.

        It is ordered after what was queued before and before what is queued afterwards.
        """
        ...


class Cuda:
    """A CUDA device of PyTorch's."""

    def __init__(self, device: torch.device) -> None:
        self.device = torch.empty(0, device=device).device  # with its index
        self.name = torch.cuda.get_device_name(self.device)
        self._of_thread = threading.local()

    @contextmanager
    def here(self) -> Iterator[None]:
        with torch.cuda.device(self.device):
            yield

    @contextmanager
    def working(self) -> Iterator[int]:
        current = torch.cuda.current_stream(self.device)
        if current != torch.cuda.default_stream(self.device):
            yield int(current.cuda_stream)
            return
        if not hasattr(self._of_thread, "stream"):
            self._of_thread.stream = torch.cuda.Stream(self.device)
        own = self._of_thread.stream
        own.wait_stream(current)
        yield int(own.cuda_stream)
        current.wait_stream(own)


_DTYPES = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16}


class Engine:
    """A plan, loaded; called with inputs by name, it returns outputs by name.

    Args:
        library: The flavour that runs it.
        plan: TensorRT's bytes, read and checked.
        names: Names and shapes of the part's inputs and outputs.
        device: Where it runs.
        title: Name of the plan's file, for messages.
        compiled: File for what TensorRT for RTX compiles for this device; None to keep nothing.

    Raises:
        PlanError: For a plan that does not load here, with what TensorRT says.
    """

    def __init__(
        self,
        library: Library,
        plan: bytes,
        names: Signature,
        device: Device,
        title: str,
        compiled: Path | None = None,
    ) -> None:
        self._library = library
        self._device = device
        self._title = title
        self._names = names
        self._bytes = len(plan)
        self._log = library.log()
        self._contexts = threading.local()
        self._compiled = compiled if library.flavour == "tensorrt_rtx" else None
        self._runtime_cache: Any = None
        with device.here():
            self._runtime = library.module.Runtime(self._log.logger)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                raise PlanError(
                    f"{library.flavour} {library.version} does not load the plan {title} "
                    f"on {device.name}: {self._log.text()}"
                )
        self._check_names()

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        context = self._context(tuple(tensor.shape for tensor in inputs.values()))
        for name, tensor in inputs.items():
            self._set_shape(context, name, tensor)
        missing = list(context.infer_shapes())
        if missing:
            raise PlanError(
                f"the plan {self._title} lacks {', '.join(missing)}: {self._log.text()}"
            )
        outputs = {name: self._allocate(context, name) for name in self._names.outputs}
        for name, tensor in (*inputs.items(), *outputs.items()):
            self._must(context.set_tensor_address(name, tensor.data_ptr()), f"does not take {name}")
        with self._device.working() as stream:
            self._must(context.execute_async_v3(stream), "did not run")
        self._keep_compiled()
        return outputs

    def refit(self, graph: Path) -> None:
        """Take the weights of another ONNX graph of the same part.

        That a refitted engine computes what its graph does is to be checked: it has been seen not
        to (NVIDIA/TensorRT#3628).

        Raises:
            PlanError: Where TensorRT does not take them, with its reasons.
        """
        trt = self._library.module
        with self._device.here():
            refitter = trt.Refitter(self._engine, self._log.logger)
            parser = trt.OnnxParserRefitter(refitter, self._log.logger)
            if not parser.refit_from_file(str(graph)):
                errors = "; ".join(
                    parser.get_error(number).desc() for number in range(parser.num_errors)
                )
                raise PlanError(
                    f"the plan {self._title} does not take the weights of {graph.name}: "
                    f"{errors or self._log.text()}"
                )
            self._must(refitter.refit_cuda_engine(), f"is not refitted with {graph.name}")

    def serialized(self) -> bytes:
        """Return the plan of what is loaded now."""
        plan = self._engine.serialize()
        if plan is None:
            raise PlanError(f"the plan {self._title} cannot be written: {self._log.text()}")
        return bytes(plan)

    def to_dict(self) -> dict[str, Any]:
        """Return the file, its bytes, and what it holds on the device; JSON-ready.

        That is weights, and room to work in, which each of its contexts needs.
        """
        weights = self._bytes
        stat = getattr(self._library.module, "EngineStat", None)
        if stat is not None:
            weights = int(self._engine.get_engine_stat(stat.TOTAL_WEIGHTS_SIZE))
        return {
            "file": self._title,
            "bytes": self._bytes,
            "weights_bytes": weights,
            "working_bytes": int(self._engine.device_memory_size_v2),
        }

    def _check_names(self) -> None:
        modes = self._library.module.TensorIOMode
        names: dict[Any, set[str]] = {modes.INPUT: set(), modes.OUTPUT: set()}
        for number in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(number)
            names[self._engine.get_tensor_mode(name)].add(name)
        inputs = names[modes.INPUT]
        outputs = names[modes.OUTPUT]
        if inputs != set(self._names.inputs) or outputs != set(self._names.outputs):
            seen = f"{', '.join(sorted(inputs))} -> {', '.join(sorted(outputs))}"
            raise PlanError(
                f"the plan {self._title} is of another part: it maps {seen}; build it again"
            )

    def _set_shape(self, context: Any, name: str, tensor: Tensor) -> None:
        """Check an input, and tell a context its shape."""
        dtype = self._dtype(name)
        device = self._device.device
        if tensor.dtype != dtype or tensor.device != device or not tensor.is_contiguous():
            raise PlanError(
                f"the plan {self._title} takes {name} as a contiguous {dtype} tensor on {device}, "
                f"got {tensor.dtype} on {tensor.device}"
            )
        self._must(
            context.set_input_shape(name, tuple(tensor.shape)),
            f"does not take {name} of {list(tensor.shape)}",
        )

    def _allocate(self, context: Any, name: str) -> Tensor:
        shape = tuple(context.get_tensor_shape(name))
        return torch.empty(shape, dtype=self._dtype(name), device=self._device.device)

    def _dtype(self, name: str) -> torch.dtype:
        return _DTYPES[self._engine.get_tensor_dtype(name).name]

    def _context(self, shapes: tuple[torch.Size, ...]) -> Any:
        """Return this thread's own context for these shapes."""
        if not hasattr(self._contexts, "by_shapes"):
            self._contexts.by_shapes = {}
        contexts: dict[tuple[torch.Size, ...], Any] = self._contexts.by_shapes
        if shapes not in contexts:
            with self._device.here():
                context = self._new_context()
            if context is None:
                raise PlanError(
                    f"the plan {self._title} gives no execution context: {self._log.text()}"
                )
            contexts[shapes] = context
        return contexts[shapes]

    def _new_context(self) -> Any:
        """Create a context, with the kernels that were compiled earlier.

        TensorRT for RTX compiles kernels for the device when they are first run, and remembers
        them in a cache that can be kept.
        """
        if self._compiled is None or not hasattr(self._engine, "create_runtime_config"):
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        cache = config.create_runtime_cache()
        if self._compiled.exists():
            cache.deserialize(self._compiled.read_bytes())
        config.set_runtime_cache(cache)
        self._runtime_cache = cache
        return self._engine.create_execution_context(config)

    def _keep_compiled(self) -> None:
        """Write compiled kernels after the first run, whole or not at all."""
        cache = self._runtime_cache
        self._runtime_cache = None
        if cache is not None and self._compiled is not None:
            raw = bytes(cache.serialize())
            write_whole(self._compiled, lambda partial: partial.write_bytes(raw))

    def _must(self, answer: Any, failure: str) -> None:
        if not answer:
            raise PlanError(f"the plan {self._title} {failure}: {self._log.text()}")
