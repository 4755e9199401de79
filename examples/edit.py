"""Edit a picture: drag a point to its target, and look at what happened.

python examples/edit.py picture.png 60,40:80,40 edited.png
"""

import argparse

from dragnoise.engine import Editor, EditResult, Image


def main(image: str, drags: str, output: str, iterations: int | None = None) -> EditResult:
    """Edit one picture with the embedded model and write the result."""
    editor = Editor.from_pretrained()
    settings = editor.defaults.replace(iterations=iterations)  # None changes nothing
    result = editor.edit(Image.of(image), drags, config=settings)
    result.image.save(output)
    pairs = zip(result.points.handles, result.points.targets, strict=True)
    for handle, target in pairs:
        print(f"the handle is at {handle}, its target at {target}")
    print("reached" if result.reached else "not reached", f"in {result.timings_ms['total']:.0f} ms")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    parser.add_argument("drags", help="x,y:x,y, several separated by spaces")
    parser.add_argument("output")
    parser.add_argument("--iterations", type=int)
    main(**vars(parser.parse_args()))
