"""Coordinates, settings, and sizes."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch

from dragnoise.engine import (
    ConfigError,
    DragConfig,
    Editor,
    EditResult,
    Image,
    ImageError,
    PersonaliseConfig,
    PictureLimits,
    PointError,
    Points,
)
from golden_cases import MODEL
from tally import WHOLE, Tally

PAIR = Points(((1.0, 2.0),), ((3.0, 4.0),))
NO_NUMBERS: tuple[Any, ...] = (
    None, "x", "5", b"5", [], {}, (1, 2), object(), 1j, float("nan"), float("inf"), -float("inf"),
    10**400, -(10**400), 10**5000, np.nan, np.zeros(3), "nan", "\0",
    torch.zeros(2, requires_grad=True), torch.tensor(float("nan")),
)  # fmt: skip
"""What is no coordinate."""

ODD = (*NO_NUMBERS, np.array("5"), True, -1, 1e308, -1e308)
"""What is no value of any setting."""

QUICK = DragConfig(steps=5, strength=0.4, iterations=2, r_m=32, r_p=32)


@pytest.fixture(autouse=True)
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def _editor() -> Editor:
    return Editor.from_pretrained(MODEL, device="cpu", check_pictures=False)


def test_points(tally: Tally) -> None:
    """Points that are none: NaN, infinity, 10**400, strings, mixed, nested, half pairs."""
    for odd in NO_NUMBERS:
        name = type(odd).__name__
        for row in ([(odd, 1, 2, 3)], [((odd, 1), (2, 3))], [(1, 2), (3, odd)], odd):
            if row is odd or not isinstance(odd, (str, bytes)):  # rows may be of digits
                tally.refused(f"row of {name}", partial(Points.of, row), PointError)
        tally.refused(f"Points of {name}", partial(Points, ((odd, 1),), ((1, 2),)), PointError)
    for text in ("", "60,40", "a,b:c,d", "1,2:3,4:5,6", "1e999,0:1,1", "1,2:3", ":", ",", "1;2"):
        tally.refused(repr(text), partial(Points.of, text), PointError)


def test_points_of_other_kinds(tally: Tally) -> None:
    """Points as NumPy, PyTorch, generators, ranges and fractions give them."""
    rows = [[1, 2], [3, 4]]
    for kind in (np.float16, np.float32, np.float64, np.int8, np.uint16, np.int64, ">f4", ">i8"):
        tally.judge(Points.of(np.array(rows, kind)) == PAIR, str(kind))  # type: ignore[arg-type]
        scalars = [[np.array(value, kind)[()] for value in row] for row in rows]
        tally.judge(Points.of(scalars) == PAIR, f"scalars of {kind}")
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64):
        tensor = torch.tensor(rows, dtype=dtype, requires_grad=dtype.is_floating_point)
        tally.judge(Points.of(tensor) == PAIR, str(dtype))  # type: ignore[arg-type]
        tally.judge(Points.of(list(tensor)) == PAIR, f"a list of {dtype}")
        tally.judge(Points.of([[*tensor[0], *tensor[1]]]) == PAIR, f"scalars of {dtype}")
        tally.judge(
            Points((tensor[0],), (tensor[1],)) == PAIR,  # type: ignore[arg-type]
            f"Points of {dtype}",
        )
    tally.judge(Points.of(tuple(row) for row in rows) == PAIR, "a generator")  # type: ignore[arg-type]
    tally.judge(Points.of([range(1, 5)]) == PAIR, "a range")
    tally.judge(Points(((Fraction(1), np.int8(2)),), ((3, 4),)) == PAIR, "fractions")  # type: ignore[arg-type]


def _answering(answer: bool) -> Callable[[object], bool]:
    return lambda _: answer


def test_places(tally: Tally) -> None:
    """Points on the border, outside, at 1e308 and -0.0."""
    for x, y, inside in (
        (0, 0, True), (-0.0, -0.0, True), (9, 11, True), (9.0001, 0, False), (0, 12, False),
        (-1e-9, 0, False), (1e308, 0, False), (0, -1e308, False),
    ):  # fmt: skip
        points = Points.of([(x, y, 5, 5)])
        tally.refused_or(
            f"{x}, {y}",
            partial(points.check_inside, 10, 12),
            _answering(inside),
            PointError,
        )


def test_settings(tally: Tally) -> None:
    """Every setting with values of other types, NaN, infinity, 10**400, 1e308."""
    for config in (DragConfig, PersonaliseConfig, PictureLimits):
        for field in dataclasses.fields(config):
            for odd in ODD:
                if odd is True and field.type is bool:
                    continue
                tally.refused(
                    f"{field.name} {type(odd).__name__}",
                    partial(config, **{field.name: odd}),
                    ConfigError,
                )
    for field in dataclasses.fields(DragConfig):
        value = getattr(DragConfig(), field.name)
        for kind in {int: (np.int16, np.int64), float: (np.float32, np.float64)}.get(
            type(value), (np.bool_,)
        ):
            made = DragConfig(**{field.name: kind(value)})  # type: ignore[arg-type]
            tally.judge(type(getattr(made, field.name)) is type(value), f"{kind} {field.name}")


def test_many_points(tally: Tally) -> None:
    """1,000 and 10,000 points, 100,000 iterations: refused before 16 GB are asked for."""
    picture = Image(np.zeros((8, 8, 3), np.uint8))
    many = DragConfig(steps=5, strength=0.4, iterations=100_000)
    for count in (1_000, 10_000):
        tally.refused(
            f"{count} points",
            partial(_editor().edit, picture, [(1, 1, 5, 5)] * count, config=many),
            PointError,
        )


def _is_finite_and_like(picture: Image) -> Callable[[EditResult], bool]:
    return lambda result: (
        result.image.pixels.shape == picture.pixels.shape
        and bool(np.isfinite(result.history.losses).all())
    )


def test_tiny_pictures(tally: Tally) -> None:
    """Pictures of 1x1 to 5000x1 with radii of 32, with and without mask and parity."""
    sizes = [(1, 1), (8, 8)]
    more = [
        (7, 9),
        (300, 1),
        (2, 3),
        (5, 1),
        (9, 9),
        (12, 20),
        (1, 300),
        (64, 8),
        (5000, 1),
        (5000, 8),
    ]
    for width, height in sizes + (more if WHOLE else []):
        pixels = np.indices((height, width, 3)).sum(0) % 256
        picture = Image(pixels.astype(np.uint8))
        half = np.zeros((height, width), np.bool_)
        half[:, : width // 2 + 1] = True
        for mask in (None, half):
            for parity in (False, True):
                config = QUICK.replace(parity=parity)
                points = [(0, 0, width - 1, height - 1)]
                tally.refused_or(
                    f"{width}x{height} parity {parity}",
                    partial(_editor().edit, picture, points, mask=mask, config=config),
                    _is_finite_and_like(picture),
                    *([ConfigError] if parity and min(width, height) < 8 else [PointError]),
                )


def test_huge_pictures(tally: Tally) -> None:
    """Edits of 2600x2600 and generations of up to 8e7x8e7: refused before any work."""
    huge = Image(np.zeros((2600, 2600, 3), np.uint8))
    tally.refused("edit", partial(_editor().edit, huge, "1,1:5,5", config=QUICK), ImageError)
    for height, width in ((4096, 4096), (80_000_000, 80_000_000), (8, 2**60)):
        tally.refused(
            f"generate {width}",
            partial(_editor().generate, "a", size=(height, width), config=QUICK),
            ImageError,
        )
    for odd in ODD:
        tally.refused(
            f"size {type(odd).__name__}",
            partial(_editor().generate, "a", size=(odd, odd), config=QUICK),
            ConfigError,
            ImageError,
        )
        if odd is not None:
            tally.refused(
                f"seed {type(odd).__name__}",
                partial(_editor().generate, "a", size=(8, 8), seed=odd, config=QUICK),
                ConfigError,
            )
