"""Find the files of exported parts, and say how to make one that is missing: the exact command."""

import itertools
import logging
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from ..diffusion.model import LoadedFrom, Model
from ..diffusion.parts import PARTS
from ..errors import PlanError
from ..exported import (
    EXPORTABLE,
    SUFFIX,
    Extent,
    GraphId,
    PlanId,
    Profile,
    about_graph,
    about_plan,
    dtype_name,
    graph_id,
    multiple_px,
)
from ..system.commands import finished
from .tensorrt import Library

__all__ = ["Artefacts"]

_log = logging.getLogger("dragnoise")

T = TypeVar("T")


@dataclass(frozen=True)
class Artefacts:
    """A folder of exported parts.

    Attributes:
        folder: Where `python -m dragnoise.export` writes.
        build_missing: Run that command where a file is missing, instead of raising with it.
    """

    folder: Path
    build_missing: bool = False

    def graph(self, model: Model, part: str, extent: Extent) -> tuple[Path, GraphId]:
        """Return the ONNX file of a part at an extent, and the identity that it must have.

        The one made for the extent, else a dynamic one that covers it.

        Raises:
            PlanError: Where there is none, with the command that makes it.
        """
        wanted = graph_id(model, part, Profile.at(extent))

        def find() -> tuple[Path, GraphId] | None:
            path = self.folder / wanted.file
            if path.exists():
                return path, wanted
            for path, seen in self._dynamic(model, wanted, extent, ".onnx", about_graph):
                return path, replace(wanted, profile=seen.profile)
            return None

        return find() or self._make("onnx", model, wanted, find)

    def plan(
        self, model: Model, part: str, extent: Extent, library: Library
    ) -> tuple[Path, PlanId]:
        """Return the plan of a part at an extent, and the identity that it must have.

        The one made for the extent, else a dynamic one that covers it.

        Raises:
            PlanError: Where there is none, with the command that makes it.
        """
        graph = graph_id(model, part, Profile.at(extent))
        capability = None
        if model.device.type == "cuda":
            capability = torch.cuda.get_device_capability(model.device)

        def find() -> tuple[Path, PlanId] | None:
            for target, refittable in itertools.product(library.targets(capability), (False, True)):
                plan = PlanId(graph, library.flavour, library.version, target, refittable)
                path = self.folder / plan.file
                if path.exists():
                    return path, plan
                ending = plan.file.removeprefix(graph.stem)
                for path, seen in self._dynamic(model, graph, extent, ending, about_plan):
                    profile = seen.graph.profile
                    return path, replace(plan, graph=replace(graph, profile=profile))
            return None

        return find() or self._make("plan", model, graph, find, library)

    def _dynamic(
        self,
        model: Model,
        wanted: GraphId,
        extent: Extent,
        ending: str,
        about: Callable[[Path], tuple[T, object]],
    ) -> Iterator[tuple[Path, T]]:
        """Yield dynamic files whose size range, read from the name, covers `extent`.

        The size that they were tuned for is in the header only: with each comes what it says of
        itself. One whose header cannot be read is passed over; it does not stop its neighbours.
        """
        multiple = multiple_px(model)
        if extent.height % multiple or extent.width % multiple:
            return  # dynamic files' maps halve without a remainder
        before, after = wanted.stem.split(str(wanted.profile), 1)
        for path in sorted(self.folder.glob(f"{before}*_to_*{after}{ending}")):
            sizes = path.name.removeprefix(before).removesuffix(f"{after}{ending}")
            try:
                profile = Profile.read(sizes)
            except ValueError:
                continue
            if profile.covers(extent):
                try:
                    identity, _ = about(path)
                except PlanError as broken:
                    _log.warning("%s is not used: %s", path.name, broken)
                    continue
                yield path, identity

    def _make(
        self,
        kind: str,
        model: Model,
        graph: GraphId,
        find: Callable[[], T | None],
        library: Library | None = None,
    ) -> T:
        """Run the command that makes a file, or raise PlanError with it."""
        command = self.command(kind, model, graph, library)
        words = shlex.join(command)
        if not self.build_missing:
            raise PlanError(f"{self._missing(kind, graph)}; make it with: {words}")
        _log.warning("%s is missing and is made now: %s", graph.stem, words)
        done = finished(command)
        made = find()
        if done.returncode or made is None:
            lines = (done.stderr or done.stdout).strip().splitlines()
            reason = lines[-1] if lines else f"exit code {done.returncode}"
            raise PlanError(f"{words} failed: {reason}")
        return made

    def _missing(self, kind: str, graph: GraphId) -> str:
        """Say what is missing; and of which library, version or device there are plans."""
        names = sorted(path.name for path in self.folder.glob(f"{graph.stem}.*{SUFFIX}"))
        others = [name.removeprefix(f"{graph.stem}.").removesuffix(SUFFIX) for name in names]
        useless = ""
        if others:
            useless = f" (there is one for {', '.join(others)}, which cannot be used here)"
        usual = graph.profile.usual
        return f"no {kind} of {graph.part} for {usual} lies in {str(self.folder)!r}{useless}"

    def command(
        self, kind: str, model: Model, graph: GraphId, library: Library | None = None
    ) -> list[str]:
        """Return the command that makes a file.

        Raises:
            PlanError: Where no command can: the model or its adapter lies in no file.
        """
        extent = graph.profile.usual
        where = f"lies in {str(self.folder)!r}"
        if model.loaded_from is None or not model.loaded_from.path.exists():
            raise PlanError(
                f"no {kind} of {graph.part} {where}, and {model.name} lies in no folder to make it "
                "of: save it with save_pretrained, load it from there"
            )
        command = [sys.executable, "-m", "dragnoise.export", kind]
        command += _model_words(model.loaded_from)
        for part in _made_together(graph.part, extent.batch):
            command += ["--part", part]
        command += ["--size", f"{extent.width}x{extent.height}", "--batch", str(extent.batch)]
        command += ["--dtype", dtype_name(model.dtype)]
        weights = model.weights
        if weights.merged is not None:
            if not weights.merged_from:
                raise PlanError(
                    f"no {kind} of {graph.part} with this adapter {where}, and the adapter lies in "
                    "no file to make it of: save it with Adapter.save, open the session with the "
                    "file"
                )
            scale = repr(weights.merged[1])
            command += ["--adapter", weights.merged_from, "--adapter-scale", scale]
        if library is not None:
            command += ["--flavour", library.flavour]
        return [*command, "-o", str(self.folder)]


def _model_words(loaded: LoadedFrom) -> list[str]:
    """Return the words of a command that load the same model."""
    words = [str(loaded.path)]
    if loaded.config is not None:
        words += ["--model-config", loaded.config]
    if loaded.variant is not None:
        words += ["--variant", loaded.variant]
    if loaded.allow_pickle:
        words.append("--allow-pickle")
    return words


def _made_together(name: str, batch: int) -> tuple[str, ...]:
    """Return the parts to export together with one; none stands for the command's default set."""
    part = PARTS[name]
    exportable = [PARTS[other] for other in EXPORTABLE]
    if part.whole:
        return tuple(other.name for other in exportable if other.whole)
    if batch == 1:
        return ()
    return tuple(
        other.name for other in exportable if other.network == part.network and other.in_edit
    )
