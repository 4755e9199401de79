"""Make the embedded model: `python -m embedded_model {train,decoder,pack,tune,accept}`.

    python -m embedded_model train --work FOLDER --seconds 5400 --final
    python -m embedded_model decoder --work FOLDER --seconds 600
    python -m embedded_model pack --work FOLDER --out engine/diffusion/embedded
    python -m embedded_model accept --each 8 --out sheet.png

`train` draws its data into the work folder, continues from the checkpoint there, and can be
interrupted. OMP_NUM_THREADS sets the threads.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dragnoise.bench.world.kinds import KINDS
from dragnoise.engine import Editor
from dragnoise.engine.diffusion.load import EMBEDDED

from . import accept, autoencoder, networks, pack, samples, shards, train


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _train(options: argparse.Namespace) -> None:
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    paths = {number: work / f"shard-{number:03d}.npz" for number in range(options.shards)}
    missing = {number: path for number, path in paths.items() if not path.exists()}
    if missing:
        vae = networks.read_vae(options.start).to(device)
        for path in shards.make_shards(list(missing.values()), vae, list(missing)):
            _print(f"drew {path}")
    trainer = train.Trainer(work, options.start, device)
    budget = train.Budget(
        options.seconds, options.rate, options.pairs, options.final, options.batch
    )
    trainer.run(shards.read_shards(work), budget, _print)


def _decoder(options: argparse.Namespace) -> None:
    vae = networks.read_vae(options.start)
    autoencoder.finetune_decoder(vae, options.seconds, _print)
    autoencoder.save_vae(vae, options.work)


def _pack(options: argparse.Namespace) -> None:
    trained = (options.work / "vae").exists()
    vae = networks.read_vae(options.work if trained else EMBEDDED)
    total = pack.pack(options.work, vae, options.out, is_open=options.open)
    samples.write_samples(options.out / "samples", samples.demo_drags())
    _print(f"{options.out}: {total} bytes and the samples")


def _tune(options: argparse.Namespace) -> None:
    editor = Editor.from_pretrained(options.model)
    sweep = itertools.product((0.2, 0.4, 0.8), (0.02, 0.1), (0, 10))
    configs = [editor.defaults.replace(lr=lr, lam=lam, end_step=end) for lr, lam, end in sweep]
    best = accept.tune(editor, options.each, configs, _print)
    names = ("lr", "lam", "end_step", "iterations")
    _print(json.dumps({name: getattr(best, name) for name in names}))


def _accept(options: argparse.Namespace) -> None:
    editor = Editor.from_pretrained(options.model)
    if options.closed:
        networks.close_deep_skips(editor.model.unet.network)
    rows, trials = accept.accept(editor, options.each, report=_print, kinds=options.kinds)
    if options.out is not None:
        accept.sheet(trials).save(options.out)
    _print(accept.table(rows))
    _print(json.dumps(accept.verdict(rows)))


@dataclass(frozen=True)
class _Command:
    """A command of the tool: what runs it, its help, and its options with their settings."""

    run: Callable[[argparse.Namespace], None]
    help: str
    options: Mapping[str, Mapping[str, Any]]


_WORK = {"type": Path, "required": True, "metavar": "FOLDER", "help": "data and checkpoints"}
_SECONDS = {"type": float, "required": True}
_START = {
    "dest": "start",
    "type": Path,
    "default": EMBEDDED,
    "metavar": "MODEL",
    "help": "warm start (default: the embedded model)",
}
_MODEL = {"nargs": "?", "type": Path, "default": EMBEDDED, "metavar": "MODEL"}
_COMMANDS = {
    "train": _Command(
        _train,
        "train for a time, from the last checkpoint on",
        {
            "--seconds": _SECONDS,
            "--device": {"default": "auto", "help": "auto, cpu, cuda (default: %(default)s)"},
            "--shards": {
                "type": int,
                "default": 11,
                "help": "shards of 2000 pairs to draw where there are fewer (default: %(default)s)",
            },
            "--rate": {
                "type": float,
                "default": train.Budget(0).rate,
                "help": "AdamW's learning rate (default: %(default)s)",
            },
            "--batch": {
                "type": int,
                "default": train.Budget(0).batch,
                "help": "samples an update (default: %(default)s)",
            },
            "--pairs": {
                "type": float,
                "default": train.Budget(0).pairs,
                "help": "share of pair samples (default: %(default)s)",
            },
            "--final": {
                "action": "store_true",
                "help": "the last run: the rate decays to 5 %%",
            },
            "--from": _START,
            "--work": _WORK,
        },
    ),
    "decoder": _Command(
        _decoder,
        "teach the VAE's decoder this world; the result is used by `pack`",
        {"--seconds": _SECONDS, "--from": _START, "--work": _WORK},
    ),
    "pack": _Command(
        _pack,
        "write the model folder, with the demo's samples",
        {
            "--out": {"type": Path, "required": True, "metavar": "FOLDER"},
            "--open": {"action": "store_true", "help": "leave the deep skips open"},
            "--work": _WORK,
        },
    ),
    "tune": _Command(
        _tune,
        "sweep the drag's settings on drags that `accept` does not use",
        {
            "model": _MODEL,
            "--each": {"type": int, "default": 2, "metavar": "N", "help": "of a kind (default: 2)"},
        },
    ),
    "accept": _Command(
        _accept,
        "judge the model on held-out drags; the last line is one JSON document",
        {
            "model": _MODEL,
            "--each": {"type": int, "default": 8, "metavar": "N", "help": "of a kind (default: 8)"},
            "--kinds": {
                "nargs": "+",
                "default": tuple(KINDS),
                "choices": KINDS,
                "metavar": "KIND",
                "help": "(default: all)",
            },
            "--closed": {"action": "store_true", "help": "close the deep skips"},
            "--out": {
                "type": Path,
                "metavar": "SHEET.png",
                "help": "write a picture of every edit",
            },
        },
    ),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m embedded_model", description="Train, pack and judge the embedded model."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in _COMMANDS.items():
        subparser = commands.add_parser(name, help=command.help)
        for option, settings in command.options.items():
            subparser.add_argument(option, **settings)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command."""
    options = _parser().parse_args(arguments)
    _COMMANDS[options.command].run(options)


if __name__ == "__main__":
    main()
