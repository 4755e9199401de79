"""A small picture and drags on it, for the tests of sessions."""

from functools import cache
from typing import Any

import numpy as np
import PIL.Image

from dragnoise.engine import (
    DragConfig,
    Editor,
    EditResult,
    Image,
    Session,
)
from golden_cases import GOLDEN, MODEL

QUICK = DragConfig(steps=10, strength=0.3, iterations=3, lr=0.02, lam=0.1)
PICTURE = Image(
    np.asarray(PIL.Image.open(GOLDEN / "images" / "face_256x256.png").convert("RGB"))[
        64:128, 64:128
    ]
)
ONE_BIT = PICTURE.pixels ^ (np.arange(64 * 64 * 3) == 100).reshape(64, 64, 3).astype(np.uint8)
MASK = np.tri(64, dtype=np.bool_)
POINTS = [((20, 20), (40, 34))]
FURTHER = [((20, 20), (44, 37))]
OTHERS = [((40, 44), (12, 30)), ((30, 10), (50, 12))]
FIRST = ["embed", "encode", "condition", "invert", "start"]
REST = ["drag", "propagate", "decode", "total"]


@cache
def editor() -> Editor:
    return Editor.from_pretrained(MODEL, device="cpu", check_pictures=False)


def opened(editor: Editor | None = None, **how: Any) -> Session:
    return (editor or globals()["editor"]()).open(
        PICTURE, prompt="a face", **({"config": QUICK} | how)
    )


def same(one: EditResult | Image, other: EditResult | Image) -> bool:
    pictures = [value.image if isinstance(value, EditResult) else value for value in (one, other)]
    return bool((pictures[0].pixels == pictures[1].pixels).all())


def assert_same(one: EditResult, other: EditResult) -> None:
    assert same(one, other)
    np.testing.assert_array_equal(one.history.losses, other.history.losses)
    np.testing.assert_array_equal(one.history.handles, other.history.handles)
    assert (one.points, one.reached) == (other.points, other.reached)
