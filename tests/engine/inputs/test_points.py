"""Every spelling of points that a person may hand in, and what is refused."""

from typing import Any

import numpy as np
import pytest

from dragnoise.engine import PointError, Points
from dragnoise.engine.inputs.points import one_or_more


@pytest.mark.parametrize(
    "source",
    [
        "60,40:80,40 5,6:7.5,8",
        [((60, 40), (80, 40)), ((5, 6), (7.5, 8))],
        [[60, 40, 80, 40], [5, 6, 7.5, 8]],
        [(60, 40), (80, 40), (5, 6), (7.5, 8)],
        np.array([[60, 40], [80, 40], [5, 6], [7.5, 8]]),
        Points(((60, 40), (5, 6)), ((80, 40), (7.5, 8))),
    ],
)
def test_spellings_of_points(source: Any) -> None:
    points = Points.of(source)
    assert points == Points(((60, 40), (5, 6)), ((80, 40), (7.5, 8)))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "at least one pair"),
        ([], "at least one pair"),
        ("60,40", "is not a drag"),
        ("60,40:80", "is not a drag"),
        ("a,b:c,d", "is not a drag"),
        ([(1, 2), (3, 4), (5, 6)], "without a target"),
        ([(1, 2, 3)], "not a list of points"),
        ([((1, 2), (3, float("nan")))], "finite"),
        ("inf,2:3,4", "finite"),
        ([((1, 2), (3,))], "not a list of points"),
        (["ab"], "not a list of points"),
    ],
)
def test_refused_points(source: Any, says: str) -> None:
    with pytest.raises(PointError, match=says):
        Points.of(source)


def test_points_lie_on_the_image() -> None:
    Points.of("0,0:9,11").check_inside(10, 12)
    for outside in ("-1,0:3,3", "10,0:3,3", "0,0:3,12", "0,0:9.5,3"):
        with pytest.raises(PointError, match="outside the 10x12 image"):
            Points.of(outside).check_inside(10, 12)


@pytest.mark.parametrize(
    ("source", "points"),
    [
        ((3, 4.5), ((3.0, 4.5),)),
        ([3, 4], ((3.0, 4.0),)),
        (np.array([3, 4]), ((3.0, 4.0),)),
        ([(3, 4)], ((3.0, 4.0),)),
        ([(3, 4), (5, 6)], ((3.0, 4.0), (5.0, 6.0))),
        (np.array([[3, 4], [5, 6]]), ((3.0, 4.0), (5.0, 6.0))),
    ],
)
def test_one_point_or_several(source: Any, points: Any) -> None:
    assert one_or_more(source) == points


@pytest.mark.parametrize("source", [(), 5, None, "3,4", (3,), (3, 4, 5), [(3, 4), 5], {"x": 3}])
def test_what_is_no_point(source: Any) -> None:
    with pytest.raises(PointError):
        one_or_more(source)
