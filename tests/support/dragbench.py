"""The DragBench samples beside the repository, read without trusting their pickles."""

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FOLDER = Path(__file__).parents[3] / "shared" / "dragbench"


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample of DragBench.

    Attributes:
        folder: Where its files are.
        prompt: What the picture shows.
        points: (x, y) in image pixels, handle and target in turn.
        mask: uint8 [height, width], 1 where editable.
    """

    folder: Path
    prompt: str
    points: list[list[int]]
    mask: npt.NDArray[np.uint8]

    @property
    def image(self) -> Path:
        return self.folder / "original_image.png"

    @classmethod
    def of(cls, folder: Path) -> "Sample":
        return cls(folder, **plain_unpickled((folder / "meta_data.pkl").read_bytes()))


def names() -> list[str]:
    """Return `category/sample` of every sample, in order; none if the folder is absent."""
    return sorted(str(path.parent.relative_to(FOLDER)) for path in FOLDER.glob("*/*/meta_data.pkl"))


def plain_unpickled(data: bytes) -> Any:
    """Return the content of a pickle of plain values and numpy arrays.

    Raises UnpicklingError for anything else, before it is called.
    """
    return _Plain(io.BytesIO(data)).load()


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            "numpy.core.multiarray._reconstruct": _empty_array,
            "numpy._core.multiarray._reconstruct": _empty_array,
            "numpy.ndarray": _array_class,
            "numpy.dtype": np.dtype,
        }
        if (wanted := f"{module}.{name}") not in allowed:
            raise pickle.UnpicklingError(f"{wanted} is neither a plain value nor an array")
        return allowed[wanted]


def _array_class(*inputs: object) -> None:
    """Stand for `numpy.ndarray`, which a pickle names but has no reason to call."""
    raise pickle.UnpicklingError(f"a call of numpy.ndarray with {inputs}")


def _empty_array(kind: object, shape: tuple[int, ...], code: bytes) -> npt.NDArray[Any]:
    """Return what numpy's own function makes of the arguments that numpy's pickles have.

    Of others it could make anything, of any size.
    """
    if (kind, shape, code) != (_array_class, (0,), b"b"):
        raise pickle.UnpicklingError(f"not an array as numpy pickles it: {kind}, {shape}, {code!r}")
    return np.ndarray((0,), np.int8)
