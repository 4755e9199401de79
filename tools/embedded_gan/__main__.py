"""Make the embedded generator: `python -m embedded_gan {train,teach,pack,tune,accept}`.

On a machine with a GPU and nothing installed but PyTorch, NumPy, Pillow, safetensors and
lazy-loader, from the root of a checkout (in all, drawing included; seven files in $OUT, each below
16 MiB, 30 MB together; on an H100 70,000 pictures in 35 s, which is far too few):

    mkdir -p /tmp/view/dragnoise && ln -sfn $PWD/engine /tmp/view/dragnoise/engine && \
    PYTHONPATH=/tmp/view:tools python3 -m embedded_gan train --out $OUT --work /tmp/gan \
        --device cuda --seconds 200

It ends by itself within those seconds. A later run goes on from the first one's files where
`--from FOLDER` is added, a copy of its $OUT. On a CPU:

    PYTHONPATH=tools .venv/bin/python -m embedded_gan train --out FOLDER --work FOLDER/work \
        --device cpu --seconds 14400 --pictures 20000 --batch 16 --resume

The training runs in a child process. Where that fails, another one goes on from what was last
written, without CUDA graphs, for the time that is left.
"""

import argparse
import itertools
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

ATTEMPTS = 4
SHORTEST = 15.0
"""Seconds below which it is not worth while to start again."""
GRACE = 20.0
"""Seconds after the deadline when a child that has not ended is ended."""


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _train(options: argparse.Namespace) -> int:
    """Draw the pictures, then train in child processes until the time is up."""
    from . import pictures

    deadline = time.time() + options.seconds
    options.out.mkdir(parents=True, exist_ok=True)
    begun = time.time()
    kinds = tuple(options.kinds.split(","))
    files = pictures.draw_files(
        options.work, kinds, options.pictures, options.drawing, options.workers
    )
    count = len(files) * pictures.CHUNK
    _print(f"{count} pictures of {options.kinds} in {time.time() - begun:.1f} s")
    for attempt in range(ATTEMPTS):
        if (code := _attempt(options, deadline, attempt)) == 0:
            return 0
        _print(f"attempt {attempt + 1} ended with {code}")
        if deadline - time.time() < SHORTEST:
            return code
    return code


def _attempt(options: argparse.Namespace, deadline: float, attempt: int) -> int:
    """Run the training in a child process; return how it ended."""
    given = {"--out": options.out, "--device": options.device, "--dtype": options.dtype}
    given |= {"--work": options.work, "--deadline": deadline, "--seed": options.seed + attempt}
    given |= {f"--{name}": getattr(options, name) for name in ("channels", *_numbers())}
    command = [sys.executable, "-m", "embedded_gan", "run"]
    command += [part for name, value in given.items() for part in (name, str(value))]
    if options.start is not None:
        command += ["--from", str(options.start)]
    if options.resume or attempt:
        command += ["--resume"]
    if options.eager or attempt:
        command += ["--eager"]
    child = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
    try:
        return child.wait(timeout=max(1.0, deadline + GRACE - time.time()))
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def _run(options: argparse.Namespace) -> int:
    """Train until the deadline, in this process."""
    import numpy as np
    import torch

    from . import output, train
    from .recipe import Recipe

    stopped = list[int]()
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    torch.manual_seed(options.seed)
    channels = tuple(int(count) for count in options.channels.split(","))
    recipe = Recipe(channels, **{name: getattr(options, name) for name in _numbers()})
    data = torch.cat(
        [
            train.reduced(torch.from_numpy(np.load(path)).to(device), recipe.architecture.size)
            for path in sorted(options.work.glob("*.npy"))
        ]
    )
    dtype = getattr(torch, options.dtype or ("bfloat16" if on_gpu else "float32"))
    trainer = train.Trainer(recipe, data, dtype, recorded=on_gpu and not options.eager)
    for folder in (options.out if options.resume else None, options.start):
        if folder is not None and output.resume(folder, trainer):
            _print(f"goes on from {folder}: {trainer.seen} pictures seen")
            break
    begun = last = wrote = time.time()
    saving, first, every = 4.0, trainer.seen, 8.0
    while time.time() + 1.5 * saving + 1 < options.deadline and not stopped:
        values = trainer.update()
        if trainer.updates % 16 == 0:  # waits for the device, so that the clock is right
            means = values.tolist()
            now = time.time()
            if not all(math.isfinite(value) for value in means):
                raise FloatingPointError(f"the losses are {means} after {trainer.updates} updates")
            if now - last > 2:
                last = now
                names = ("judge", "make", "real", "false")
                entry = {"seconds": round(now - begun, 1), "updates": trainer.updates}
                entry |= {"seen": trainer.seen}
                entry |= {"per_second": round((trainer.seen - first) / (now - begun))}
                entry |= {name: round(v, 3) for name, v in zip(names, means, strict=True)}
                _print(output.log(options.out, entry))
            if now - wrote > every:
                output.write(options.out, trainer)
                wrote = time.time()
                saving = max(saving, wrote - now)
                every = max(20.0, 20 * saving)
    output.write(options.out, trainer)
    _print(f"{trainer.seen} pictures seen; wrote {options.out}")
    return 0


