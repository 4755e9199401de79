"""Drag again and again on one picture, as a person with a mouse does: one session in a loop.

    python examples/session.py picture.png --drag 60,40:80,40 --drag 60,40:84,44

Every drag goes on from the last one where it can ("last"); the picture is inverted once.
"""

import argparse
from collections.abc import Sequence

from dragnoise.engine import Editor, Session, SessionError


def main(image: str, drags: Sequence[str], output: str, iterations: int | None = None) -> Session:
    """Drag on one picture, once for each of `drags`, then undo the last drag."""
    editor = Editor.from_pretrained()
    session = editor.open(image, config=editor.defaults.replace(iterations=iterations))
    session.prepare()  # what needs no points: the picture is inverted while the person still looks
    for number, drag in enumerate(drags):
        for event in session.drag_stream(drag, base="last" if number else "source"):
            if event.preview is not None:
                print(f"iteration {event.iteration}: there is a preview to show")
            if event.result is not None:
                print(f"drag {number}: {event.result.timings_ms['total']:.0f} ms")
    session.image.save(output)
    try:
        session.undo()
    except SessionError as nothing_left:
        print(nothing_left)
    return session


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    parser.add_argument("--drag", dest="drags", action="append", required=True)
    parser.add_argument("--output", default="edited.png")
    parser.add_argument("--iterations", type=int)
    main(**vars(parser.parse_args()))
