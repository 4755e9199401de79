"""Make the embedded model: `python -m embedded_model {train,decoder,pack,tune,accept}`.

    python -m embedded_model train --work FOLDER --seconds 5400 --final
    python -m embedded_model decoder --work FOLDER --seconds 600
    python -m embedded_model pack --work FOLDER --out engine/diffusion/embedded
    python -m embedded_model accept --drags 40 --out sheet.png

`train` draws its data into the work folder, continues from the checkpoint that is there, and can be interrupted. Threads: OMP_NUM_THREADS.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from dragnoise.engine import Editor
from dragnoise.engine.diffusion.load import EMBEDDED

from . import accept, autoencoder, networks, pack, samples, shards, train


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m embedded_model", description="Train, pack and judge the embedded model."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("train", help="train for a time, from the last checkpoint on")
    sub.add_argument("--seconds", type=float, required=True)
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    sub.add_argument(
        "--shards",
        type=int,
        default=11,
        help="shards of 2000 pairs to draw where there are fewer (default: %(default)s)",
    )
    sub.add_argument(
        "--rate",
        type=float,
        default=train.Budget(0).rate,
        help="AdamW's learning rate (default: %(default)s)",
    )
    sub.add_argument(
        "--pairs",
        type=float,
        default=train.Budget(0).pairs,
        help="share of pair samples (default: %(default)s)",
    )
    sub.add_argument("--final", action="store_true", help="the last run: the rate decays to 5 %%")
    decoder = commands.add_parser(
        "decoder", help="teach the VAE's decoder this world; the result is used by `pack`"
    )
    decoder.add_argument("--seconds", type=float, required=True)
    for command in (sub, decoder):
        command.add_argument(
            "--from",
            dest="start",
            type=Path,
            default=EMBEDDED,
            metavar="MODEL",
            help="warm start (default: the embedded model)",
        )
    packing = commands.add_parser("pack", help="write the model folder, with the demo's samples")
    packing.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    for command in (sub, decoder, packing):
        command.add_argument(
            "--work", type=Path, required=True, metavar="FOLDER", help="data and checkpoints"
        )
    tuning = commands.add_parser(
        "tune", help="sweep the drag's settings on drags that `accept` does not use"
    )
    judging = commands.add_parser(
        "accept", help="judge the model on held-out drags; the last line is one JSON document"
    )
    judging.add_argument(
        "--out", type=Path, metavar="SHEET.png", help="write a picture of every edit"
    )
    for command, count in ((tuning, 10), (judging, 40)):
        command.add_argument("model", nargs="?", type=Path, default=EMBEDDED, metavar="MODEL")
        command.add_argument(
            "--drags", type=int, default=count, metavar="N", help="(default: %(default)s)"
        )
    return parser


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _train(asked: argparse.Namespace) -> None:
    asked.work.mkdir(parents=True, exist_ok=True)
    device = (
        ("cuda" if torch.cuda.is_available() else "cpu") if asked.device == "auto" else asked.device
    )
    for number in range(asked.shards):
        path = asked.work / f"shard-{number:03d}.npz"
        if not path.exists():
            _say(f"drawing {path}")
            shards.make_shard(path, networks.read_vae(asked.start), number)
    trainer = train.Trainer(asked.work, asked.start, device)
    trainer.run(
        shards.read_shards(asked.work),
        train.Budget(asked.seconds, asked.rate, asked.pairs, asked.final),
        _say,
    )


def _decoder(asked: argparse.Namespace) -> None:
    vae = networks.read_vae(asked.start)
    autoencoder.finetune_decoder(vae, asked.seconds, _say)
    autoencoder.save_vae(vae, asked.work)


def _pack(asked: argparse.Namespace) -> None:
    vae = networks.read_vae(asked.work if (asked.work / "vae").exists() else EMBEDDED)
    total = pack.pack(asked.work, vae, asked.out)
    samples.write_samples(asked.out / "samples", samples.demo_drags())
    _say(f"{asked.out}: {total} bytes and the samples")


def _tune(asked: argparse.Namespace) -> None:
    editor = Editor.from_pretrained(asked.model)
    sweep = itertools.product((0.2, 0.4, 0.8), (0.02, 0.1), (0, 10))
    best = accept.tune(
        editor,
        asked.drags,
        [editor.defaults.replace(lr=lr, lam=lam, end_step=end) for lr, lam, end in sweep],
        _say,
    )
    _say(
        json.dumps(
            {
                "lr": best.lr,
                "lam": best.lam,
                "end_step": best.end_step,
                "iterations": best.iterations,
            }
        )
    )


def _accept(asked: argparse.Namespace) -> None:
    rows, trials = accept.accept(Editor.from_pretrained(asked.model), asked.drags, report=_say)
    if asked.out is not None:
        accept.sheet(trials).save(asked.out)
    _say(accept.table(rows))
    _say(json.dumps(accept.verdict(rows)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command."""
    asked = _parser().parse_args(arguments)
    {"train": _train, "decoder": _decoder, "pack": _pack, "tune": _tune, "accept": _accept}[
        asked.command
    ](asked)


if __name__ == "__main__":
    main()