def _teach(options: argparse.Namespace) -> int:
    """Teach a generator to draw scenes, on a CPU, without an adversary."""
    import torch

    from . import school, teach

    torch.manual_seed(options.seed)
    names = ("pictures", "batch", "rate", "disturbance", "seed")
    given = {name: getattr(options, name) for name in names}
    plan = teach.Plan(**given, growth=tuple(options.growth))
    teacher = teach.Teacher(plan, getattr(torch, options.dtype))
    school.run(options.out, teacher, options.seconds, _print)
    return 0


def _pack(options: argparse.Namespace) -> int:
    """Copy a trained generator into the package, with its settings and the demo's samples."""
    from dragnoise.engine import Editor

    from . import accept, pack

    total = pack.pack(options.trained, options.out)
    editor = Editor.from_pretrained(generator=options.out)
    pack.write_card(options.out, editor.defaults_of("draggan").replace(**_given(options)))
    editor = Editor.from_pretrained(generator=options.out)
    config = editor.defaults_of("draggan")
    trials, _ = accept.judge(editor, 18, 7, config, options.truncation, _print)
    chosen = [
        min((t for t in trials if t.drag.kind == kind), key=lambda t: t.end_px + t.others_px)
        for kind in accept.KINDS
    ]
    pack.write_samples(options.out, [trial.drag for trial in chosen], options.truncation)
    _print(f"{options.out}: {total} bytes")
    return 0


def _tune(options: argparse.Namespace) -> int:
    """Compare settings on drags that `accept` does not use."""
    from dragnoise.engine import Editor

    from . import accept

    editor = Editor.from_pretrained(generator=options.generator)
    base = editor.defaults_of("draggan").replace(**_given(options))
    for rate, block in itertools.product(options.rates, options.blocks):
        config = base.replace(lr=rate, block=block)
        trials, passed = accept.judge(editor, options.drags, 5, config, options.truncation, _quiet)
        _print(f"lr {rate} block {block}: {accept.summary(trials, passed).splitlines()[-1]}")
    return 0


def _accept(options: argparse.Namespace) -> int:
    """Judge held-out drags: a table, then one JSON document."""
    from dragnoise.engine import Editor

    from . import accept

    editor = Editor.from_pretrained(generator=options.generator)
    config = editor.defaults_of("draggan").replace(**_given(options))
    trials, passed = accept.judge(editor, options.drags, 3, config, options.truncation, _print)
    if options.out is not None:
        accept.picture_of(trials).save(options.out)
    _print(accept.summary(trials, passed))
    return 0


def _quiet(text: str) -> None:
    """Report nothing."""


