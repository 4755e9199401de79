"""A campaign runs its steps in order, each within its time, and goes on where it was cut off."""

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from dragnoise.bench.campaign.run import ARCHIVE, campaign, chosen
from dragnoise.bench.campaign.steps import STEPS, Asked, Step
from dragnoise.engine import ConfigError


def step(name: str, code: str, limit_s: float = 60, devices: Sequence[str] = ("cpu",)) -> Step:
    return Step(name, "?", limit_s, lambda asked: ("-c", code), tuple(devices))


def asked(out: Path) -> Asked:
    return Asked("cpu", quick=True, records=out / "records")


def test_every_step_has_an_outcome_and_a_log(tmp_path: Path) -> None:
    steps = (
        step("well", "print('said')"),
        step("badly", "import sys; sys.exit(3)"),
        step("long", "import time; time.sleep(60)", limit_s=0.5),
        step("elsewhere", "print('no')", devices=("cuda",)),
    )
    outcomes = campaign(steps, asked(tmp_path), tmp_path, budget_s=100)
    ends = [(outcome["step"], outcome["rc"]) for outcome in outcomes]
    assert ends == [("well", 0), ("badly", 3), ("long", "time")]
    assert json.loads((tmp_path / "summary.json").read_text()) == outcomes
    assert (tmp_path / "well.log").read_text() == "said\n"
    with tarfile.open(tmp_path / ARCHIVE) as archive:
        assert {"well.log", "badly.log", "long.log", "summary.json"} <= {*archive.getnames()}


def test_what_ended_well_is_not_run_again(tmp_path: Path) -> None:
    counting = step("count", f"open({str(tmp_path / 'runs')!r}, 'a').write('x')")
    failing = step("fail", f"open({str(tmp_path / 'fails')!r}, 'a').write('x'); exit(1)")
    for _ in range(2):
        campaign((counting, failing), asked(tmp_path), tmp_path, budget_s=100)
    assert (tmp_path / "runs").read_text() == "x"
    assert (tmp_path / "fails").read_text() == "xx"


def test_without_time_left_nothing_is_begun(tmp_path: Path) -> None:
    outcomes = campaign((step("late", "print(1)"),), asked(tmp_path), tmp_path, budget_s=1)
    assert [outcome["rc"] for outcome in outcomes] == ["skipped"]
    assert not (tmp_path / "late.log").exists()


def test_steps_are_chosen_by_name() -> None:
    names = [chosen_step.name for chosen_step in chosen(None, None)]
    assert names == [known.name for known in STEPS]
    assert [known.name for known in chosen("bits,card", None)] == ["card", "bits"]
    assert chosen(None, names[3]) == STEPS[3:]
    for only, first in (("nothing", None), (None, "nothing")):
        with pytest.raises(ConfigError, match="there is no step 'nothing'; use card, "):
            chosen(only, first)


@pytest.mark.parametrize("name", [known.name for known in STEPS])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_commands_are_well_formed(name: str, device: str, tmp_path: Path) -> None:
    """What a step calls exists: a module of the campaign, pytest, or a command of the bench."""
    (known,) = chosen(name, None)
    command = known.command(Asked(device, quick=False, records=tmp_path))
    assert command[1] == "-m"
    if command[2] == "dragnoise.bench":
        from dragnoise.bench.commands import BENCH

        parsed = BENCH._parser().parse_args(command[3:])
        assert parsed.device == device
