"""Edit a sample, judge what came of it, and return what is kept of both."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from dragnoise.engine.cli.options import load_editor
from dragnoise.engine.config import PersonaliseConfig, Settings
from dragnoise.engine.editor import Editor
from dragnoise.engine.inputs.image import Image

from ..measure.timing import clock_ms
from .asked import Asked, seed_of
from .judge import EDITED, UNEDITED, Judge
from .samples import Sample, read_sample

__all__ = ["edit_sample", "make_work"]


def make_work(
    asked: Asked, make_judge: Callable[[Asked], Judge]
) -> Callable[[str], dict[str, Any]]:
    """Load what a run needs; return what edits and judges a sample by its name."""
    editor = load_editor(asked.editor)
    judge = make_judge(asked)

    def work(name: str) -> dict[str, Any]:
        sample = read_sample(asked.root, name, asked.converted)
        image, told = edit_sample(editor, sample, asked)
        path = asked.picture(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        generator = torch.Generator(judge.device).manual_seed(seed_of(name))
        edited, unedited = judge.scores(sample, [image, sample.image], generator)
        return told | {EDITED: edited, UNEDITED: unedited}

    return work


def edit_sample(editor: Editor, sample: Sample, asked: Asked) -> tuple[Image, dict[str, Any]]:
    """Return a sample's edited picture, and what is told of the edit."""
    settings: Settings = editor.defaults_of(asked.method).replace(**asked.settings)
    session = editor.open(sample.image, prompt=sample.prompt, undo_bytes=0)
    before_ms: dict[str, float] = {}
    if asked.personalise:
        config = PersonaliseConfig(steps=asked.personalise, seed=seed_of(sample.name))
        device = editor.model.device
        before_ms["personalise"] = clock_ms(lambda: session.personalise(config), device)
    result = session.drag(sample.points, mask=sample.mask, method=asked.method, config=settings)
    told = result.to_dict()
    return result.image, {
        "size": [sample.image.width, sample.image.height],
        "pairs": len(sample.points),
        "reached": told["reached"],
        "iterations": told["iterations"],
        "settings": settings.to_dict(),
        "times_ms": _times(before_ms, told["timings_ms"]),
        "warnings": told["warnings"],
    }


def _times(before_ms: Mapping[str, float], edit_ms: Mapping[str, float]) -> dict[str, float]:
    """Return milliseconds by stage, with the total of all."""
    total = sum(before_ms.values()) + edit_ms["total"]
    return {stage: round(ms, 3) for stage, ms in {**before_ms, **edit_ms, "total": total}.items()}
