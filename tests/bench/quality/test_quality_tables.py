"""Quality's tables and words: means, marks, pairs, and what is left out, on made-up runs."""

import math
from typing import Any

import pytest

from dragnoise.bench.quality import document as read
from dragnoise.bench.quality import table
from dragnoise.bench.quality.packed import packed, unpacked
from dragnoise.bench.quality.report import show_table
from dragnoise.bench.quality.verdict import standing, verdicts
from quality_runs import run


def test_order_and_groups() -> None:
    document = run()
    document["drags"]["judging-boat-0"]["scores"]["mine"] = {"distance_px": 1.0}
    names = ["nothing", "oracle", "warp", "dragnoise", "freedrag", "mine"]
    assert read.contestants(document) == names
    assert read.editors(document) == ["warp", "dragnoise", "freedrag", "mine"]
    assert read.editors(document, read.PLAIN) == ["warp"]
    assert read.kinds(document) == ["boat", "sky"]


def test_way_left_is_the_share_of_the_drag() -> None:
    document = run(each=1)
    left = read.values(document, "dragnoise", read.LEFT)
    assert left == {"judging-boat-0": pytest.approx(0.4), "judging-sky-0": pytest.approx(0.2)}
    document["drags"]["judging-boat-0"]["length_px"] = 0.0
    assert [*read.values(document, "dragnoise", read.LEFT)] == ["judging-sky-0"]


@pytest.mark.parametrize("absent", [None, math.nan, math.inf])
def test_what_is_no_number_counts_for_nothing(absent: float | None) -> None:
    document = run(each=2)
    document["drags"]["judging-boat-0"]["scores"]["warp"]["distance_px"] = absent
    found = read.values(document, "warp", read.DISTANCE)
    assert "judging-boat-0" not in found
    assert len(found) == 3


def test_failures_are_left_out_and_told() -> None:
    document = run(each=2)
    document["drags"]["judging-boat-0"] = {"failed": "no | memory"}
    document["drags"]["judging-boat-1"]["scores"]["warp"] = {"failed": "no hole"}
    assert read.failures(document) == [
        ("judging-boat-0", "no | memory"),
        ("judging-boat-1, warp", "no hole"),
    ]
    assert len(read.values(document, "warp", read.LEFT)) == 2
    assert "no | memory" in show_table(document)
    assert "no \\| memory" in table.markdown(table.sections(document)[-1].cells)


def test_summary_has_means_with_intervals() -> None:
    header, *rows = table.summary_cells(run(each=3))
    cells = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert cells["warp"]["way left"].startswith("0.41 [")  # (0.1 + 0.7) / 2, and 0.01 of wobble
    assert cells["oracle"]["template px"] == ""
    assert cells["nothing"]["outside, source dB"] == ""
    assert cells["warp"]["TFLOP"] == ""
    assert cells["dragnoise"]["reached"] == "0.50 [0.17, 0.83]"
    assert cells["dragnoise"]["iterations"] == "20"


def test_the_best_of_warps_and_methods_is_marked_by_kind() -> None:
    header, boat, sky = table.kinds_cells(run(), read.LEFT)
    assert header == ["kind", "drags", "nothing", "oracle", "warp", "dragnoise", "freedrag"]
    assert boat == ["boat", "6", "1.01", "0.00", "*0.11*", "0.41", "0.61"]
    assert sky == ["sky", "6", "1.01", "0.00", "0.71", "*0.21*", "0.51"]


def test_consequence_is_shown_for_kinds_that_have_it() -> None:
    rows = table.kinds_cells(run(), read.CONSEQUENCE, mark="**")
    assert [row[0] for row in rows] == ["kind", "sky"]
    assert rows[1][-3:] == ["0.00", "**0.79**", "0.49"]
    assert table.kinds_cells(run(left={"boat": {"warp": 0.1}}), read.CONSEQUENCE) == []


def test_equals_are_both_marked() -> None:
    document = run(left={"boat": {"warp": 0.5, "dragnoise": 0.5}})
    assert table.winners(document, read.LEFT, "boat") == ["warp", "dragnoise"]


def test_pairs_tell_difference_from_noise() -> None:
    left = {"boat": {"dragnoise": 0.4, "freedrag": 0.6, "warp": 0.4}}
    header, freedrag, warp = table.pairs_cells(run(left=left), "dragnoise")
    place = header.index("way left")
    assert freedrag[place] == "+0.20 [+0.20, +0.20]"
    assert warp[place] == "+0.00 [+0.00, +0.00] noise"
    assert freedrag[1] == "6"
    assert freedrag[header.index("consequence")] == ""  # boats' drags are short: nobody has any


