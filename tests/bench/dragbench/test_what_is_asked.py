"""What a run's results depend on: the files of its models, not their names."""

import pickle
import shutil
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dragnoise.bench.dragbench.asked import Asked, Judging, about, seed_of
from dragnoise.engine import ModelError
from dragnoise.engine.diffusion.load import EMBEDDED
from golden_cases import MODEL

NAMES = ["animals/a", "animals/b"]


def asked(model: str | None, **changes: Any) -> Asked:
    run = Asked(Path("bench"), Path("out"), editor=Namespace(model=model, dtype="float32"))
    return replace(run, **changes)


def test_a_model_is_its_files(tmp_path: Path) -> None:
    copied = shutil.copytree(MODEL, tmp_path / "copy")
    golden = about(asked(str(MODEL)), NAMES)
    assert about(asked(str(copied)), NAMES) == golden
    embedded = about(asked(None), NAMES)
    assert embedded == about(asked(str(EMBEDDED)), NAMES)
    assert embedded != golden
    (copied / "unet" / "config.json").write_text("{}")
    assert about(asked(str(copied)), NAMES) != golden
    with pytest.raises(ModelError, match="'/nowhere' cannot be read"):
        about(asked("/nowhere"), NAMES)


def test_whatever_changes_a_result_is_told() -> None:
    plain = about(asked(None), NAMES)
    for changed in (
        asked(None, method="gooddrag"),
        asked(None, settings={"lr": 0.1}),
        asked(None, personalise=3),
        asked(None, judging=Judging(dift=str(MODEL))),
    ):
        assert about(changed, NAMES) != plain
    assert about(asked(None), NAMES[:1]) != plain
    assert about(asked(None), NAMES[::-1]) == plain
    assert about(asked(None, root=Path("elsewhere")), NAMES) == plain


def test_a_run_can_be_sent_to_another_process() -> None:
    run = asked(None, settings={"lr": 0.1})
    assert pickle.loads(pickle.dumps(run)) == run  # noqa: S301 our own


def test_seeds_are_of_the_names() -> None:
    assert seed_of("animals/a") == seed_of("animals/a") != seed_of("animals/b")
    assert 0 <= seed_of("animals/a") < 2**31
