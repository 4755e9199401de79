"""`python -m dragnoise.bench dragbench`: edit DragBench's samples and judge what became of them.

Prints a table; the last line of stdout is one JSON document.
"""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dragnoise.engine.cli.options import DIFFUSION_METHODS, add_model_options
from dragnoise.engine.cli.show import print_json
from dragnoise.engine.config import whole
from dragnoise.engine.errors import ConfigError, DragnoiseError
from dragnoise.engine.system.files import writable_folder

from ..jobs.ledger import Ledger
from ..jobs.run import run_jobs
from ..jobs.settings import settings_of
from ..jobs.shards import WHOLE, Shard
from .asked import EMBEDDED, Asked, Judging, about
from .judge import EDITED, UNEDITED, Judge
from .samples import convert, names_of, write_order

__all__ = ["add_options", "run"]

Results = dict[str, dict[str, Any]]


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("root", metavar="ROOT", help="the folder that DragBench.zip unpacks to")
    parser.add_argument(
        "--method",
        default="dragnoise",
        choices=DIFFUSION_METHODS,
        metavar="NAME",
        help=f"how to drag: {', '.join(DIFFUSION_METHODS)} (default: %(default)s)",
    )
    for name, metavar, what in (
        ("--settings", "K=V,...", "of the method (default: the model's own)"),
        ("--dift", "MODEL", "folder whose features find the points (SD 2.1); none: no distances"),
        ("--lpips", "FILE", "LPIPS's weights; none: no image fidelity"),
        ("--lpips-sha256", "HEX", "what the digest of these weights must be"),
        ("--shard", "I/N", "edit only the I-th of N shares, beside others in the same --out"),
        ("--convert", "FOLDER", "only write the samples there as JSON and PNG, without pickles"),
    ):
        parser.add_argument(name, metavar=metavar, help=what)
    for name, usual, what in (
        ("--personalise", 0, "steps of learning each picture first (published: 200)"),
        ("--limit", None, "only the first N samples"),
        ("--workers", None, "so many processes, by Ray; RAY_ADDRESS names a cluster"),
    ):
        parser.add_argument(name, type=int, default=usual, metavar="N", help=what)
    parser.add_argument(
        "--out",
        default="dragbench",
        metavar="FOLDER",
        help="what is made lies there (default: %(default)s)",
    )
    parser.add_argument("--resume", action="store_true", help="go on where a run was cut off")
    parser.add_argument(
        "--exact",
        action="store_true",
        help="also judge all pictures in the published order, from one stream of random numbers",
    )
    add_model_options(parser)


def run(parsed: Namespace) -> int:
    """Do what the arguments ask for; return 1 if a sample failed."""
    root = Path(parsed.root)
    if parsed.convert is not None:
        return _convert(root, writable_folder(parsed.convert))
    asked = _asked(parsed)
    shard = WHOLE if parsed.shard is None else Shard.of(parsed.shard)
    _check(parsed)
    names = names_of(root)
    from ..report.machine import commit

    ledger = Ledger(asked.out, about(asked, names), shard, commit())
    chosen = shard.take(names[: parsed.limit])
    from .measures import make_judge
    from .report import write_report  # now: what it needs may not be installed

    _edit(parsed, asked, chosen, ledger, make_judge)
    done = ledger.done()
    results = {name: done[name] for name in names if name in done}
    if parsed.exact:
        _add_exact(asked, make_judge, ledger, results)
    document, cells = write_report(asked, ledger.about, results, len(names))
    return _shown(asked, document, cells)


def _asked(parsed: Namespace) -> Asked:
    """Return the run that the arguments ask for."""
    options = {name: value for name, value in vars(parsed).items() if name != "outputs"}
    editor = Namespace(**options | {"no_check": True})
    editor.model = None if parsed.model == EMBEDDED else parsed.model
    if parsed.workers is not None and parsed.threads is None:
        editor.threads = max(1, (os.cpu_count() or 1) // max(parsed.workers, 1))
    return Asked(
        root=Path(parsed.root).absolute(),
        out=writable_folder(parsed.out).absolute(),
        method=parsed.method,
        settings=settings_of(parsed.method, parsed.settings),
        personalise=whole("--personalise", parsed.personalise, 0),
        judging=Judging(parsed.dift, parsed.lpips, parsed.lpips_sha256, parsed.device),
        editor=editor,
    )


def _check(parsed: Namespace) -> None:
    """Raise ConfigError for what does not go together, before minutes of work."""
    if parsed.limit is not None:
        whole("--limit", parsed.limit, 1)
    if not parsed.exact:
        return
    if parsed.dift is None:
        raise ConfigError("--exact is about the distances by --dift; name its model, too")
    if parsed.shard is not None or parsed.limit is not None:
        raise ConfigError(
            "--exact takes all pictures in order, no share of them; run the shards without it, "
            "then all with --resume --exact"
        )


def _edit(
    parsed: Namespace,
    asked: Asked,
    names: list[str],
    ledger: Ledger,
    make_judge: Callable[[Asked], Judge],
) -> None:
    """Edit and judge the samples that are not done yet, here or on Ray's workers."""
    from .edits import make_work

    make = partial(make_work, asked, make_judge)
    if parsed.workers is not None:
        from ..jobs.ray import run_on_ray

        gpus = 0 if parsed.device == "cpu" else _gpus(parsed.workers)
        run_on_ray(names, make, ledger, parsed.workers, resume=parsed.resume, gpus=gpus, watch=_say)
        return
    loaded: list[Callable[[str], dict[str, Any]]] = []

    def work(name: str) -> dict[str, Any]:
        if not loaded:
            loaded.append(make())
        return loaded[0](name)

    run_jobs(names, work, ledger, resume=parsed.resume, watch=_say)


def _gpus(workers: int) -> float:
    """Return each worker's share of this machine's GPUs; of a cluster's, one each."""
    import torch

    if os.environ.get("RAY_ADDRESS"):
        return 1
    return min(1.0, torch.cuda.device_count() / workers)


def _add_exact(
    asked: Asked, make_judge: Callable[[Asked], Judge], ledger: Ledger, results: Results
) -> None:
    from .exact import exact_distances

    for name, distances in exact_distances(asked, make_judge, ledger, _say).items():
        for whose in (EDITED, UNEDITED):
            results[name][whose]["exact_px"] = distances[whose]


def _shown(asked: Asked, document: dict[str, Any], cells: list[list[str]]) -> int:
    """Show the table, say what failed, print the record; return 1 if a sample failed."""
    from ..report.record import show

    samples = document["samples"]
    show(f"DragBench: {asked.method}, {samples['done']} of {samples['all']} samples", cells)
    for name, reason in samples["failed"].items():
        _say(f"{name} failed: {reason}")
    print_json(document)
    return 1 if samples["failed"] else 0


def _convert(root: Path, folder: Path) -> int:
    """Write all samples without pickles; return 1 if one cannot be read."""
    names = names_of(root)
    failed: dict[str, str] = {}
    for name in names:
        try:
            convert(root, name, folder)
        except DragnoiseError as wrong:
            failed[name] = str(wrong)
            _say(str(wrong))
    write_order(root, folder)
    print_json({"written": str(folder), "samples": len(names) - len(failed), "failed": failed})
    return 1 if failed else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
