"""The tables of presets and of live records, on made-up records."""

from typing import Any

import pytest

from dragnoise.bench.report.live import LIVE_HEADER, live_cells, presets_cells

LIVE: dict[str, Any] = {
    "bench": "live",
    "model": "embedded",
    "size": "128x128",
    "dtype": "float32",
    "variant": "live",
    "first_frame_ms": 812.0,
    "grown_bytes_per_1000_events": 2000.0,
    "pointer": {
        "frames_per_s": 5.25,
        "stale": 0,
        "latency_ms": {"p50": 180.0, "p95": 260.0, "p99": 300.0},
        "event_ms": {},
    },
    "ratios": {"published / frame": {"median": 31.0}, "published / fast": {"median": 6.5}},
    "next_tflop": {"published": 111.0, "fast": 11.75, "frame": 5.75},
}


def quality(*names: str) -> dict[str, Any]:
    scores = {
        name: {"distance_px": 2.0 * place, "consequence": 0.5, "sharpness": 0.7}
        for place, name in enumerate(names)
    }
    drags = {
        f"judging-boat-{number}": {"kind": "boat", "length_px": 10.0, "scores": scores}
        for number in range(6)
    }
    return {"contestants": dict.fromkeys(names, ""), "drags": drags}


def test_a_preset_has_its_scores_its_work_and_its_ratio() -> None:
    header, published, fast, live = presets_cells(quality("live", "fast", "published"), LIVE)
    assert header[1:4] == ["way left", "consequence", "sharpness"]
    assert published[1:] == ["0.40", "0.50", "0.70", "111", "1"]
    assert fast[1:] == ["0.20", "0.50", "0.70", "11.8", "6.5"]
    assert live[1:] == ["0.00", "0.50", "0.70", "5.75", "31"]


def test_a_preset_that_was_not_judged_has_no_row() -> None:
    assert len(presets_cells(quality("fast", "elastic-warp"), LIVE)) == 1 + 2
    warp = presets_cells(quality("elastic-warp"), LIVE)[1]
    assert warp[4:] == ["0", "-"]


def test_a_live_record_is_a_row() -> None:
    header, row = live_cells(LIVE)
    assert tuple(header) == LIVE_HEADER
    assert row == [
        "embedded 128x128, float32, preset live",
        "5.25",
        "180 / 260",
        "-",
        "0",
        "31",
        "6.5",
        "812",
        "2",
    ]


@pytest.mark.parametrize("missing", ["published / frame", "published / fast"])
def test_what_was_not_measured_is_a_dash(missing: str) -> None:
    ratios = {name: each for name, each in LIVE["ratios"].items() if name != missing}
    assert "-" in live_cells(LIVE | {"ratios": ratios, "grown_bytes_per_1000_events": None})[1]
