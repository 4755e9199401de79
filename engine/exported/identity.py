"""Say which artefact a file is: everything that an exported part depends on, in name and header.

A file is right if its identity is, so no plan has to be opened to know whether it fits. In a name
digests are cut short; the header has them whole.
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
from ..diffusion.parts import Part
from ..errors import ExportError
from ..system.schema import FLAG, Fields, Maybe, Text, Whole
from .parts import Extent, multiple_px, part_named, precision_of

__all__ = [
    "DTYPES",
    "GraphId",
    "PlanId",
    "Profile",
    "code",
    "differences",
    "dtype_name",
    "graph_id",
    "read_graph_id",
    "read_plan_id",
]

DTYPES: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
"""Precisions by the names that files and commands have."""


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a precision in `DTYPES`."""
    return {value: name for name, value in DTYPES.items()}[dtype]


@dataclass(frozen=True)
class Profile:
    """A range of extents that a file serves; where all three are the same, it is static.

    Attributes:
        least: Smallest extent.
        usual: The extent that the file was tuned for.
        most: Largest extent.
    """

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
        """Whether an extent lies in the range, in every dimension."""
        ends = (dataclasses.astuple(end) for end in (self.least, extent, self.most))
        return all(least <= middle <= most for least, middle, most in zip(*ends, strict=True))

    def __str__(self) -> str:
        return f"{self.least}_to_{self.most}" if self.dynamic else str(self.usual)

    @classmethod
    def read(cls, text: str) -> "Profile":
        """Read the range in a file's name; it does not say which extent is the usual one.

        Raises:
            ValueError: For any other text.
        """
        first, _, last = text.partition("_to_")
        least = Extent.read(first)
        most = Extent.read(last or first)
        return cls(least, most, most)


@dataclass(frozen=True)
class GraphId:
    """An identity of an ONNX graph.

    Attributes:
        part: Name of the part.
        features: Number of the up block whose map `up` returns too.
        model: Digest of the weights as they were loaded.
        adapter: Digest of what is merged into them; "" for nothing.
        profile: Extents that it serves.
        dtype: Name in `DTYPES`, of inputs, outputs and weights.
        code: Digest of our code that makes the graph.
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
        return (
            f"{part}.{self.profile}.{self.dtype}"
            f".model-{self.model[:12]}.adapter-{adapter}.code-{self.code[:8]}"
        )

    @property
    def file(self) -> str:
        return f"{self.stem}.onnx"

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready; `read_graph_id` reads it."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class PlanId:
    """An identity of a TensorRT plan.

    Attributes:
        graph: What it was built of.
        flavour: "tensorrt" or "tensorrt_rtx".
        version: Of that library.
        target: The compute capability that it is for ("sm90"), or "any" of those that TensorRT
            for RTX compiles for on arrival.
        refittable: Whether its weights can be replaced.
    """

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
        """Return it JSON-ready; `read_plan_id` reads it."""
        return dataclasses.asdict(self)


def graph_id(model: Model, name: str, profile: Profile, features: int | None = None) -> GraphId:
    """Return the identity of a part of `model`, with the adapter that is merged into it now.

    Reads all weights, the first time.

    Raises:
        ExportError: For a part or feature block that does not exist, and for extents that the
            model cannot take.
    """
    part = part_named(name)
    blocks = len(model.unet.held.network.up_blocks)
    if features is not None and not (part.has_features and 0 <= features < blocks):
        raise ExportError(
            f"features of block {features} of {name!r} are not there; "
            f"only up has them, blocks 0 to {blocks - 1}"
        )
    _check(model, profile)
    return GraphId(
        name,
        features,
        model.weights.digest,
        _merged_adapter(model, part),
        _seen_by(model, part, profile),
        dtype_name(precision_of(model, name)),
        code(),
    )


def _merged_adapter(model: Model, part: Part) -> str:
    """Return the digest of what is merged into a part's weights: adapters change the U-Net."""
    merged = model.weights.merged
    if merged is None or part.network != "unet":
        return ""
    return digest(merged)


def _seen_by(model: Model, part: Part, profile: Profile) -> Profile:
    """Return the profile that a part can tell from others.

    `middle` sees only the smallest maps: extents with the same ones share a file.
    """
    if part.sized_by != "bottom":
        return profile
    extents = (profile.least, profile.usual, profile.most)
    return Profile(*(_rounded_up(model, extent) for extent in extents))


def _rounded_up(model: Model, extent: Extent) -> Extent:
    """Return the largest extent whose smallest maps are as large."""
    multiple = multiple_px(model)
    height = -(-extent.height // multiple) * multiple
    width = -(-extent.width // multiple) * multiple
    return Extent(height, width, extent.batch)


def _check(model: Model, profile: Profile) -> None:
    """Refuse extents that the model cannot take.

    A dynamic graph halves its maps without a remainder, whatever their size.
    """
    multiple = multiple_px(model) if profile.dynamic else model.factor
    extents = (profile.least, profile.usual, profile.most)
    for extent in extents:
        if extent.batch < 1:
            raise ExportError(f"the batch must be 1 or more, got {extent.batch}")
        for side in (extent.height, extent.width):
            if side < multiple or side % multiple:
                kind = "dynamic sizes" if profile.dynamic else "sizes"
                raise ExportError(
                    f"{kind} of this model are multiples of {multiple} pixels, "
                    f"got {extent.width}x{extent.height}"
                )
    if not all(profile.covers(extent) for extent in extents):
        raise ExportError(
            f"the usual size {profile.usual} does not lie between {profile.least} "
            f"and {profile.most}"
        )


_SHORT = Text(longest=1000)
_EXTENT = Fields({"height": Whole(), "width": Whole(), "batch": Whole()})
_GRAPH = Fields(
    {
        "part": _SHORT,
        "features": Maybe(Whole()),
        "model": _SHORT,
        "adapter": _SHORT,
        "profile": Fields({"least": _EXTENT, "usual": _EXTENT, "most": _EXTENT}),
        "dtype": Text(among=tuple(DTYPES)),
        "code": _SHORT,
    }
)
_PLAN = Fields(
    {"graph": _GRAPH, "flavour": _SHORT, "version": _SHORT, "target": _SHORT, "refittable": FLAG}
)


def read_graph_id(fields: Mapping[str, Any]) -> GraphId:
    """Read what `GraphId.to_dict` wrote.

    Raises:
        MismatchError: For anything else.
    """
    _GRAPH.check(fields, "graph")
    extents = {name: Extent(**fields["profile"][name]) for name in ("least", "usual", "most")}
    return GraphId(**{**fields, "profile": Profile(**extents)})


def read_plan_id(fields: Mapping[str, Any]) -> PlanId:
    """Read what `PlanId.to_dict` wrote.

    Raises:
        MismatchError: For anything else.
    """
    _PLAN.check(fields, "plan")
    return PlanId(**{**fields, "graph": read_graph_id(fields["graph"])})


def differences(seen: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Say in words where an identity is not the wanted one; both as `to_dict` returns them."""
    left = _flat(seen)
    right = _flat(wanted)
    return [
        f"{name} is {left[name]!r}, wanted is {right[name]!r}"
        for name in left
        if left[name] != right[name]
    ]


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
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
    diffusion = engine / "diffusion"
    folders = (diffusion / "unet", engine / "exported")
    files = [file for folder in folders for file in folder.glob("*.py")]
    return code_digest([*files, diffusion / "parts.py", diffusion / "vae.py"])
