"""Where exported parts lie, and what is said where one is missing: the exact command that makes it."""

import dataclasses
import itertools
import logging
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from ..diffusion.model import Model
from ..errors import PlanError
from ..exported import (
    SUFFIX,
    Extent,
    GraphId,
    PlanId,
    Profile,
    about_graph,
    about_plan,
    graph_id,
    multiple_px,
)
from .tensorrt import Library

__all__ = ["Artefacts"]

_log = logging.getLogger("dragnoise")

T = TypeVar("T")


@dataclass(frozen=True)
class Artefacts:
    """folder: what `python -m dragnoise.export` wrote. build_missing: run that command where a file is missing, instead of saying it."""

    folder: Path
    build_missing: bool = False

    def graph(self, model: Model, part: str, extent: Extent) -> tuple[Path, GraphId]:
        """The ONNX file of a part on that extent, and what it must be: the one made for it, else a dynamic one that covers it. Raises PlanError."""
        wanted = graph_id(model, part, Profile.at(extent))

        def found() -> tuple[Path, GraphId] | None:
            if (path := self.folder / wanted.file).exists():
                return path, wanted
            for path in self._dynamic(model, wanted, extent, ".onnx"):
                return path, dataclasses.replace(wanted, profile=about_graph(path)[0].profile)
            return None

        return found() or self._made("onnx", model, wanted, found)

    def plan(
        self, model: Model, part: str, extent: Extent, library: Library
    ) -> tuple[Path, PlanId]:
        """The plan of a part on that extent, and what it must be: the one made for it, else a dynamic one that covers it. Raises PlanError."""
        graph = graph_id(model, part, Profile.at(extent))
        capability = (
            torch.cuda.get_device_capability(model.device) if model.device.type == "cuda" else None
        )

        def found() -> tuple[Path, PlanId] | None:
            for target, refittable in itertools.product(library.targets(capability), (False, True)):
                built = PlanId(graph, library.flavour, library.version, target, refittable)
                if (path := self.folder / built.file).exists():
                    return path, built
                for path in self._dynamic(
                    model, graph, extent, built.file.removeprefix(graph.stem)
                ):
                    profile = about_plan(path)[0].graph.profile
                    return path, dataclasses.replace(
                        built, graph=dataclasses.replace(graph, profile=profile)
                    )
            return None

        return found() or self._made("plan", model, graph, found, library)

    def _dynamic(
        self, model: Model, wanted: GraphId, extent: Extent, ending: str
    ) -> Iterator[Path]:
        """Files of the same part that serve a range with that extent in it, by their names; what they were made for stands in them alone."""
        if extent.height % (multiple := multiple_px(model)) or extent.width % multiple:
            return  # their maps halve without a remainder
        size = str(wanted.profile)
        before, after = wanted.stem.split(size, 1)
        for path in sorted(self.folder.glob(f"{before}*_to_*{after}{ending}")):
            try:
                profile = Profile.read(
                    path.name.removeprefix(before).removesuffix(f"{after}{ending}")
                )
            except ValueError:
                continue
            if profile.covers(extent):
                yield path

    def _made(
        self,
        kind: str,
        model: Model,
        graph: GraphId,
        found: Callable[[], T | None],
        library: Library | None = None,
    ) -> T:
        command = self.command(kind, model, graph, library)
        if not self.build_missing:
            missing = f"no {kind} of {graph.part} for {graph.profile.usual} lies in {str(self.folder)!r}{self._others(graph)}"
            raise PlanError(f"{missing}; make it with: {shlex.join(command)}")
        _log.warning("%s is missing and is made now: %s", graph.stem, shlex.join(command))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        made = found()
        if done.returncode or made is None:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise PlanError(
                f"{shlex.join(command)} failed: {said[-1] if said else f'exit code {done.returncode}'}"
            )
        return made

    def _others(self, graph: GraphId) -> str:
        """Plans of the same graph by another library, version, or for another device."""
        names = sorted(path.name for path in self.folder.glob(f"{graph.stem}.*{SUFFIX}"))
        others = [name.removeprefix(f"{graph.stem}.").removesuffix(SUFFIX) for name in names]
        return (
            f" (there is one for {', '.join(others)}, which cannot be used here)" if others else ""
        )

    def command(
        self, kind: str, model: Model, graph: GraphId, library: Library | None = None
    ) -> list[str]:
        """What makes the file. Raises PlanError where no command can: the model or its adapter lies in no file."""
        extent, weights = graph.profile.usual, model.read()
        if not Path(model.name).exists():
            raise PlanError(
                f"no {kind} of {graph.part} lies in {str(self.folder)!r}, and {model.name} lies in no folder to make it of: "
                "save it with save_pretrained, load it from there"
            )
        command = [sys.executable, "-m", "dragnoise.export", kind, model.name, *model.loaded_with]
        for part in _beside(graph.part, extent.batch):
            command += ["--part", part]
        command += ["--size", f"{extent.width}x{extent.height}", "--batch", str(extent.batch)]
        command += [
            "--dtype",
            {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[model.dtype],
        ]
        if weights.merged is not None:
            if not weights.merged_from:
                raise PlanError(
                    f"no {kind} of {graph.part} with this adapter lies in {str(self.folder)!r}, and the adapter lies in no file to make it of: "
                    "save it with Adapter.save, open the session with the file"
                )
            command += [
                "--adapter",
                weights.merged_from,
                "--adapter-scale",
                repr(weights.merged[1]),
            ]
        if library is not None:
            command += ["--flavour", library.flavour]
        return [*command, "-o", str(self.folder)]


def _beside(part: str, batch: int) -> tuple[str, ...]:
    """What is made with a part: all that an edit needs, which need not be named, or with guidance one network's parts."""
    if part in ("unet", "unet-replaced"):
        return "unet", "unet-replaced"
    if batch == 1:
        return ()
    return ("vae-encoder", "vae-decoder") if part.startswith("vae-") else ("down", "middle", "up")
