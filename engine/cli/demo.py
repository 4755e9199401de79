"""`dragnoise demo`: drag on the sample images that ship with the embedded model."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OutputError
from ..inputs.image import Image
from ..inputs.points import Points
from ..system.files import Outputs, writable_folder
from .drawing import enlarge, sheet, with_points
from .options import add_json_option, add_model_options, load_editor
from .program import Command
from .show import print_edits, print_json, progress_bar

if TYPE_CHECKING:
    from ..editor import Editor
    from ..session.result import EditResult, Progress

__all__ = ["ANIMATION", "DEMO", "SHEET", "Sample", "demo", "samples"]

SHEET = "sheet.png"
ANIMATION = "drag.gif"

_ANIMATED = "boat"
"""The sample that is also written as an animation; the first one if there is none of this name."""

_FRAMES = 12


@dataclass(frozen=True)
class Sample:
    """A picture and what to drag on it.

    Attributes:
        image: the picture's file.
        points: handles and targets, in image pixels.
        prompt: what the picture shows.
        mask: white where the picture may change; None: everywhere.
    """

    image: Path
    points: Points
    prompt: str
    mask: Path | None

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.image.stem


def samples(folder: Path | None = None) -> tuple[Sample, ...]:
    """Return the samples that a folder's `samples.json` lists; None: the embedded model's."""
    if folder is None:
        from ..diffusion.load import EMBEDDED

        folder = EMBEDDED / "samples"
    rows = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    return tuple(
        Sample(
            image=folder / row["image"],
            points=Points.of(row["drags"]),
            prompt=row["prompt"],
            mask=None if row["mask"] is None else folder / row["mask"],
        )
        for row in rows
    )


def demo(
    editor: "Editor", output: Path, progress: "Progress | None" = None
) -> Iterator[tuple[Sample, "EditResult"]]:
    """Drag every sample and write what came of it into a folder.

    Yields each sample with its result, having written NAME_before.png and NAME_after.png. An
    animation of one drag stands in `drag.gif`; at the end all edits stand in `sheet.png`.

    Raises:
        OutputError: the folder cannot be made or written to.
    """
    from .animation import DragAnimation

    _make_folder(output)
    edits = samples()
    animated = next((sample for sample in edits if sample.name == _ANIMATED), edits[0])
    columns = []
    for sample in edits:
        before = Image.of(sample.image)
        animation = DragAnimation(_FRAMES, finished=True) if sample is animated else None
        result = editor.edit(
            before,
            sample.points,
            mask=sample.mask,
            prompt=sample.prompt,
            record=animation is not None,
            progress=progress,
            on_iteration=animation,
        )
        before.save(output / f"{sample.name}_before.png")
        result.image.save(output / f"{sample.name}_after.png")
        if animation is not None:
            animation.save(output / ANIMATION, editor, before, result)
        columns.append((enlarge(before), with_points(before, sample.points), enlarge(result.image)))
        yield sample, result
    names = [sample.name for sample in edits]
    sheet(columns, names, ("before", "points", "after")).save(output / SHEET)


def _expect(outputs: Outputs, folder: Path) -> Path:
    """Make a folder and return it, if all files can be written there. Raises OutputError."""
    _make_folder(folder)
    names = [f"{sample.name}_{when}.png" for sample in samples() for when in ("before", "after")]
    for name in (*names, ANIMATION, SHEET):
        outputs.add(name, folder / name, ())
    return folder


def _make_folder(folder: Path) -> None:
    try:
        writable_folder(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder {str(folder)!r} cannot be made ({error}); choose another with -o"
        ) from error


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        default="dragnoise-demo",
        metavar="FOLDER",
        help="where to write (default: %(default)s)",
    )
    add_json_option(parser)
    add_model_options(parser)


def _run(parsed: Namespace) -> int:
    writable_folder(parsed.output)
    output = _expect(parsed.outputs, Path(parsed.output))
    editor = load_editor(parsed)
    with progress_bar() as progress:
        edits = [(sample.name, result) for sample, result in demo(editor, output, progress)]
    if parsed.json:
        print_json(
            {
                "written": str(output / SHEET),
                "animation": str(output / ANIMATION),
                "edits": {name: result.to_dict() for name, result in edits},
            }
        )
        return 0
    print_edits(edits)
    print(f"all edits:       {output / SHEET}")
    print(f"one as it went:  {output / ANIMATION}")
    print(f"and {2 * len(edits)} pictures beside them")
    return 0


DEMO = Command(
    name="demo",
    summary="drag on the sample images",
    description=(
        "Drag on the sample images; write a sheet of all edits and an animation of one of them."
    ),
    add_options=_add_options,
    run=_run,
)
