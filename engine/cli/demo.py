"""`dragnoise demo`: drag on the sample images that ship with the embedded model."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ..config import DragGANConfig
from ..diffusion.samples import Sample, samples
from ..errors import ModelError, OutputError
from ..inputs.image import Image
from ..inputs.points import Points
from ..system.files import Outputs, writable_folder
from ..system.incoming import read_json
from .drawing import enlarge, sheet, with_points
from .options import (
    METHOD_SETTINGS,
    add_json_option,
    add_method_option,
    add_model_options,
    load_editor,
)
from .program import Command
from .show import print_edits, print_json, progress_bar

if TYPE_CHECKING:
    from ..editor import Editor
    from ..session.result import EditResult, Progress

__all__ = [
    "ANIMATION",
    "DEMO",
    "SHEET",
    "Sample",
    "SeedSample",
    "demo",
    "samples",
    "seed_samples",
]

SHEET = "sheet.png"
ANIMATION = "drag.gif"

_ANIMATED = "boat"
"""The sample that is also written as an animation; the first one if there is none of this name."""

_FRAMES = 12

_BESIDE: Mapping[str, Sequence[str]] = {"dragnoise": ("fast", "live")}
"""Presets whose edits stand in the sheet beside a method's own."""


@dataclass(frozen=True)
class SeedSample:
    """A picture that a generator makes, and what to drag on it.

    Attributes:
        name: what its files are called.
        seed: of the picture.
        truncation: how far it lies from the generator's mean picture.
        points: handles and targets, in image pixels.
        mask: white where the picture may change; None: everywhere.
    """

    name: str
    seed: int
    truncation: float
    points: Points
    mask: Path | None
    prompt: str = ""


def seed_samples(generator: str | None = None) -> tuple[SeedSample, ...]:
    """Return the samples of a generator's folder; None: the embedded generator's.

    Of one that brings none the first four pictures, whose middle is dragged to the right.
    """
    from ..gan.folder import EMBEDDED, read_architecture
    from ..gan.writing import CONFIG

    folder = EMBEDDED if generator is None else Path(generator)
    listed = folder / "samples" / "samples.json"
    if not listed.exists():
        size = read_architecture(folder / CONFIG).size
        drag = [size / 2, size / 2, 5 * size / 8, size / 2]
        usual = Points.of([drag])
        return tuple(SeedSample(f"seed{seed}", seed, 0.7, usual, None) for seed in range(4))
    return tuple(
        SeedSample(
            name=row["name"],
            seed=row["seed"],
            truncation=row["truncation"],
            points=Points.of(row["drags"]),
            mask=None if row["mask"] is None else listed.parent / row["mask"],
        )
        for row in read_json(listed, ModelError, 2**20)
    )


def demo(
    editor: "Editor",
    output: Path,
    progress: "Progress | None" = None,
    method: str = "dragnoise",
    edits: Sequence[Sample | SeedSample] | None = None,
    preset: str | None = None,
) -> Iterator[tuple[Sample | SeedSample, "EditResult"]]:
    """Drag every sample and write what came of it into a folder.

    Args:
        editor: that drags.
        output: the folder.
        progress: told of the long stages' steps.
        method: how to drag.
        edits: the samples; None: the embedded model's.
        preset: how to drag, instead of a method.

    Yields each sample with its result, having written NAME_before.png and NAME_after.png; beside
    DragNoise's also NAME_fast.png and NAME_live.png, of the presets that are faster. An animation
    of one drag stands in `drag.gif`; at the end all edits stand in `sheet.png`, with the seconds
    that each kind of edit took in the middle.

    Raises:
        OutputError: the folder cannot be made or written to.
    """
    from .animation import DragAnimation

    _make_folder(output)
    edits = samples() if edits is None else edits
    animated = next((sample for sample in edits if sample.name == _ANIMATED), edits[0])
    how: Any = {"method": method} if preset is None else {"preset": preset}
    beside = _beside(method, preset)
    columns = []
    took: list[list[float]] = []
    for sample in edits:
        picture: Any = _picture(editor, sample)
        before: Image = picture if isinstance(picture, Image) else picture.image
        animation = DragAnimation(_FRAMES, finished=True) if sample is animated else None
        edit = partial(editor.edit, picture, sample.points, mask=sample.mask, prompt=sample.prompt)
        result = edit(
            record=animation is not None, progress=progress, on_iteration=animation, **how
        )
        before.save(output / f"{sample.name}_before.png")
        result.image.save(output / f"{sample.name}_after.png")
        if animation is not None:
            animation.save(output / ANIMATION, editor, before, result)
        results = [result, *(edit(preset=name) for name in beside)]
        for name, other in zip(beside, results[1:], strict=True):
            other.image.save(output / f"{sample.name}_{name}.png")
        shown = [enlarge(each.image) for each in results]
        columns.append((enlarge(before), with_points(before, sample.points), *shown))
        took.append([each.timings_ms["total"] / 1e3 for each in results])
        yield sample, result
    first = preset or ("published" if beside else method)
    rows = [
        f"{name}\n{median(seconds):.1f} s"
        for name, seconds in zip((first, *beside), zip(*took, strict=True), strict=True)
    ]
    names = [sample.name for sample in edits]
    sheet(columns, names, ("before", "points", *rows)).save(output / SHEET)


def _beside(method: str, preset: str | None) -> Sequence[str]:
    return _BESIDE.get(method, ()) if preset is None else ()


def _picture(editor: "Editor", sample: Sample | SeedSample) -> Any:
    if isinstance(sample, SeedSample):
        return editor.sample(sample.seed, truncation=sample.truncation)
    return Image.of(sample.image)


def _expect(
    outputs: Outputs, folder: Path, edits: Sequence[Sample | SeedSample], beside: Sequence[str]
) -> Path:
    """Make a folder and return it, if all files can be written there. Raises OutputError."""
    _make_folder(folder)
    pictures = ("before", "after", *beside)
    names = [f"{sample.name}_{which}.png" for sample in edits for which in pictures]
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
    add_method_option(parser)
    add_json_option(parser)
    add_model_options(parser)


def _run(parsed: Namespace) -> int:
    writable_folder(parsed.output)
    made = METHOD_SETTINGS[parsed.method] is DragGANConfig
    chosen = seed_samples(parsed.generator) if made else samples()
    beside = _beside(parsed.method, parsed.preset)
    output = _expect(parsed.outputs, Path(parsed.output), chosen, beside)
    editor = load_editor(parsed)
    with progress_bar() as progress:
        each = demo(editor, output, progress, parsed.method, chosen, parsed.preset)
        edits = [(sample.name, result) for sample, result in each]
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
    print("and pictures of each beside them")
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
