"""Edit a sample of the demo again and again, each time with its seconds."""

import time

from dragnoise.engine import Editor
from dragnoise.engine.cli.demo import Sample
from dragnoise.engine.session.result import EditResult

__all__ = ["timed_edits"]


def timed_edits(editor: Editor, sample: Sample, times: int) -> list[tuple[EditResult, float]]:
    """Return what every edit of a sample made, and the seconds that it took."""
    edits = []
    for _ in range(times):
        begin = time.perf_counter()
        result = editor.edit(sample.image, sample.points, mask=sample.mask, prompt=sample.prompt)
        edits.append((result, round(time.perf_counter() - begin, 3)))
    return edits
