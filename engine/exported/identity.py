"""Which artefact it is: everything that an exported part depends on, as its file's name and header say it.

A file is right if its identity is, so nobody need open a plan to know whether it fits. In a name digests are cut short; the header has them whole.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..cache.digest import code_digest, digest
from ..diffusion.model import Model
from ..errors import ExportError
from .parts import PARTS, Extent, precision_of

__all__ = [
    "DTYPES",
    "GraphId",
    "PlanId",
    "Profile",
    "code",
    "differences",
    "graph_id",
    "multiple_px",
    "read_graph_id",
    "read_plan_id",
]

DTYPES: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


@dataclass(frozen=True)
class Profile:
    """The extents that a file serves: least to most, made for `usual`. All three the same: it is static."""

    least: Extent
    usual: Extent
    most: Extent

    @classmethod
    def at(cls, extent: Extent) -> "Profile":
        return cls(extent, extent, extent)

    @property
    def dynamic(self) -> bool:
        return self.least != self.most

    def covers(self, extent: Extent) -> bool:
        return all(
            least <= asked <= most
            for least, asked, most in zip(
                *(dataclasses.astuple(one) for one in (self.least, extent, self.most)), strict=True
            )
        )

    def __str__(self) -> str:
        return f"{self.least}_to_{self.most}" if self.dynamic else str(self.usual)

    @classmethod
    def read(cls, text: str) -> "Profile":
        """Of what a file's name says; for which extent a dynamic one was made, it does not say. Raises ValueError for anything else."""
        least, _, most = text.partition("_to_")
        ends = Extent.read(least), Extent.read(most or least)
        return cls(ends[0], ends[1], ends[1])


@dataclass(frozen=True)
class GraphId:
    """An ONNX graph.

    part: one of `PARTS`. features: the up block whose map `up` gives too. model: digest of the weights as they were loaded. adapter: what is
    merged into them, "" for nothing. dtype: of inputs, outputs and weights. code: digest of our code that makes the graph.
    """

    part: str
    features: int | None
    model: str
    adapter: str
    profile: Profile
    dtype: str
    code: str

    @property
    def stem(self) -> str:
        part = self.part if self.features is None else f"{self.part}-features{self.features}"
        adapter = self.adapter[:12] or "none"
        return f"{part}.{self.profile}.{self.dtype}.model-{self.model[:12]}.adapter-{adapter}.code-{self.code[:8]}"

    @property
    def file(self) -> str:
        return f"{self.stem}.onnx"

    def to_dict(self) -> dict[str, Any]:
        """As JSON; `read_graph` is the way back."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class PlanId:
    """A TensorRT plan of a graph. flavour: "tensorrt" or "tensorrt_rtx". version: of that library. target: the compute capability it is for ("sm90"),
    or "any" of those that TensorRT for RTX compiles for on arrival. refittable: whether its weights can be replaced."""

    graph: GraphId
    flavour: str
    version: str
    target: str
    refittable: bool = False

    @property
    def file(self) -> str:
        kind = ".refittable" if self.refittable else ""
        return f"{self.graph.stem}.{self.flavour}-{self.version}.{self.target}{kind}.plan"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def graph_id(model: Model, part: str, profile: Profile, features: int | None = None) -> GraphId:
    """The identity of a part of `model`, with the adapter that is merged into it now. Reads the weights, the first time.

    Raises ExportError for a part or feature block that is not there, and for extents that the model cannot take.
    """
    if part not in PARTS:
        raise ExportError(f"there is no part {part!r}; use {', '.join(PARTS)}")
    blocks = len(model.unet.network.up_blocks)
    if features is not None and (part != "up" or not 0 <= features < blocks):
        raise ExportError(
            f"features of block {features} of {part!r} are not there; only up has them, blocks 0 to {blocks - 1}"
        )
    _check(model, profile)
    if part == "middle":
        profile = Profile(
            *(_rounded(model, extent) for extent in (profile.least, profile.usual, profile.most))
        )
    name = next(name for name, one in DTYPES.items() if one == precision_of(model, part))
    weights = model.read()
    adapter = "" if weights.merged is None else digest(weights.merged)
    merged = "" if part.startswith("vae-") else adapter
    return GraphId(part, features, weights.digest, merged, profile, name, code())


def multiple_px(model: Model) -> int:
    """A picture whose sides are multiples of this has maps that halve without a remainder: 64 in Stable Diffusion."""
    levels = len(model.unet.network.down_blocks) - 1
    return int(model.factor * 2**levels)


def _rounded(model: Model, extent: Extent) -> Extent:
    """The largest extent whose smallest maps are as large: the middle block sees no more of it."""
    multiple = multiple_px(model)
    height, width = (-(-side // multiple) * multiple for side in (extent.height, extent.width))
    return Extent(height, width, extent.batch)


def _check(model: Model, profile: Profile) -> None:
    """A dynamic graph halves its maps without a remainder, whatever their size."""
    multiple = multiple_px(model) if profile.dynamic else model.factor
    for extent in (profile.least, profile.usual, profile.most):
        if extent.batch < 1:
            raise ExportError(f"the batch must be 1 or more, got {extent.batch}")
        for side in (extent.height, extent.width):
            if side < multiple or side % multiple:
                kind = "dynamic sizes" if profile.dynamic else "sizes"
                raise ExportError(
                    f"{kind} of this model are multiples of {multiple} pixels, got {extent.width}x{extent.height}"
                )
    if not (
        profile.covers(profile.least)
        and profile.covers(profile.usual)
        and profile.covers(profile.most)
    ):
        raise ExportError(
            f"the usual size {profile.usual} does not lie between {profile.least} and {profile.most}"
        )


def read_graph_id(said: Mapping[str, Any]) -> GraphId:
    """Of what `Graph.said` gave. Raises TypeError, KeyError for anything else."""
    extents = {name: Extent(**said["profile"][name]) for name in ("least", "usual", "most")}
    return GraphId(**{**said, "profile": Profile(**extents)})


def read_plan_id(said: Mapping[str, Any]) -> PlanId:
    """Of what `Built.said` gave. Raises TypeError, KeyError for anything else."""
    return PlanId(**{**said, "graph": read_graph_id(said["graph"])})


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What one is and the other is not, in words; both as `said` gives them."""
    one, other = _flat(found), _flat(wanted)
    return [
        f"{name} is {one[name]!r}, wanted is {other[name]!r}"
        for name in one
        if one[name] != other[name]
    ]


def _flat(said: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in said.items():
        if name == "graph":
            flat |= _flat(value)
        elif name == "profile":
            flat |= {f"{end} size": extent for end, extent in value.items()}
        else:
            flat[name] = value
    return flat


@cache
def code() -> str:
    """Digest the sources that decide what a graph computes."""
    engine = Path(__file__).parents[1]
    folders = (engine / "diffusion" / "unet", engine / "exported")
    return code_digest(
        [
            *(file for folder in folders for file in folder.glob("*.py")),
            engine / "diffusion" / "vae.py",
        ]
    )
