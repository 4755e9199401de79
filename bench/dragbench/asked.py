"""What a run of DragBench is asked for, and what its results depend on."""

import hashlib
import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dragnoise.engine.errors import ModelError
from dragnoise.engine.system.incoming import told_as

__all__ = ["EMBEDDED", "Asked", "Judging", "about", "seed_of"]

EMBEDDED = "embedded"
"""What stands for the folder of the model that comes with the package."""

PROTOCOL = 2
"""Raise it when a sample's result comes to mean another thing."""


@dataclass(frozen=True)
class Judging:
    """What pictures are judged with.

    Attributes:
        dift: The folder of the model whose features find the points again (Stable Diffusion 2.1 by
            the protocol), "embedded", or None: no distances.
        lpips: The file of LPIPS's weights; None: no image fidelity.
        lpips_sha256: What that file's digest must be; None: whatever it is.
        device: Where it computes: "auto", "cpu", "cuda".
    """

    dift: str | None = None
    lpips: str | None = None
    lpips_sha256: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Asked:
    """A run of DragBench; plain values, so that it can be sent to other processes.

    Attributes:
        root: DragBench's folder, published or converted.
        out: What is made lies there.
        method: How to drag.
        settings: The method's that were given; the others are the model's own.
        personalise: Steps of learning each picture; 0: none.
        judging: What pictures are judged with.
        editor: The options of the model, as `load_editor` reads them.
    """

    root: Path
    out: Path
    method: str = "dragnoise"
    settings: Mapping[str, Any] = field(default_factory=dict)
    personalise: int = 0
    judging: Judging = field(default_factory=Judging)
    editor: Namespace = field(default_factory=Namespace)

    @property
    def converted(self) -> Path:
        """The folder of the samples without pickles."""
        return self.out / "samples"

    def picture(self, name: str) -> Path:
        """Return where a sample's edited picture lies, as the published evaluation expects it."""
        return self.out / "edited" / name / "dragged_image.png"


def seed_of(name: str) -> int:
    """Return a sample's own seed, so that no result depends on what was done before it."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % 2**31


def about(asked: Asked, names: Sequence[str]) -> dict[str, Any]:
    """Return what the results depend on beside the samples' names, ready for JSON.

    Args:
        asked: The run.
        names: Of all samples in its folder.

    Raises:
        ModelError: A model or the weights cannot be read.
    """
    judging = asked.judging
    return {
        "bench": "dragbench",
        "protocol": PROTOCOL,
        "samples": hashlib.sha256(json.dumps(sorted(names)).encode()).hexdigest()[:16],
        "method": asked.method,
        "settings": dict(asked.settings),
        "personalise": asked.personalise,
        "model": _digest(asked.editor.model or EMBEDDED),
        "dtype": asked.editor.dtype,
        "dift": judging.dift and _digest(judging.dift),
        "lpips": judging.lpips and _digest(judging.lpips),
    }


def _digest(source: str) -> str:
    """Digest a model's files; a folder's by their names, too."""
    from dragnoise.engine.cache.digest import file_digest
    from dragnoise.engine.diffusion.load import EMBEDDED as FOLDER

    path = FOLDER if source == EMBEDDED else Path(source)
    with told_as(ModelError, f"{source!r} cannot be read"):
        if not path.is_dir():
            return file_digest(path)[:16]
        files = sorted(file for file in path.rglob("*") if file.is_file())
        names = json.dumps([file.relative_to(path).as_posix() for file in files])
        return hashlib.sha256(names.encode() + file_digest(*files).encode()).hexdigest()[:16]
