"""Run exported graphs on the CPU by onnxruntime.

It is the numeric witness of what is exported, and of how its pieces are put together in an edit.
"""

import importlib.util
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..diffusion.model import Model
from ..errors import PlanError
from ..exported import GraphId, check_graph
from ..system.incoming import told_as
from .artefacts import Artefacts
from .backend import Backend
from .exported_parts import ExportedParts

__all__ = ["ONNXRUNTIME"]


def _objections(model: Model) -> list[str]:
    """List why onnxruntime cannot serve a model; empty if it can."""
    objections = [
        f"{name} is not installed (pip install 'dragnoise[onnx]')"
        for name in ("onnxruntime", "onnx")
        if importlib.util.find_spec(name) is None
    ]
    if model.device.type != "cpu":
        objections.append(f"onnxruntime runs on the CPU here, the model is on {model.device}")
    if model.dtype != torch.float32:
        objections.append(f"onnxruntime runs float32 here, the model is {model.dtype}")
    return objections


def _open_parts(model: Model, artefacts: Artefacts) -> ExportedParts[GraphId]:
    """Return the parts that lie in `artefacts` as graphs."""
    return ExportedParts(
        model,
        partial(artefacts.graph, model),
        lambda path, wanted, part, extent: _Session(path, wanted),
    )


class _Session:
    """A graph, loaded by onnxruntime.

    Args:
        path: Its ONNX file.
        wanted: The identity that it must have.

    Raises:
        PlanError: For a file that is another's, not whole, or that does not load.
    """

    def __init__(self, path: Path, wanted: GraphId) -> None:
        import onnxruntime

        self._path = path
        self._report = check_graph(path, wanted)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        # Its threads spin while it runs, and stop when it is done: PyTorch's are next (an edit
        # took twice as long where they went on).
        options.add_session_config_entry("session.force_spinning_stop", "1")
        with told_as(PlanError, f"the graph {str(path)!r} cannot be loaded; export it again"):
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = [output.name for output in self._session.get_outputs()]
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        outputs = self._session.run(names, arrays)
        return {name: torch.from_numpy(array) for name, array in zip(names, outputs, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        return {"file": self._path.name, "bytes": self._report["bytes"]}


ONNXRUNTIME = Backend(
    "onnxruntime", "exported graphs on the CPU", _objections, open_parts=_open_parts
)