def test_few_drags_are_noise() -> None:
    document = run(each=table.LEAST_DRAGS - 1, left={"boat": {"dragnoise": 0.1, "warp": 0.9}})
    header, warp = table.pairs_cells(document, "dragnoise")
    assert warp[header.index("way left")].endswith("noise")
    stands = standing(document, read.LEFT, "boat")
    assert stands is not None
    assert table.is_noise(stands.pair)


def test_pairs_are_of_common_drags() -> None:
    document = run(left={"boat": {"dragnoise": 0.4, "warp": 0.6}})
    for number in range(4):
        document["drags"][f"judging-boat-{number}"]["scores"].pop("warp")
    assert table.pairs_cells(document, "dragnoise")[1][:2] == ["warp", "2"]
    for number in (4, 5):
        document["drags"][f"judging-boat-{number}"]["scores"].pop("dragnoise")
    assert table.pairs_cells(document, "dragnoise")[1][:3] == ["warp", "0", ""]


def test_words_say_where_a_warp_wins_and_where_a_method() -> None:
    said = "\n".join(verdicts(run()))
    assert "A plain editor's warp wins in 1 of 2 kinds: boat (warp 0.11, dragnoise 0.41)." in said
    assert "A method wins in 1 of 2 kinds: sky (warp 0.71, dragnoise 0.21)." in said
    assert "12 drags" in said
    assert "6 drags: dragnoise 0.79" in said
    assert "no edit 0 by definition" in said


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("warp",), "Only warps took part, no methods"),
        (("dragnoise",), "Only methods took part, no warps"),
        (("nothing",), "Neither warps nor methods"),
    ],
)
def test_words_for_one_side_alone(names: tuple[str, ...], expected: str) -> None:
    said = verdicts(run(left={"boat": dict.fromkeys(names, 0.5)}))
    assert said[0].startswith(expected)


def test_one_drag_alone_is_shown() -> None:
    document = run(each=1, left={"sky": {"warp": 0.3, "dragnoise": 0.1}})
    text = show_table(document)
    assert "0.30" in text
    assert "In 1 of 1 kinds the difference is noise, or there are fewer than 5 drags" in text


def test_no_drags_at_all() -> None:
    document = run(each=0)
    assert show_table(document) == "No drag has been judged.\n"


def test_anybody_can_be_compared_with() -> None:
    text = show_table(run(), ["freedrag", "nobody"])
    assert "Compared with freedrag" in text
    assert "-0.15 [" in text  # warps leave 0.41 of the way, freedrag 0.56
    assert "Compared with dragnoise" not in text
    titles = [section.title for section in table.sections(run())]
    assert titles[-2:] == ["Compared with dragnoise", "Compared with warp"]


def test_csv_rows() -> None:
    document = run(each=1)
    header, *rows = table.means_cells(document)
    own = [dict(zip(header, row, strict=True)) for row in rows]
    wanted = {"kind": "all", "contestant": "warp", "score": "distance_px"}
    (found,) = (row for row in own if wanted.items() <= row.items())
    assert float(found["mean"]) == pytest.approx((1 + 14) / 2)
    assert found["drags"] == "2"
    header, *rows = table.drags_cells(document)
    assert len(rows) == 10
    assert dict(zip(header, rows[1], strict=True))["template_px"] == ""


def test_columns_are_aligned() -> None:
    assert table.aligned([["a", "bb"], ["ccc", "d"]]) == "a    bb\nccc   d\n"


def _numbers(document: dict[str, Any]) -> dict[str, dict[str, float]]:
    names = read.contestants(document)
    return {
        f"{name} {score.name}": read.values(document, name, score)
        for name in names
        for score in read.SCORES
    }


def test_a_packed_record_has_the_same_numbers() -> None:
    document = run(each=2)
    document["drags"]["judging-boat-0"]["scores"]["warp"] = {"failed": "no hole"}
    document["drags"]["judging-boat-1"] = {"failed": "no memory"}
    back = unpacked(packed(document))
    found, wanted = _numbers(back), _numbers(document)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name] == pytest.approx(values, rel=1e-3), name
    assert read.failures(back) == read.failures(document)
    assert unpacked(document) == document
