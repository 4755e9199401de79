"""Run an iteration of every method by pytest-benchmark: `pytest bench`.

On the embedded model and the first picture of the demo, or on the embedded generator. Not part of
`make test`, as the kernels.
"""

from typing import Any

import pytest
import torch

from dragnoise.engine import Editor, Image
from dragnoise.engine.cli.demo import samples
from dragnoise.engine.methods import METHODS
from dragnoise.engine.pipelines.diffusion import DIFFUSION

NAMES = [name for name, row in METHODS.items() if row.pipeline is DIFFUSION]


@pytest.mark.parametrize("name", NAMES)
def test_drag(benchmark: Any, name: str) -> None:
    """Time whole drags of four updates on a prepared session."""
    editor = Editor.from_pretrained(check_pictures=False)
    sample = samples()[0]
    session = editor.open(Image.of(sample.image), prompt=sample.prompt)
    config = METHODS[name].settings(iterations=4)

    def drag() -> None:
        session.drag(sample.points, mask=sample.mask, method=name, config=config)
        if editor.model.device.type == "cuda":
            torch.cuda.synchronize()

    benchmark.pedantic(drag, rounds=3, warmup_rounds=1)


def test_drag_of_styles(benchmark: Any) -> None:
    """Time whole drags of ten updates on a picture of the embedded generator."""
    editor = Editor.from_pretrained()
    session = editor.open(editor.sample(0))
    config = editor.defaults_of("draggan").replace(iterations=10)

    def drag() -> None:
        session.drag("64,40:64,20", method="draggan", config=config)
        if editor.model.device.type == "cuda":
            torch.cuda.synchronize()

    benchmark.pedantic(drag, rounds=3, warmup_rounds=1)