def _given(options: argparse.Namespace) -> dict[str, float]:
    """Return the drag's settings that were given."""
    names = ("iterations", "lr", "block", "rows", "r1", "r2")
    values = {name: getattr(options, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _add_teaching(commands: Any) -> None:
    """Add the command that teaches without an adversary."""
    teach = commands.add_parser("teach", help="teach to draw scenes by regression, on a CPU")
    teach.add_argument(
        "--out", type=Path, required=True, help="folder of the result; goes on there"
    )
    teach.add_argument("--seconds", type=float, default=math.inf, help="most of them")
    teach.add_argument("--pictures", type=int, default=120_000, help="in all (%(default)s)")
    teach.add_argument("--batch", type=int, default=8, help="(default: %(default)s)")
    teach.add_argument("--rate", type=float, default=1.6e-2, help="of Adam (%(default)s)")
    teach.add_argument("--disturbance", type=float, default=0.1, help="of styles (%(default)s)")
    teach.add_argument(
        "--growth",
        type=float,
        nargs=2,
        default=[0.6, 0.75],
        help="where 64 and 128 px begin",
    )
    teach.add_argument("--dtype", default="bfloat16", help="or float32 (default: %(default)s)")
    teach.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")


def _add_judging(commands: Any) -> None:
    """Add the commands that drag with a trained generator; they need the whole package."""
    pack = commands.add_parser("pack", help="copy a trained generator into the package")
    tune = commands.add_parser("tune", help="compare settings on drags of their own")
    accept = commands.add_parser("accept", help="judge held-out drags")
    pack.add_argument("trained", type=Path, help="the folder `generator` that `train` leaves")
    pack.add_argument("--out", type=Path, required=True, help="engine/gan/embedded")
    accept.add_argument("--out", metavar="SHEET.png", help="write a picture of every edit")
    for command in (tune, accept):
        command.add_argument("generator", nargs="?", type=Path, help="default: the embedded one")
        command.add_argument("--drags", type=int, default=20, help="(default: %(default)s)")
    tune.add_argument("--rates", type=float, nargs="+", default=[0.005, 0.02], help="of Adam")
    tune.add_argument("--blocks", type=int, nargs="+", default=[5, 6], help="resolutions")
    for command in (pack, tune, accept):
        command.add_argument("--truncation", type=float, default=0.7, help="(%(default)s)")
        command.add_argument("--lr", type=float)
        for name in ("iterations", "block", "rows", "r1", "r2"):
            command.add_argument(f"--{name}", type=int)


def _numbers() -> dict[str, type]:
    """Return the recipe's settings that are numbers, and their types."""
    from .recipe import Recipe

    return {
        entry.name: type(entry.default)
        for entry in fields(Recipe)
        if isinstance(entry.default, (int, float))
    }


def _parser() -> argparse.ArgumentParser:
    from .recipe import Recipe

    parser = argparse.ArgumentParser(
        prog="python -m embedded_gan", description="Train the embedded generator."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="draw pictures and train for a time")
    run = commands.add_parser("run", help="what `train` starts: train on a file of pictures")
    train.add_argument("--seconds", type=float, required=True, help="for all, drawing included")
    train.add_argument("--pictures", type=int, default=80_000, help="(default: %(default)s)")
    train.add_argument("--drawing", type=float, default=25, help="most seconds to draw for")
    train.add_argument("--kinds", default="land", help="air, land, sea (default: %(default)s)")
    train.add_argument("--workers", type=int, default=os.cpu_count(), help="that draw")
    run.add_argument("--deadline", type=float, required=True, help="seconds since 1970")
    for command in (train, run):
        command.add_argument("--work", type=Path, required=True, help="folder of drawn pictures")
        command.add_argument("--out", type=Path, required=True, help="folder of the result")
        command.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
        command.add_argument("--dtype", default="", help="default: bfloat16 on cuda, else float32")
        command.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
        command.add_argument("--resume", action="store_true", help="go on from what is in --out")
        command.add_argument("--from", dest="start", type=Path, help="go on from another --out")
        command.add_argument("--eager", action="store_true", help="record no CUDA graphs")
        command.add_argument(
            "--channels", default=",".join(map(str, Recipe().channels)), help="from 4 x 4 on"
        )
        for name, kind in _numbers().items():
            default = getattr(Recipe(), name)
            command.add_argument(f"--{name}", type=kind, default=default, help="(%(default)s)")
    _add_teaching(commands)
    _add_judging(commands)
    return parser


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "train": _train,
    "run": _run,
    "teach": _teach,
    "pack": _pack,
    "tune": _tune,
    "accept": _accept,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return how it ended."""
    options = _parser().parse_args(arguments)
    return _COMMANDS[options.command](options)


if __name__ == "__main__":
    sys.exit(main())
