"""A double of TensorRT's runtime that fails if it is used as TensorRT must not be used.

It has the interface that the engine uses, and runs a plan's ONNX file with onnxruntime on the
memory whose addresses it was given. A plan of the double is JSON: {"onnx": path}. It checks that
every tensor has an address, given anew for every run; that shapes come before addresses; that the
stream is not the default one; that only the thread that made a context uses it. It can be told to
refuse (`Recording.refuse`).
"""

import ctypes
import enum
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import torch

STREAM = 7
"""The handle of the stream that is not the default one."""


class Misuse(AssertionError):
    """TensorRT was used as it must not be."""


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class DataType(enum.Enum):
    FLOAT = np.float32
    HALF = np.float16


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class ILogger:
    def log(self, severity: Severity, text: str) -> None:
        raise NotImplementedError


@dataclass
class Recording:
    """A record of what was called, and what the double shall do.

    Attributes:
        calls: Names of calls, in order.
        refuse: Names of calls that answer no, as often as they stand here.
        contexts: Number of contexts that were made.
        stuck: Whether a second refit does nothing.
    """

    calls: list[str] = field(default_factory=list)
    refuse: list[str] = field(default_factory=list)
    contexts: int = 0
    stuck: bool = False

    def says_no(self, call: str) -> bool:
        self.calls.append(call)
        if call in self.refuse:
            self.refuse.remove(call)
            return True
        return False


def double() -> tuple[Any, Recording]:
    """Return the double of the module, and what it records."""
    recording = Recording()
    module = SimpleNamespace(
        __version__="10.13",
        Builder=object,
        DataType=DataType,
        ILogger=ILogger,
        TensorIOMode=TensorIOMode,
        Runtime=lambda logger: _Runtime(logger, recording),
        Refitter=_Refitter,
        OnnxParserRefitter=_ParserRefitter,
    )
    return module, recording


@dataclass
class _Runtime:
    logger: ILogger
    recording: Recording

    def deserialize_cuda_engine(self, plan: bytes) -> "_Engine | None":
        if self.recording.says_no("deserialize_cuda_engine"):
            self.logger.log(Severity.ERROR, "Error Code 1: this plan is for another device")
            return None
        return _Engine(
            onnxruntime.InferenceSession(json.loads(plan)["onnx"]), self.logger, self.recording
        )


class _Engine:
    device_memory_size_v2 = 1000

    def __init__(self, session: Any, logger: ILogger, recording: Recording) -> None:
        self.session = session
        self.logger = logger
        self.recording = recording
        self.inputs = {given.name: given for given in session.get_inputs()}
        self.outputs = {given.name: given for given in session.get_outputs()}
        self.names: list[str] = [*self.inputs, *self.outputs]
        self.num_io_tensors = len(self.names)
        self.refitted = ""
        self.shapes: dict[tuple[Any, ...], dict[str, tuple[int, ...]]] = {}

    def get_tensor_name(self, number: int) -> str:
        return self.names[number]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        kind = ({**self.inputs, **self.outputs})[name].type
        return {"tensor(float)": DataType.FLOAT, "tensor(float16)": DataType.HALF}[kind]

    def serialize(self) -> bytes:
        return json.dumps({"onnx": self.refitted}).encode()

    def create_execution_context(self) -> "_Context | None":
        if self.recording.says_no("create_execution_context"):
            self.logger.log(Severity.ERROR, "out of memory")
            return None
        self.recording.contexts += 1
        return _Context(self)


class _Refitter:
    """A refitter that takes new weights when told to; a `stuck` one keeps the first for good."""

    def __init__(self, engine: _Engine, logger: ILogger) -> None:
        self.engine, self.waiting = engine, ""

    def refit_cuda_engine(self) -> bool:
        if self.engine.recording.says_no("refit_cuda_engine"):
            self.engine.logger.log(Severity.ERROR, "weights are missing")
            return False
        if not self.engine.recording.stuck or not self.engine.refitted:
            self.engine.session = onnxruntime.InferenceSession(self.waiting)
        self.engine.refitted = self.waiting
        return True


class _ParserRefitter:
    num_errors = 0

    def __init__(self, refitter: _Refitter, logger: ILogger) -> None:
        self._refitter = refitter

    def refit_from_file(self, path: str) -> bool:
        if self._refitter.engine.recording.says_no("refit_from_file"):
            self._refitter.engine.logger.log(Severity.ERROR, "another graph")
            return False
        self._refitter.waiting = path
        return True


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine, self._thread = engine, threading.get_ident()
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._mine()
        if self._engine.recording.says_no("set_input_shape"):
            self._engine.logger.log(Severity.ERROR, f"{name}: no profile has this shape")
            return False
        if name not in self._engine.inputs:
            raise Misuse(f"{name} is no input")
        self._shapes[name] = shape
        return True

    def infer_shapes(self) -> list[str]:
        self._mine()
        return [name for name in self._engine.inputs if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if self.infer_shapes():
            raise Misuse("a shape is asked for before all inputs have theirs")
        given = {
            name: np.zeros(self._shapes[name], self._dtype(name)) for name in self._engine.inputs
        }
        known = self._engine.shapes
        if (shapes := tuple(self._shapes.items())) not in known:
            outputs = zip(self._engine.outputs, self._engine.session.run(None, given), strict=True)
            known[shapes] = {output: found.shape for output, found in outputs}
        return known[shapes][name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._mine()
        if self._engine.recording.says_no("set_tensor_address"):
            return False
        if not address or name not in self._engine.names:
            raise Misuse(f"{name} at {address}")
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self._mine()
        if stream != STREAM:
            raise Misuse(f"the stream is {stream}, which is the default one or none of ours")
        if unset := sorted(set(self._engine.names) - set(self._addresses)):
            raise Misuse(f"no address is set for {', '.join(unset)}")
        addresses = self._addresses
        self._addresses = {}  # for the next run they must be set again
        if self._engine.recording.says_no("execute_async_v3"):
            self._engine.logger.log(Severity.ERROR, "enqueue failed")
            return False
        given = {
            name: self._memory(name, addresses[name], self._shapes[name]).copy()
            for name in self._engine.inputs
        }
        for name, output in zip(
            self._engine.outputs, self._engine.session.run(None, given), strict=True
        ):
            self._memory(name, addresses[name], output.shape)[...] = output
        return True

    def _memory(self, name: str, address: int, shape: tuple[int, ...]) -> Any:
        dtype = np.dtype(self._dtype(name))
        raw = (ctypes.c_char * (int(np.prod(shape)) * dtype.itemsize)).from_address(address)
        return np.frombuffer(raw, dtype).reshape(shape)

    def _dtype(self, name: str) -> Any:
        return self._engine.get_tensor_dtype(name).value

    def _mine(self) -> None:
        if threading.get_ident() != self._thread:
            raise Misuse("a context is used by another thread than the one that made it")


class OnCpu:
    """The device of the double."""

    device, name = torch.device("cpu"), "Double 9000"

    @contextmanager
    def here(self) -> Iterator[None]:
        yield

    @contextmanager
    def working(self) -> Iterator[int]:
        yield STREAM
