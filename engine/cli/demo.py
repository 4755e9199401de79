"""The demonstration: sample images that ship with the embedded model, dragged, and a sheet of what became of them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..diffusion.load import EMBEDDED
from ..editor import Editor
from ..errors import OutputError
from ..inputs.image import Image
from ..inputs.points import Points
from ..session.result import EditResult, Progress
from .drawing import enlarge, sheet, with_points

__all__ = ["Sample", "demo", "samples"]


@dataclass(frozen=True)
class Sample:
    """A picture and what to drag on it. mask: None where everything may change."""

    image: Path
    points: Points
    prompt: str
    mask: Path | None

    @property
    def name(self) -> str:
        return self.image.stem


def samples(folder: Path = EMBEDDED / "samples") -> tuple[Sample, ...]:
    """The samples that `folder` lists in its `samples.json`."""
    listed = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    return tuple(
        Sample(
            folder / one["image"],
            Points.of(one["drags"]),
            one["prompt"],
            None if one["mask"] is None else folder / one["mask"],
        )
        for one in listed
    )


def demo(
    editor: Editor, output: Path, progress: Progress | None = None
) -> Iterator[tuple[Sample, EditResult]]:
    """Drag every sample; yields each with its result, having written NAME_before.png and NAME_after.png into `output`, at the end sheet.png.

    Raises OutputError if the folder cannot be made or written to.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as refused:
        raise OutputError(
            f"the folder {str(output)!r} cannot be made ({refused}); choose another with -o"
        ) from refused
    rows = []
    for sample in samples():
        before = Image.of(sample.image)
        result = editor.edit(
            before, sample.points, mask=sample.mask, prompt=sample.prompt, progress=progress
        )
        before.save(output / f"{sample.name}_before.png")
        result.image.save(output / f"{sample.name}_after.png")
        rows.append((enlarge(before), with_points(before, sample.points), enlarge(result.image)))
        yield sample, result
    sheet(rows, ("before", "points", "after"), across=2).save(output / "sheet.png")
