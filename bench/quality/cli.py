"""`python -m dragnoise.bench quality`: every way to drag, judged where the result is known."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragnoise.engine.cli.options import set_threads
from dragnoise.engine.cli.show import print_json
from dragnoise.engine.errors import ConfigError
from dragnoise.engine.system.files import writable_folder

if TYPE_CHECKING:
    from ..jobs import Ledger
    from .contestants import Studio

__all__ = ["add_options", "run"]


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--methods", metavar="NAME,...", help="who edits (default: all but baseline)"
    )
    parser.add_argument(
        "--against",
        metavar="NAME,...",
        help="whom all others are compared with, drag by drag (default: dragnoise,warp)",
    )
    parser.add_argument("--kinds", metavar="NAME,...", help="kinds of drag (default: all)")
    parser.add_argument(
        "--each", type=int, default=8, metavar="N", help="drags of a kind (default: %(default)s)"
    )
    parser.add_argument(
        "--lot",
        default="judging",
        choices=("judging", "tuning"),
        help="whose drags; settings are tuned on the other (default: %(default)s)",
    )
    parser.add_argument(
        "--model", default="embedded", help="embedded, or a diffusers folder that knows the scenes"
    )
    parser.add_argument(
        "--steps", type=int, default=10, help="of the schedule (default: %(default)s)"
    )
    parser.add_argument(
        "--settings", metavar="NAME=VALUE,...", help="of the methods that have them"
    )
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="only the I-th of N parts")
    parser.add_argument("--resume", action="store_true", help="leave out what is done, and go on")
    parser.add_argument(
        "--out",
        default="quality",
        metavar="FOLDER",
        help="where pictures, scores and the report lie (default: %(default)s)",
    )
    parser.add_argument(
        "--docs", action="store_true", help="write docs/quality.md and its pictures from FOLDER"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")


def run(parsed: Namespace) -> int:
    """Edit, score, report and return the exit code. Raises ConfigError, ModelError, OutputError."""
    from ..jobs import Ledger, Shard, run_jobs
    from ..world.kinds import KINDS
    from .contestants import CONTESTANTS
    from .run import jobs_of, names_of, worker
    from .table import AGAINST

    folder = Path(parsed.out)
    shard = Shard.of(parsed.shard)
    usual = [name for name, contestant in CONTESTANTS.items() if contestant.usual]
    contestants = _chosen("contestant", parsed.methods, usual, CONTESTANTS)
    against = _chosen("contestant", parsed.against, AGAINST, CONTESTANTS)
    kinds = _chosen("kind", parsed.kinds, list(KINDS), KINDS)
    names = names_of(parsed.lot, kinds, parsed.each)
    writable_folder(folder)
    set_threads(parsed.threads)
    studio = _studio(parsed)
    ledger = Ledger(folder, _about(parsed, studio), shard)
    jobs = jobs_of(shard.take(names), contestants)
    work = worker(studio, folder / "pictures")
    run_jobs(jobs, work, ledger, resume=parsed.resume, watch=_watch)
    _report(parsed, folder, ledger, against)
    return 0


def _report(parsed: Namespace, folder: Path, ledger: "Ledger", against: Sequence[str]) -> None:
    """Show and write what all shards have found until now."""
    from dragnoise.engine.system.device import choose_device

    from ..report.machine import machine
    from . import report
    from .contestants import CONTESTANTS
    from .run import by_drag

    summaries = {name: contestant.summary for name, contestant in CONTESTANTS.items()}
    drags = by_drag(ledger.done())
    document = {
        "bench": "quality",
        **ledger.about,
        "machine": machine(choose_device(parsed.device)),
        "contestants": summaries,
        "drags": drags,
    }
    print(report.show_table(document, against))
    written = report.write_all(document, folder, against)
    if parsed.docs:
        written += report.write_docs(document, folder)
    for path in written:
        print(f"wrote {path}", file=sys.stderr)
    print_json(document)


def _watch(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _chosen(
    what: str, text: str | None, usual: Sequence[str], known: Collection[str]
) -> Sequence[str]:
    """Return the names of "NAME,...", each once. Raises ConfigError for one that is not known."""
    if text is None:
        return usual
    for name in (names := list(dict.fromkeys(text.split(",")))):
        if name not in known:
            raise ConfigError(f"there is no {what} {name!r}; use {', '.join(known)}")
    return names


def _studio(parsed: Namespace) -> "Studio":
    from dragnoise.engine import Editor

    from .contestants import ENGINE, Studio

    editor = (
        Editor.from_pretrained(device=parsed.device)
        if parsed.model == "embedded"
        else Editor.from_pretrained(parsed.model, device=parsed.device)
    )
    return Studio(editor, parsed.steps, _settings(parsed.settings, ENGINE))


def _settings(text: str | None, methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the changes by method; each goes to the methods that have such a setting.

    Raises:
        ConfigError: No method has one, or its value is out of range.
    """
    from dragnoise.engine.methods import METHODS

    from ..jobs.settings import settings_of

    changes: dict[str, dict[str, Any]] = {method: {} for method in methods}
    for part in filter(None, (text or "").split(",")):
        name = part.partition("=")[0]
        having = [
            method for method in methods if name in METHODS[method].settings.__dataclass_fields__
        ] or list(methods[:1])
        for method in having:
            changes[method] |= settings_of(method, part)
    return changes


def _about(parsed: Namespace, studio: "Studio") -> dict[str, Any]:
    """Return what the scores depend on beside the jobs' names."""
    from .contestants import BY_PRESET, ENGINE

    return {
        "model": Path(parsed.model).name,
        "digest": studio.editor.model.digest,
        "size": "128x128",
        "dtype": str(studio.editor.model.dtype).removeprefix("torch."),
        "lot": parsed.lot,
        "steps": parsed.steps,
        "settings": {name: studio.config(name).to_dict() for name in (*ENGINE, *BY_PRESET)},
    }
