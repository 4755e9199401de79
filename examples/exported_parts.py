"""Run parts of the network as exported ONNX graphs; PyTorch keeps the drag itself.

    pip install 'dragnoise[onnx]'
    python examples/exported_parts.py picture.png 60,40:80,40 edited.png --folder exported

The parts are exported on the first run and found on the next. `onnxruntime` serves on a CPU only;
on a CUDA device the same is done with "tensorrt".
"""

import argparse

from dragnoise.engine import Editor, EditResult, Placement


def main(
    image: str, drags: str, output: str, folder: str, iterations: int | None = None
) -> EditResult:
    """Edit one picture with the encoder half, middle block and decoder half run by onnxruntime."""
    placement = Placement(down="onnxruntime", middle="onnxruntime", up="onnxruntime")
    editor = Editor.from_pretrained(
        device="cpu", backend=placement, exported=folder, build_missing=True
    )
    settings = editor.defaults.replace(iterations=iterations)
    result = editor.edit(image, drags, config=settings)
    result.image.save(output)
    print(result.settings["backend"])
    for file in result.settings["exported"]["onnxruntime"]:
        print(file["file"])
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    parser.add_argument("drags", help="x,y:x,y, several separated by spaces")
    parser.add_argument("output")
    parser.add_argument("--folder", default="exported")
    parser.add_argument("--iterations", type=int)
    main(**vars(parser.parse_args()))
