"""Edits of drags whose results are known, with their controls, and rivals without a model."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from dragnoise.bench.fidelity.pixels import psnr
from dragnoise.bench.quality import warps
from dragnoise.bench.quality.contestants import CONTESTANTS, Studio
from dragnoise.bench.quality.run import by_drag, jobs_of, names_of, worker
from dragnoise.bench.quality.scores import consequence, score, template_distance
from dragnoise.bench.quality.trial import Trial, edit, goal_bottleneck
from dragnoise.bench.world.drags import drag
from dragnoise.engine import DragConfig, Editor, WarpConfig


@pytest.fixture(scope="module")
def editor() -> Editor:
    return Editor.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def trial(editor: Editor) -> Trial:
    config = editor.defaults.replace(steps=6, iterations=2)
    return Trial(editor, drag("tuning", "sun", 4), config)


def test_the_optimum_s_own_bottleneck_gives_the_edit(trial: Trial) -> None:
    assert np.array_equal(trial.propagated(trial.optimum.variable), trial.picture)
    again = trial.moved_by(trial.change).astype(int)  # start + (optimum - start) rounds
    assert np.abs(again - trial.picture).max() <= 2
    assert trial.change.any()
    torch.testing.assert_close(trial.noise_like_the_change().norm(), trial.change.norm())


def test_the_reconstruction_is_nearer_to_the_source_than_the_goal_is(trial: Trial) -> None:
    where = trial.drag.area
    rebuilt = psnr(trial.rebuilt, trial.drag.before, where)
    assert rebuilt > psnr(trial.drag.after, trial.drag.before, where)


def test_the_goal_s_bottleneck_leads_towards_the_goal(editor: Editor, trial: Trial) -> None:
    leverage, goal = goal_bottleneck(editor, trial.drag, trial.config)
    assert goal.shape == trial.optimum.start.shape
    assert 0 < leverage < 2
    assert np.isfinite(trial.propagated(goal)).all()


def test_scores_know_the_source_and_the_truth() -> None:
    one = drag("tuning", "boat", 0)
    source, truth = score(one, one.before), score(one, one.after)
    assert source.distance_px == pytest.approx(one.length_px)
    assert (source.completion, source.gain_db) == (0, 0)
    assert (truth.distance_px, truth.completion_error) == pytest.approx((0, 0))
    assert (source.consequence, truth.consequence) == (0, 1)
    assert truth.template_px is not None
    assert truth.template_px < 1
    assert source.template_px == pytest.approx(one.length_px, rel=0.1)
    assert truth.inside_ssim == pytest.approx(1)
    assert truth.sharpness == 1


def test_half_a_consequence_is_half_and_overshoot_and_damage_cost() -> None:
    one = drag("tuning", "glitter", 0)
    before, after = one.before.astype(float), one.after.astype(float)
    half = ((before + after) / 2).astype(np.uint8)
    too_far = (after + 0.3 * (after - before)).clip(0, 255).astype(np.uint8)
    damaged = (before - 0.5 * (after - before)).clip(0, 255).astype(np.uint8)
    found = [consequence(one, picture) for picture in (half, too_far, damaged)]
    assert found[0] == pytest.approx(0.5, abs=0.02)
    assert found[1] is not None
    assert 0.5 < found[1] < 1
    assert found[2] is not None
    assert found[2] < 0


def test_a_plain_editor_moves_a_thing_and_brings_no_consequence() -> None:
    one = drag("tuning", "boat", 0)
    moved = score(one, warps.moved_thing(one).picture)
    assert moved.distance_px < 1
    assert moved.consequence == 0
    assert moved.gain_db > 3
    assert moved.outside_db == score(one, one.before).outside_db


@pytest.mark.parametrize("kind", ["balloon", "opposite", "maskless", "stretch"])
def test_warps_leave_what_may_not_change(kind: str) -> None:
    one = drag("tuning", kind, 1)
    thing, mask = (warp(one).picture for warp in (warps.moved_thing, warps.moved_mask))
    for picture in (thing, mask, warps.bent(one)):
        assert picture.shape == one.before.shape
        assert picture.dtype == np.uint8
        if picture is not thing:
            assert not np.array_equal(picture, one.before)
            assert np.array_equal(picture[~one.allowed], one.before[~one.allowed])


def test_an_elastic_warp_brings_the_handle_s_patch_to_the_target() -> None:
    one = drag("tuning", "sun", 1)
    found = template_distance(one, warps.bent(one))
    assert found is not None
    assert found < 3


def test_an_elastic_warp_is_the_engines(editor: Editor) -> None:
    one = drag("tuning", "many", 0)
    handles, targets = (
        tuple((float(round(x)), float(round(y))) for x, y in points)
        for points in (one.handles, one.targets)
    )
    whole = dataclasses.replace(one, handles=handles, targets=targets)
    method = edit(editor, whole, "warp", WarpConfig()).image.pixels.astype(int)
    assert np.abs(method - warps.bent(whole)).max() <= 1  # what is painted is rounded otherwise


def test_a_patch_of_one_colour_is_not_looked_for() -> None:
    one = drag("tuning", "sun", 1)
    plain = dataclasses.replace(one, before=np.full_like(one.before, 90))
    assert template_distance(plain, one.after) is None


def test_jobs_are_edited_scored_and_kept(editor: Editor, tmp_path: Path) -> None:
    few = {"iterations": 2}
    studio = Studio(editor, 6, {"dragnoise": few})
    names = names_of("tuning", ("sun",), 1)
    contestants = ["nothing", "oracle", "another", "warp-inpaint", "dragnoise"]
    work = worker(studio, tmp_path)
    results = {job: work(job) for job in jobs_of(names, contestants)}
    again = worker(Studio(editor, 6, {"dragnoise": few}), None)("tuning-sun-0/another")
    (found,) = by_drag(results).values()
    scores = found["scores"]
    assert list(scores) == contestants
    assert found["kind"] == "sun"
    assert scores["oracle"]["distance_px"] < scores["nothing"]["distance_px"]
    assert scores["dragnoise"]["iterations"] == 2
    assert scores["dragnoise"]["tflop"] > scores["nothing"]["seconds"] >= 0
    assert scores["nothing"]["tflop"] is None
    assert scores["another"]["seconds"] is None  # DragNoise's edit, there or not, is not its own
    assert scores["warp-inpaint"]["seconds"] > 0
    assert {name: again[name] for name in ("distance_px", "inside_db")} == {
        name: scores["another"][name] for name in ("distance_px", "inside_db")
    }
    pictures = {path.stem for path in (tmp_path / names[0]).iterdir()}
    assert pictures == {"before", "after", "mask", *contestants}


def test_the_model_s_settings_are_changed_by_method(editor: Editor) -> None:
    studio = Studio(editor, 10, {"dragdiffusion": {"lr": 0.5}})
    ours = studio.config("dragnoise")
    assert isinstance(ours, DragConfig)
    assert (ours.steps, ours.lr) == (10, editor.defaults.lr)
    assert studio.config("dragdiffusion").lr == 0.5
    assert set(CONTESTANTS) >= {"nothing", "oracle", "warp", "baseline", "gooddrag"}
