"""`dragnoise personalise`: learn an image, so that it is edited more faithfully."""

import tempfile
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import PersonaliseConfig
from ..errors import OutputError
from ..inputs.image import Image
from ..system.files import Outputs
from ..system.incoming import told_as
from .options import (
    add_cache_option,
    add_json_option,
    add_limit_options,
    add_model_options,
    add_settings,
    beside,
    given_settings,
    limits_of,
    load_editor,
    model_inputs,
)
from .program import Command
from .show import print_json, progress_bar

if TYPE_CHECKING:
    from ..diffusion.lora.adapter import Adapter
    from ..session.session import Session

__all__ = ["PERSONALISE"]

_ADAPTERS = (".safetensors",)
_DEFAULTS = PersonaliseConfig().to_dict()


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("image", help="PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF or HEIF")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what the image shows")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="where to write (default: IMAGE_adapter.safetensors)"
    )
    parser.add_argument(
        "--state", metavar="FILE", help="where an interrupted training is kept, to go on with it"
    )
    add_json_option(parser)
    add_settings(parser, "settings", PersonaliseConfig, **_DEFAULTS)
    add_model_options(parser)
    add_cache_option(parser)
    add_limit_options(parser)


def _run(parsed: Namespace) -> int:
    outputs: Outputs = parsed.outputs
    usual = beside(parsed.image, "_adapter.safetensors")
    output = outputs.add("-o", usual if parsed.output is None else parsed.output, _ADAPTERS)
    state = None if parsed.state is None else outputs.add("--state", parsed.state, _ADAPTERS)
    outputs.check_apart({"image": parsed.image} | model_inputs(parsed))
    limits = limits_of(parsed)
    image = Image.of(parsed.image, limits)
    limits.check_edit(image.width, image.height)
    config = PersonaliseConfig(**given_settings(parsed, PersonaliseConfig))

    session = load_editor(parsed).open(image, prompt=parsed.prompt)
    if state is not None and state.exists():
        session.resume_learning(state)
    losses: list[float] = []
    started = time.perf_counter()
    try:
        with progress_bar() as progress:
            adapter = session.personalise(config, progress=progress, on_loss=losses.append)
    except (KeyboardInterrupt, MemoryError, RuntimeError) as cut_short:
        if state is not None:
            cut_short.add_note(_kept(session, state))
        raise
    seconds = round(time.perf_counter() - started, 3)
    _save(adapter, output)
    if state is not None:
        state.unlink(missing_ok=True)
    if parsed.json:
        print_json(
            {
                "written": [str(output)],
                "seconds": seconds,
                "rank": adapter.rank,
                "settings": config.to_dict(),
                "losses": losses,
            }
        )
    else:
        print(f"{len(losses)} steps in {seconds} s\nwrote {output}")
    return 0


def _kept(session: "Session", state: Path) -> str:
    """Keep what a training has learned that was cut short; return what to say of it."""
    if session.save_learning(state) is None:
        return "no step was done and nothing was written"
    return f"go on with --state {str(state)!r}"


def _save(adapter: "Adapter", output: Path) -> None:
    """Write what was learned; where that is refused by now, into the temporary folder.

    Raises:
        OutputError: It lies elsewhere, and where.
    """
    try:
        adapter.save(output)
    except KeyboardInterrupt:
        adapter.save(output)  # minutes of learning are not lost for want of this moment
        raise
    except OutputError as refused:
        with told_as(OutputError, f"{refused}; nor could it be written elsewhere"):
            elsewhere = adapter.save(Path(tempfile.mkdtemp(prefix="dragnoise-")) / output.name)
        raise OutputError(
            f"{refused}; what was learned lies in {str(elsewhere)!r} instead: move it where you "
            "want it"
        ) from refused


PERSONALISE = Command(
    name="personalise",
    summary="learn an image",
    description=(
        "Learn an image (LoRA), so that it is edited more faithfully; "
        "write an adapter for `edit --adapter`."
    ),
    add_options=_add_options,
    run=_run,
)
