"""`dragnoise edit`: drag on an image."""

from argparse import ArgumentParser, Namespace

from ..inputs.image import Image, check_room
from ..system.files import Outputs
from .options import (
    add_cache_option,
    add_grip_option,
    add_json_option,
    add_limit_options,
    add_mask_option,
    add_method_options,
    add_model_options,
    beside,
    check_adapter,
    drag_settings,
    grip_of,
    limits_of,
    load_editor,
    mask_of,
    model_inputs,
    points_of,
)
from .program import Command
from .show import print_edits, print_json, progress_bar

__all__ = ["EDIT"]


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("image", help="PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF or HEIF")
    parser.add_argument(
        "--drag",
        action="append",
        required=True,
        metavar="X,Y:X,Y",
        help="handle and target in image pixels; repeat for more pairs",
    )
    add_mask_option(parser)
    add_grip_option(parser)
    for name, metavar, about in (
        ("--prompt", "TEXT", "what the image shows"),
        ("--negative-prompt", "TEXT", "what guidance draws away from"),
    ):
        parser.add_argument(name, default="", metavar=metavar, help=about)
    for name, metavar, about in (
        ("--output", "FILE", "where to write (default: IMAGE_dragged.png)"),
        ("--trajectory", "FILE.gif", "also write the drag as an animation"),
        ("--adapter", "FILE", "what `dragnoise personalise` wrote, or a LoRA of the U-Net"),
    ):
        short = ["-o"] if name == "--output" else []
        parser.add_argument(*short, name, metavar=metavar, help=about)
    parser.add_argument(
        "--adapter-scale",
        type=float,
        default=1.0,
        metavar="S",
        help="how much of the adapter (default: 1)",
    )
    add_json_option(parser)
    add_method_options(parser)
    add_model_options(parser)
    add_cache_option(parser)
    add_limit_options(parser)


def _run(parsed: Namespace) -> int:
    outputs: Outputs = parsed.outputs
    usual = beside(parsed.image, "_dragged.png")
    output = outputs.add("-o", usual if parsed.output is None else parsed.output)
    gif = None
    if parsed.trajectory is not None:
        gif = outputs.add("--trajectory", parsed.trajectory, (".gif",))
    inputs = {name: getattr(parsed, name) for name in ("image", "mask", "grip", "adapter")}
    outputs.check_apart(inputs | model_inputs(parsed))
    check_adapter(parsed.adapter)
    limits = limits_of(parsed)
    image = Image.of(parsed.image, limits)
    limits.check_edit(image.width, image.height)
    check_room(output.suffix, image.width, image.height)
    points = points_of(parsed.drag)
    points.check_inside(image.width, image.height)
    mask = mask_of(parsed.mask, image.width, image.height)
    grip = grip_of(parsed, image.width, image.height)
    drag_settings(parsed)

    editor = load_editor(parsed)
    from .animation import DragAnimation

    animation = None if gif is None else DragAnimation()
    with progress_bar() as progress:
        result = editor.edit(
            image,
            points,
            mask=mask,
            grip=grip,
            prompt=parsed.prompt,
            negative_prompt=parsed.negative_prompt,
            config=drag_settings(parsed, editor.defaults_of(parsed.method)),
            adapter=parsed.adapter,
            adapter_scale=parsed.adapter_scale,
            method=parsed.method,
            record=animation is not None,
            progress=progress,
            on_iteration=animation,
        )
    written = [result.image.save(output)]
    if gif is not None and animation is not None:
        written.append(animation.save(gif, editor, image, result))
    if parsed.json:
        print_json(result.to_dict() | {"written": [str(path) for path in written]})
    else:
        print_edits([(output.name, result)])
        print("\n".join(f"wrote {path}" for path in written))
    return 0


EDIT = Command(
    name="edit",
    summary="drag on an image",
    description="Drag what is under each handle to its target and write the edited image.",
    add_options=_add_options,
    run=_run,
)
