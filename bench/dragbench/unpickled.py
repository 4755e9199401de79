"""Read a sample's `meta_data.pkl` in a process of its own, with limits, and write it without one.

DragBench comes as pickles, which can hold code. Plain values are let pass, and numpy's arrays,
whose bytes are read here: nothing that a pickle names is ever called, numpy's own functions
included.

    meta_data.pkl {"prompt", "points": [x, y] in turn, "mask"}  ->  sample.json, mask.png
"""

import io
import json
import pickle
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from dragnoise.engine.errors import ImageError
from dragnoise.engine.system.incoming import read_bounded
from dragnoise.engine.system.limited import Limits, apart, done_apart

__all__ = ["MASK", "SAID", "convert_pickle", "plain_unpickled", "said_of"]

SAID = "sample.json"
MASK = "mask.png"

_SECONDS = 20
_MEGABYTE = 2**20
_LARGEST_BYTES = 64 * _MEGABYTE
_MOST_POINTS = 1000
_LONGEST_PROMPT = 10_000


def convert_pickle(source: Path, target: Path, name: str) -> None:
    """Write what a pickle says of a sample as JSON and PNG.

    Args:
        source: `meta_data.pkl`.
        target: The folder that is written to.
        name: The sample's, for messages.

    Raises:
        ImageError: For a file that cannot be read so, with the reason.
    """
    reason = done_apart("dragnoise.bench.dragbench.unpickled", source, target, _SECONDS)
    if reason is not None:
        raise ImageError(
            f"the sample {name!r} cannot be read ({reason}); take DragBench's own meta_data.pkl"
        )


def plain_unpickled(data: bytes) -> Any:
    """Return the content of a pickle of plain values and numpy arrays.

    Raises UnpicklingError for anything else, before it is called.
    """
    return _Plain(io.BytesIO(data)).load()


class _Kind:
    """Stands for `numpy.dtype`: numbers and truth values only.

    Attributes:
        code: Such as "<u1".
    """

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:
        if code not in ("b1", *(f"{kind}{size}" for kind in "uif" for size in (1, 2, 4, 8))):
            raise pickle.UnpicklingError(f"an array of {str(code)[:20]!r}")
        self.code = str(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order, *rest = state[1:]
        if order not in ("<", ">", "=", "|") or rest[:3] != [None, None, None]:
            raise pickle.UnpicklingError("an array of other things than numbers")
        self.code = order + self.code


class _Array:
    """Stands for `numpy.ndarray`, whose state its pickle tells.

    Attributes:
        numbers: The array.
    """

    numbers: npt.NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        self.numbers = _numbers(content, kind, shape, "F" if fortran is True else "C")


class _Class:
    """Stands for `numpy.ndarray` where a pickle names it but has no reason to call it."""

    def __init__(self, *given: object) -> None:
        raise pickle.UnpicklingError(f"a call of numpy.ndarray with {len(given)} arguments")


def _reconstructed(kind: object, shape: object, code: object) -> _Array:
    """Return what takes an array's state; other arguments are not numpy's own."""
    if (kind, shape, code) != (_Class, (0,), b"b"):
        raise pickle.UnpicklingError("not an array as numpy pickles it")
    return _Array()


def _from_buffer(content: object, kind: object, shape: object, order: object) -> _Array:
    """Return an array as numpy pickles it since protocol 5."""
    array = _Array()
    array.numbers = _numbers(content, kind, shape, order)
    return array


def _scalar(kind: object, content: object) -> Any:
    """Return one of numpy's numbers as Python's."""
    return _numbers(content, kind, (), "C").item()


def _numbers(content: object, kind: object, shape: object, order: object) -> npt.NDArray[Any]:
    """Return an array of bytes that are there; a shape alone makes none."""
    if not (
        isinstance(kind, _Kind)
        and isinstance(content, bytes | bytearray)
        and isinstance(shape, tuple)
        and all(type(side) is int and side >= 0 for side in shape)
        and order in ("C", "F")
    ):
        raise pickle.UnpicklingError("not an array as numpy pickles it")
    dtype = np.dtype(kind.code)
    if prod(shape) * dtype.itemsize != len(content):
        told = " x ".join(str(side)[:20] for side in shape[:4])
        raise pickle.UnpicklingError(f"an array of {told} in {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if order == "F" else "C")


_ALLOWED = {
    "numpy.ndarray": _Class,
    "numpy.dtype": _Kind,
    **{
        f"numpy.{core}.{name}": stand_in
        for core in ("core", "_core")
        for name, stand_in in (
            ("multiarray._reconstruct", _reconstructed),
            ("multiarray.scalar", _scalar),
            ("numeric._frombuffer", _from_buffer),
        )
    },
}


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (wanted := f"{module}.{name}") not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"{wanted[:60]} is neither a plain value nor one of numpy's arrays"
            )
        return _ALLOWED[wanted]

    def load(self) -> Any:
        return _with_arrays(super().load())


def _with_arrays(content: Any) -> Any:
    """Return a dict's values with numpy's arrays for what stands for them."""
    if not isinstance(content, dict):
        return content
    return {
        name: value.numbers if isinstance(value, _Array) else value
        for name, value in content.items()
    }


def _convert(source: Path, target: Path) -> None:
    data = read_bounded(source, ImageError, _LARGEST_BYTES)
    Limits(_SECONDS, 256 * _MEGABYTE + 6 * len(data), _LARGEST_BYTES).set()
    said, mask = said_of(plain_unpickled(data))
    (target / SAID).write_text(json.dumps(said) + "\n", encoding="utf-8")
    PIL.Image.fromarray(np.where(mask > 0, np.uint8(255), np.uint8(0))).save(target / MASK)


def said_of(content: object) -> tuple[dict[str, Any], npt.NDArray[Any]]:
    """Return what a pickle says of a sample, and its mask.

    Raises:
        ImageError: It is no sample's.
    """
    return {"prompt": _prompt(content), "points": _points(content)}, _mask(content)


def _field(content: object, name: str) -> Any:
    if not isinstance(content, dict) or name not in content:
        raise ImageError(f"it holds no {name!r}")
    return content[name]


def _prompt(content: object) -> str:
    prompt = _field(content, "prompt")
    if not isinstance(prompt, str) or len(prompt) > _LONGEST_PROMPT:
        raise ImageError("its prompt is no text, or too long a one")
    return prompt


def _points(content: object) -> list[list[float]]:
    """Return handles and targets in turn, (x, y) in image pixels."""
    points = _field(content, "points")
    if not isinstance(points, list | tuple) or len(points) > _MOST_POINTS:
        raise ImageError(f"its points are no list, or more than {_MOST_POINTS}")
    return [_point(point) for point in points]


def _point(point: object) -> list[float]:
    plain: Sequence[object] = point if isinstance(point, list | tuple) else ()
    if len(plain) != 2 or not all(type(each) in (int, float) for each in plain):
        raise ImageError("one of its points is no pair of numbers")
    return [each for each in plain if isinstance(each, int | float)]


def _mask(content: object) -> npt.NDArray[Any]:
    mask = _field(content, "mask")
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or 0 in mask.shape:
        raise ImageError("its mask is no array [height, width]")
    return mask


if __name__ == "__main__":
    apart(_convert, "it is no pickle of plain values and numpy's arrays")
