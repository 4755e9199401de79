"""The steps of a campaign, in order of worth: what each asks, and the command that answers it."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

__all__ = ["STEPS", "Asked", "Step"]


@dataclass(frozen=True)
class Asked:
    """What a campaign runs on.

    Attributes:
        device: "cuda" or "cpu".
        quick: whether everything is small, to see that the commands are well formed.
        records: where the bench keeps its records.
    """

    device: str
    quick: bool
    records: Path

    @property
    def graphs(self) -> str:
        """The row of the waterfall that stands for what an editor does by itself."""
        return "graphs" if self.device == "cuda" else "packed"


Arguments: TypeAlias = Sequence[str | Path]


@dataclass(frozen=True)
class Step:
    """One question to the machine.

    Attributes:
        name: of the step.
        question: what it answers.
        limit_s: how long it may take.
        arguments: of the Python interpreter.
        devices: the device types that it can be asked on.
    """

    name: str
    question: str
    limit_s: float
    arguments: Callable[[Asked], Arguments]
    devices: tuple[str, ...] = ("cpu", "cuda")

    def command(self, asked: Asked) -> list[str]:
        """Return the command line."""
        return [sys.executable, *map(str, self.arguments(asked))]


def _module(name: str, *rest: str | Path) -> Arguments:
    return ("-m", f"dragnoise.bench.campaign.{name}", *rest)


def _bench(asked: Asked, command: str, *rest: str, big: bool = True) -> Arguments:
    """Return a bench command on a model of full size, or on a small one."""
    small = ("--model", "embedded", "--run-iterations", "2", "--run-steps", "2", "--rounds", "1")
    size = small if asked.quick else ("--model", "sd15", "--iterations", "80", "--rounds", "3")
    return (
        "-m",
        "dragnoise.bench",
        command,
        *(size if big else ()),
        *rest,
        *("--device", asked.device, "--out", asked.records),
    )


def _half(asked: Asked, dtype: str = "float16") -> tuple[str, str]:
    return ("--dtype", dtype if asked.device == "cuda" else "float32")


def _tests(asked: Asked) -> Arguments:
    which = "tests/engine/session" if asked.quick else "tests"
    workers = () if asked.quick else ("-n", "6")
    quiet = ("-q", "-p", "no:cacheprovider", "--timeout", "150", "--tb", "short")
    # A machine with a card seldom has what the service's tests need: they have none for a GPU.
    elsewhere = ("tests/attack", "tests/engine/serve", "tests/engine/hosts", "tests/tools")
    left_out = [word for folder in elsewhere for word in ("--ignore", folder)]
    least = ("--continue-on-collection-errors", "--show-capture", "no", *left_out)
    return ("-m", "pytest", *quiet, *least, *workers, "-m", "gpu", "--durations", "5", which)


def _precision(asked: Asked, model: str, *rest: str) -> Arguments:
    few = "1" if asked.quick else "12"
    options = ("--model", model, "--iterations", few, *rest)
    return _bench(asked, "precision", *options, big=False)


STEPS = (
    Step("card", "How fast does it multiply and copy?", 60, lambda asked: _module("card")),
    Step(
        "smoke",
        "Do edits run in every precision, and give the CPU's pictures? Cold and warm times.",
        120,
        lambda asked: _module("smoke", asked.device),
    ),
    Step(
        "precision-golden",
        "How far are losses, handles and pictures of lower precisions from float32's?",
        90,
        lambda asked: _precision(asked, "golden", "--size", "256x256"),
    ),
    Step(
        "edits-float16",
        "The waterfall at full size.",
        170,
        lambda asked: _bench(
            asked, "edits", *_half(asked), "--rows", f"cut,folded,kernels,{asked.graphs}"
        ),
    ),
    Step(
        "live",
        "Does a picture follow the pointer: 20 frames a second at 512 pixels?",
        90,
        lambda asked: _bench(
            asked,
            "live",
            *("--model", "embedded" if asked.quick else "sd15", *_half(asked)),
            *("--events", "30" if asked.quick else "1200"),
            *("--rounds", "0" if asked.quick else "2", "--no-count"),
            big=False,
        ),
    ),
    Step(
        "bits",
        "Same input, same bits? What does it cost to be sure?",
        90,
        lambda asked: _module("bits", asked.device),
    ),
    Step(
        "profile",
        "Which kernels is the time in?",
        60,
        lambda asked: _module(
            "profile", "embedded" if asked.quick else "sd15", asked.device, _half(asked)[1]
        ),
    ),
    Step("tests", "Do the tests that need CUDA pass?", 150, _tests),
    Step(
        "baseline",
        "How much faster than the published execution, in one run?",
        150,
        lambda asked: _bench(
            asked, "edits", *_half(asked), "--rows", f"baseline,{asked.graphs}", "--rounds", "1"
        ),
    ),
    Step(
        "sessions-float16",
        "The first edit, and what comes after it.",
        120,
        lambda asked: _bench(asked, "sessions", *_half(asked)),
    ),
    Step(
        "stages-float16",
        "The share of the roofline by stage.",
        90,
        lambda asked: _bench(asked, "stages", *_half(asked)),
    ),
    Step(
        "kernels",
        "What does each kernel save?",
        90,
        lambda asked: _bench(
            asked,
            "kernels",
            *_half(asked, "bfloat16"),
            *("--rounds", "1" if asked.quick else "30"),
            big=False,
        ),
    ),
    Step(
        "edits-bfloat16",
        "What do bfloat16's anchored layers cost?",
        90,
        lambda asked: _bench(asked, "edits", *_half(asked, "bfloat16"), "--rows", asked.graphs),
    ),
    Step(
        "precision-embedded",
        "The same with the embedded model.",
        90,
        lambda asked: _precision(asked, "embedded"),
    ),
    Step(
        "personalise",
        "How long does learning a picture take?",
        120,
        lambda asked: _bench(asked, "personalise", *_half(asked, "bfloat16"), "--rounds", "10"),
    ),
    Step(
        "compiled",
        "Is the compiled backend faster than graphs, and after how long?",
        300,
        lambda asked: _bench(asked, "edits", *_half(asked), "--rows", "graphs,compiled"),
        devices=("cuda",),
    ),
    Step(
        "edits-float32",
        "The waterfall's last row in full precision.",
        60,
        lambda asked: _bench(
            asked, "edits", "--dtype", "float32", "--rows", asked.graphs, "--rounds", "1"
        ),
    ),
)
"""All steps."""
