"""`python -m dragnoise.bench replacement`: which block of the U-Net holds what, and from when on.

Prints tables; the last line of stdout is one JSON document, which `record` describes.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragnoise.engine.cli.options import set_threads, size
from dragnoise.engine.cli.show import print_json
from dragnoise.engine.config import DragConfig
from dragnoise.engine.errors import ConfigError
from dragnoise.engine.system.files import writable_folder

if TYPE_CHECKING:
    from .study import Study
    from .subjects import Subject

__all__ = ["add_options", "run"]

_CONTROLS = ("other", "zeros")
_COLUMNS = 10


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--model",
        default="embedded",
        help="embedded, golden, sd15, sd21 or a diffusers folder (default: %(default)s)",
    )
    parser.add_argument(
        "--picture",
        action="append",
        metavar="PATH",
        help="may be repeated (default: the embedded model's samples)",
    )
    parser.add_argument(
        "--samples", metavar="NAME,...", help="only these of the embedded model's (default: all)"
    )
    parser.add_argument(
        "--prompt", metavar="TEXT", help='of all pictures (default: "", the samples\' own)'
    )
    parser.add_argument(
        "--size",
        type=size,
        metavar="WxH",
        help="of the pictures (default: as they are; samples: what the model was trained for)",
    )
    parser.add_argument(
        "--steps", type=int, default=10, help="of the whole schedule (default: %(default)s)"
    )
    parser.add_argument(
        "--strength",
        type=float,
        default=1.0,
        metavar="X",
        help="share of the steps that is inverted and denoised (default: %(default)s)",
    )
    parser.add_argument(
        "--starts",
        metavar="N,...",
        help=f"steps to hold from, 0 the noisiest (default: about {_COLUMNS} of them)",
    )
    parser.add_argument(
        "--controls",
        default=",".join(_CONTROLS),
        metavar="NAME,...",
        help='what else is held: another picture\'s features, zeros; "" for neither '
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help="write the heat map, and grids of the first picture"
    )
    parser.add_argument("--keep", action="store_true", help="write the record under bench/results")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    parser.add_argument(
        "--dtype",
        default="float32",
        help="float32, bfloat16 or, on CUDA, float16",
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")


def run(parsed: Namespace) -> int:
    """Observe, print and return the exit code. Raises DragnoiseError."""
    from ..report.record import show
    from .table import map_tables, summary_table

    out = None if parsed.out is None else writable_folder(parsed.out)
    settings = DragConfig(steps=parsed.steps, strength=parsed.strength)
    starts = _starts(parsed.starts, settings.active_steps)
    study, document = _study(parsed, settings, starts)
    for path in _written(parsed, study, document, out):
        print(f"wrote {path}", file=sys.stderr)
    title = f"replacement: {document['model']} {document['size']}, distances in levels of 255"
    for table in (summary_table(document), *map_tables(document)):
        show(title, table)
    print_json(document)
    return 0


def _study(
    parsed: Namespace, settings: DragConfig, starts: Sequence[int]
) -> tuple["Study", dict[str, Any]]:
    """Return what was observed, and the record of it."""
    from dragnoise.engine.system.numerics import own_numerics

    from ..measure.models import model
    from ..report.machine import machine
    from .study import study
    from .subjects import of_one_size

    set_threads(parsed.threads)
    subjects = _chosen(parsed)
    sources = _sources(parsed.controls, len(subjects))
    with own_numerics():
        loaded = model(parsed.model, parsed.device, parsed.dtype)
        side = int(loaded.unet.config["sample_size"]) * loaded.factor
        of_samples = None if parsed.picture else (side, side)
        subjects = of_one_size(subjects, parsed.size or of_samples)
        found = study(loaded, subjects, settings, starts, sources, watch=_watch)
    image = subjects[0].image
    about = {
        "bench": "replacement",
        "model": Path(parsed.model).name,
        "digest": loaded.digest,
        "variant": f"{settings.steps}-steps",
        "size": f"{image.width}x{image.height}",
        "dtype": parsed.dtype,
        "machine": machine(loaded.device),
    }
    return found, about | found.document()


def _chosen(parsed: Namespace) -> list["Subject"]:
    """Return the pictures that were asked for, as they are."""
    from .subjects import given, known

    if parsed.picture and parsed.samples:
        raise ConfigError("--picture and --samples are two choices of pictures; give one")
    if parsed.picture:
        return given(parsed.picture, parsed.prompt)
    return known(parsed.samples, parsed.prompt)


def _sources(controls: str, pictures: int) -> list[str]:
    """Return the names of what is held. Raises ConfigError for a control that there is not."""
    names = [name for name in controls.split(",") if name]
    if unknown := [name for name in names if name not in _CONTROLS]:
        raise ConfigError(f"there is no control {unknown[0]!r}; use {', '.join(_CONTROLS)}")
    if "other" in names and pictures < 2:
        raise ConfigError(
            f"another picture's features need two pictures, got {pictures}; "
            "give one more, or --controls zeros"
        )
    return ["own", *dict.fromkeys(names)]


def _starts(wanted: str | None, active: int) -> list[int]:
    """Return the steps to hold from. Raises ConfigError for one that is not denoised."""
    if wanted is None:
        return list(range(0, active, max(1, active // _COLUMNS)))
    words = wanted.split(",")
    if wrong := [word for word in words if not word.isdecimal() or int(word) >= active]:
        raise ConfigError(
            f"{wrong[0]!r} is no step to hold from; "
            f"the {active} that are denoised are 0 to {active - 1}"
        )
    return sorted({int(word) for word in words})


def _written(
    parsed: Namespace, study: "Study", document: dict[str, Any], out: Path | None
) -> Iterator[Path]:
    """Write what was asked for, and yield the files."""
    if parsed.keep:
        from dragnoise.engine.system.device import choose_device

        from ..report import record
        from ..report.machine import device_slug

        slug = device_slug(choose_device(parsed.device))
        yield record.keep(document, slug, record.RESULTS, indent=None)
    if out is not None:
        from .draw import draw_grids, draw_heat

        out.mkdir(parents=True, exist_ok=True)
        stem = out / f"replacement-{document['variant']}"
        yield draw_heat(document, Path(f"{stem}-heat.png"))
        yield from draw_grids(study, stem)


def _watch(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)
