"""`dragnoise personalise`: learn an image, so that it is edited more faithfully."""

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..config import PersonaliseConfig
from ..errors import OutputError
from ..inputs.image import Image
from ..system.files import writable
from .options import (
    add_cache_option,
    add_json_option,
    add_model_options,
    add_settings,
    given_settings,
    load_editor,
)
from .program import Command
from .show import print_json, progress_bar

__all__ = ["PERSONALISE"]

_DEFAULTS = PersonaliseConfig().to_dict()


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("image", help="PNG, JPEG, WebP, BMP or TIFF")
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


def _run(parsed: Namespace) -> int:
    output = writable(
        parsed.output or f"{Path(parsed.image).with_suffix('')}_adapter.safetensors",
        (".safetensors",),
    )
    state = None if parsed.state is None else writable(parsed.state, (".safetensors",))
    image = Image.of(parsed.image)
    config = PersonaliseConfig(**given_settings(parsed, PersonaliseConfig))

    session = load_editor(parsed).open(image, prompt=parsed.prompt)
    if state is not None and state.exists():
        session.resume_learning(state)
    losses: list[float] = []
    started = time.perf_counter()
    try:
        with progress_bar() as progress:
            adapter = session.personalise(config, progress=progress, on_loss=losses.append)
    except KeyboardInterrupt:
        if state is not None and session.save_learning(state) is not None:
            raise OutputError(f"interrupted; go on with --state {str(state)!r}") from None
        raise
    seconds = round(time.perf_counter() - started, 3)
    adapter.save(output)
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
