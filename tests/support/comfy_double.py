"""A double of what a node pack sees of ComfyUI: it has no package that could be installed.

It has the names, arguments and rules of `comfy_api.latest` (commit 004b1b5b of
comfyanonymous/ComfyUI, `_io.py`), of `comfy.utils.ProgressBar` and of ComfyUI's interruption, and
runs a workflow's API format node by node.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import torch

__all__ = ["Interrupted", "comfy", "install", "run"]


class Interrupted(Exception):
    """ComfyUI's InterruptProcessingException."""


@dataclass
class Room:
    """What the double has seen.

    Attributes:
        stops: Whether the person has had enough.
        bars: (done, total) of every step of a progress bar.
        pictures: What SaveImage was given.
    """

    stops: bool = False
    bars: list[tuple[int, int]] = field(default_factory=list)
    pictures: list[torch.Tensor] = field(default_factory=list)


comfy = Room()


class _Put:
    def __init__(self, id: str, optional: bool, rest: Mapping[str, Any]) -> None:
        self.id, self.optional, self.rest = id, optional, rest
        self.io_type = ""


def _kind(io_type: str, *allowed: str) -> Any:
    """Return a type whose inputs take these arguments beside those that all take."""
    common = {"display_name", "tooltip", "lazy", "extra_dict", "raw_link"}

    class Input(_Put):
        def __init__(self, id: str, *, optional: bool = False, **rest: Any) -> None:
            unknown = set(rest) - common - set(allowed)
            assert not unknown, f"{io_type} takes no {unknown}"
            super().__init__(id, optional, rest)
            self.io_type = io_type

    class Output(_Put):
        def __init__(self, id: str, *, display_name: str = "", tooltip: str = "") -> None:
            super().__init__(id, False, {"display_name": display_name, "tooltip": tooltip})
            self.io_type = io_type

    return SimpleNamespace(Input=Input, Output=Output, io_type=io_type)


@dataclass
class Schema:
    node_id: str
    display_name: str
    category: str
    inputs: list[Any]
    outputs: list[Any]
    description: str = ""
    is_output_node: bool = False

    def validate(self) -> None:
        """ComfyUI's rule: every id once, among inputs and outputs together."""
        ids = Counter(each.id for each in [*self.inputs, *self.outputs])
        assert max(ids.values()) == 1, ids


class ComfyNode:
    validate_inputs: ClassVar[Any] = None
    fingerprint_inputs: ClassVar[Any] = None


class NodeOutput:
    def __init__(self, *args: Any, ui: Any = None) -> None:
        self.args, self.ui = args, ui


class ComfyExtension: ...


class PreviewImage:
    def __init__(self, image: torch.Tensor, animated: bool = False, cls: Any = None) -> None:
        assert image.ndim == 4
        self.image = image


class ProgressBar:
    def __init__(self, total: int, node_id: str | None = None) -> None:
        self.total = total

    def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
        self.total = self.total if total is None else total
        comfy.bars.append((value, self.total))


def _stop() -> None:
    if comfy.stops:
        raise Interrupted


@contextmanager
def install() -> Iterator[None]:
    """Let `comfy_api.latest`, `comfy.utils` and `comfy.model_management` be the double."""
    widget = ("default", "socketless", "force_input")
    io = SimpleNamespace(
        Schema=Schema,
        ComfyNode=ComfyNode,
        NodeOutput=NodeOutput,
        Custom=_kind,
        Image=_kind("IMAGE"),
        Mask=_kind("MASK"),
        String=_kind("STRING", "multiline", "placeholder", "dynamic_prompts", *widget),
        Combo=_kind("COMBO", "options", *widget),
    )
    members: dict[str, dict[str, Any]] = {
        "comfy": {},
        "comfy.utils": {"ProgressBar": ProgressBar},
        "comfy.model_management": {"throw_exception_if_processing_interrupted": _stop},
        "comfy_api": {},
        "comfy_api.latest": {
            "ComfyExtension": ComfyExtension,
            "io": io,
            "ui": SimpleNamespace(PreviewImage=PreviewImage),
        },
    }
    modules = {name: ModuleType(name) for name in members}
    for name, values in members.items():
        vars(modules[name]).update(values)
        above, _, last = name.rpartition(".")
        if above:
            setattr(modules[above], last, modules[name])
    kept = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, before in kept.items():
            if before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = before


def run(workflow: Mapping[str, Any], entrypoint: Any, inputs: str) -> dict[str, NodeOutput]:
    """Run a workflow in its API format, and return every node's output by the node's name.

    Args:
        workflow: Nodes in an order in which they can run.
        entrypoint: The pack's.
        inputs: The folder of pictures that LoadImage takes.
    """
    nodes = asyncio.run(_nodes(entrypoint))
    made: dict[str, NodeOutput] = {}
    for name, row in workflow.items():
        given = {
            key: made[value[0]].args[value[1]] if isinstance(value, list) else value
            for key, value in row["inputs"].items()
        }
        if row["class_type"] == "LoadImage":
            pixels = np.asarray(PIL.Image.open(f"{inputs}/{given['image']}").convert("RGB"))
            picture = torch.from_numpy(pixels.astype(np.float32) / 255)[None]
            made[name] = NodeOutput(picture, torch.zeros(1, 64, 64))
            continue
        if row["class_type"] == "SaveImage":
            comfy.pictures.append(given["images"])
            continue
        node = nodes[row["class_type"]]
        if node.validate_inputs is not None:
            told = {
                key: value for key, value in row["inputs"].items() if not isinstance(value, list)
            }
            names = node.validate_inputs.__func__.__code__.co_varnames
            answer = node.validate_inputs(**{key: told[key] for key in told if key in names})
            assert answer is True, answer
        made[name] = node.execute(**given)
        assert len(made[name].args) == len(node.define_schema().outputs)
    return made


async def _nodes(entrypoint: Any) -> dict[str, Any]:
    extension = await entrypoint()
    return {node.define_schema().node_id: node for node in await extension.get_node_list()}
