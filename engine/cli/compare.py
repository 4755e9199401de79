"""`dragnoise compare`: the same drag by several methods, side by side."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..inputs.image import Image
from ..inputs.points import Points
from ..system.files import Outputs
from .drawing import enlarge, sheet, with_points
from .options import (
    DIFFUSION_METHODS,
    METHOD_SETTINGS,
    add_cache_option,
    add_json_option,
    add_limit_options,
    add_mask_option,
    add_model_options,
    beside,
    limits_of,
    load_editor,
    mask_of,
    model_inputs,
    points_of,
)
from .program import Command
from .show import print_edits, print_json, progress_bar

if TYPE_CHECKING:
    from ..editor import Editor
    from ..session.result import EditResult

__all__ = ["COMPARE", "Compared", "compared_sheet"]

_USUAL = tuple(name for name in DIFFUSION_METHODS if "baseline" not in name)
"""The methods on one model, without the restatements that ratios are measured against."""


@dataclass(frozen=True)
class Compared:
    """A method's drag.

    Attributes:
        method: its name.
        result: what came of it.
        gflop: floating-point operations of a first edit of as many updates, VAE and text encoder
            left out, in units of a thousand million; None where they cannot be counted.
    """

    method: str
    result: "EditResult"
    gflop: float | None

    @property
    def seconds(self) -> float:
        """How long the drag took on a picture that was prepared."""
        return self.result.timings_ms["total"] / 1e3

    def notes(self) -> tuple[str, ...]:
        """Return what stands under its picture."""
        result = self.result
        reached = "reached" if result.reached else "not reached"
        work = () if self.gflop is None else (f"{self.gflop:,.0f} GFLOP as a first edit",)
        return (f"{len(result.history.losses)} updates, {reached}", f"{self.seconds:.1f} s", *work)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, ready for JSON."""
        return self.result.to_dict() | {"method": self.method, "gflop": self.gflop}


def _methods(text: str) -> tuple[str, ...]:
    """Return the methods of "NAME,NAME"."""
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in METHOD_SETTINGS]
    if unknown or len(set(names)) < len(names):
        known = ", ".join(METHOD_SETTINGS)
        raise ArgumentTypeError(f"{text!r} are no methods, each once; known: {known}")
    return names


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="the picture")
    parser.add_argument(
        "--drag",
        action="append",
        required=True,
        metavar="X,Y:X,Y",
        help="handle and target in image pixels; repeat for more pairs",
    )
    add_mask_option(parser)
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what the image shows")
    parser.add_argument(
        "--methods",
        type=_methods,
        default=_USUAL,
        metavar="NAME,...",
        help=f"which (default: {','.join(_USUAL)})",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the sheet (default: IMAGE_compared.png)"
    )
    add_json_option(parser)
    add_model_options(parser)
    add_cache_option(parser)
    add_limit_options(parser)


def _run(parsed: Namespace) -> int:
    outputs: Outputs = parsed.outputs
    usual = beside(parsed.image, "_compared.png")
    output = outputs.add("-o", usual if parsed.output is None else parsed.output)
    outputs.check_apart({"image": parsed.image, "mask": parsed.mask} | model_inputs(parsed))
    limits = limits_of(parsed)
    image = Image.of(parsed.image, limits)
    limits.check_edit(image.width, image.height)
    points = points_of(parsed.drag)
    points.check_inside(image.width, image.height)
    mask = mask_of(parsed.mask, image.width, image.height)

    editor = load_editor(parsed)
    session = editor.open(image, prompt=parsed.prompt)
    compared = []
    with progress_bar() as progress:
        session.prepare(progress=progress)
        for method in parsed.methods:
            result = session.drag(points, mask=mask, method=method, progress=progress)
            gflop = _gflop(editor, image, result, mask is not None)
            compared.append(Compared(method, result, gflop))
    written = [compared_sheet(image, points, compared).save(output)]
    if parsed.json:
        edits = [each.to_dict() for each in compared]
        print_json({"edits": edits, "written": [str(path) for path in written]})
    else:
        print_edits([(each.method, each.result) for each in compared])
        print("\n".join(f"wrote {path}" for path in written))
    return 0


def _gflop(editor: "Editor", image: Image, result: "EditResult", mask: bool) -> float | None:
    """Return a thousand million operations of an edit like it; None where they are not counted."""
    from ..inputs.frame import Frame
    from ..methods import method_row
    from ..pipelines.diffusion import DIFFUSION
    from ..pipelines.work import counted_work

    method = method_row(result.settings["method"])
    if method.pipeline is not DIFFUSION or not method.captured:
        return None
    settings = result.settings["config"]
    model = editor.model
    frame = Frame.of(image, model.factor)
    cells = (frame.padded[0] // model.factor, frame.padded[1] // model.factor)
    work = counted_work(model, method, settings, cells, frame.supervision, mask)
    return work.whole(len(result.history.losses), settings.active_steps) / 1e9


def compared_sheet(image: Image, points: Points, compared: Sequence[Compared]) -> Image:
    """Return the picture with its points, and beside it what every method made of it."""
    before = (with_points(image, points), enlarge(image))
    columns = [before]
    for each in compared:
        after = each.result.image
        columns.append((with_points(after, each.result.points), enlarge(after)))
    names = ("before", *(each.method for each in compared))
    notes = ((), *(each.notes() for each in compared))
    return sheet(columns, names, ("points", "picture"), notes)


COMPARE = Command(
    name="compare",
    summary="the same drag by several methods",
    description="Drag on an image with several methods and write what each makes of it.",
    add_options=_add_options,
    run=_run,
)
