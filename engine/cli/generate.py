"""`dragnoise generate`: make an image of a prompt, and drag on it."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import DiffusionSettings
from ..errors import ConfigError
from ..inputs.image import check_room
from ..system.files import Outputs
from .options import (
    add_cache_option,
    add_json_option,
    add_limit_options,
    add_mask_option,
    add_method_options,
    add_model_options,
    drag_settings,
    limits_of,
    load_editor,
    mask_of,
    model_inputs,
    points_of,
    size,
)
from .program import Command
from .show import print_edits, print_json, progress_bar

if TYPE_CHECKING:
    from ..pipelines.generate import Generated
    from ..session.result import EditResult

__all__ = ["GENERATE"]

_GUIDANCE = 7.5
"""What Stable Diffusion is usually sampled with."""


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="what the image shall show")
    parser.add_argument(
        "--negative-prompt", default="", metavar="TEXT", help="what it shall not show"
    )
    parser.add_argument(
        "--size", type=size, metavar="WxH", help="in pixels (default: the model's own)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the noise (default: %(default)s)"
    )
    parser.add_argument(
        "--drag",
        action="append",
        default=[],
        metavar="X,Y:X,Y",
        help="also drag, and write OUTPUT_dragged; repeat for more pairs",
    )
    add_mask_option(parser)
    parser.add_argument(
        "-o",
        "--output",
        default="generated.png",
        metavar="FILE",
        help="where to write (default: %(default)s)",
    )
    add_json_option(parser)
    add_method_options(parser, guidance=_GUIDANCE)
    add_model_options(parser)
    add_cache_option(parser)
    add_limit_options(parser)


def _run(parsed: Namespace) -> int:
    outputs: Outputs = parsed.outputs
    output = outputs.add("-o", parsed.output)
    dragged = output.with_stem(f"{output.stem}_dragged")
    points = None
    if parsed.drag:
        points = points_of(parsed.drag)
        outputs.add("the dragged image's file", dragged)
    outputs.check_apart({"mask": parsed.mask} | model_inputs(parsed))
    if not isinstance(drag_settings(parsed), DiffusionSettings):
        raise ConfigError(
            f"the method {parsed.method!r} edits no picture of a prompt; leave --method out, or "
            "drag the picture that is made: dragnoise edit PICTURE --method " + parsed.method
        )
    limits = limits_of(parsed)
    if parsed.size is not None:
        limits.check_edit(parsed.size[1], parsed.size[0])

    editor = load_editor(parsed)
    from ..pipelines.generate import picture_size

    height, width = picture_size(editor.model, parsed.size, limits)
    check_room(output.suffix, width, height)
    mask = mask_of(parsed.mask, width, height)
    if points is not None:
        points.check_inside(width, height)
    with progress_bar() as progress:
        generated = editor.generate(
            parsed.prompt,
            negative_prompt=parsed.negative_prompt,
            size=(height, width),
            seed=parsed.seed,
            config=drag_settings(parsed, editor.defaults),
            progress=progress,
        )
        edit = None
        if points is not None:
            edit = editor.edit(
                generated, points, mask=mask, method=parsed.method, progress=progress
            )
    written = [generated.image.save(output)]
    if edit is not None:
        written.append(edit.image.save(dragged))
    if parsed.json:
        print_json(_document(generated, edit, written))
    else:
        _print(generated, edit, written)
    return 0


def _print(generated: "Generated", edit: "EditResult | None", written: list[Path]) -> None:
    """Print seconds by stage and the files that were written."""
    seconds = (f"{stage} {ms / 1e3:.2f}" for stage, ms in generated.timings_ms.items())
    print(f"seconds: {', '.join(seconds)}")
    if edit is not None:
        print_edits([(written[-1].name, edit)])
    print("\n".join(f"wrote {path}" for path in written))


def _document(
    generated: "Generated", edit: "EditResult | None", written: list[Path]
) -> dict[str, Any]:
    """Return what `--json` prints about a generated image and its edit."""
    from ..system.timers import rounded

    document = {
        "seed": generated.seed,
        "size": [generated.image.width, generated.image.height],
        "written": [str(path) for path in written],
        "timings_ms": rounded(generated.timings_ms),
        "config": generated.config.to_dict(),
    }
    return document if edit is None else document | {"edit": edit.to_dict()}


GENERATE = Command(
    name="generate",
    summary="make an image of a prompt, and drag on it",
    description=(
        "Make an image of a prompt; with --drag also the image dragged, without inverting it."
    ),
    add_options=_add_options,
    run=_run,
)
