"""DragDiffusion and FreeDrag equal the published code on the golden cases, in parts and as a whole.
Tolerances: golden/README.md and algorithm.md.
"""

import dataclasses
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dragnoise.engine import Editor, EditResult, Record
from dragnoise.engine.diffusion.unet.mutual import MutualAttention
from dragnoise.engine.methods import METHODS, freedrag
from dragnoise.engine.stages import propagate
from dragnoise.kernels.patch_motion import patches
from dragnoise.kernels.point_tracking import track
from golden_cases import GOLDEN, MODEL
from latent_cases import NAMES, TIGHT, LatentCase

every_case = pytest.mark.parametrize("name", NAMES)


@cache
def edited(name: str) -> EditResult:
    editor = Editor.from_pretrained(MODEL, device="cpu", check_pictures=False)
    return editor.edit(**LatentCase(name).edit_inputs())


def recorded(name: str) -> Record:
    record = edited(name).record
    assert record is not None
    return record


def largest(difference: torch.Tensor) -> float:
    return float(difference.abs().max())


def units(method: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / method / "units" / "units.safetensors")


def test_all_cases_are_here() -> None:
    assert len(NAMES) >= 5
    assert {name.partition("/")[0] for name in NAMES} == {"dragdiffusion", "freedrag"}


@every_case
def test_inversion_and_reference_pass(name: str) -> None:
    data, record = LatentCase(name).data, recorded(name)
    assert largest(record.inverted - data["inverted"]) < 1e-4
    assert torch.equal(record.variable_start, record.inverted)
    assert record.reference_features is not None
    assert largest(record.reference_features - data["feat3"]) < 1e-4
    if record.keep is not None:
        assert record.reference_noise is not None
        assert largest(record.reference_noise - data["eps0"]) < 1e-4
        assert torch.equal(1 - record.keep, data["mask_latent"].float())


@every_case
def test_free_run(name: str) -> None:
    """The whole edit through the public API: points, losses, latent, picture."""
    case, record, tight = LatentCase(name), recorded(name), name in TIGHT
    data = case.data
    losses = edited(name).history.losses
    np.testing.assert_allclose(losses, data["step_loss"].numpy(), rtol=5e-3)
    if case.method == "dragdiffusion":
        assert record.handles.tolist() == data["step_handles"].tolist()
        assert edited(name).reached == case.said["result"]["reached"]
    else:
        begun = record.handles[data["outer_step"]]
        assert largest(begun - data["outer_cur_out"]) < 1e-4
        assert edited(name).reached == all(case.said["result"]["final_sign"])
    assert largest(record.variable - data["updated_latent"]) < (1e-4 if tight else 1.5e-2)
    assert largest(record.final_latent[0] - data["final_latents"][1]) < (1e-4 if tight else 5e-2)
    pixels = np.abs(edited(name).image.pixels.astype(int) - data["final_image_u8"].numpy())
    assert pixels.max() <= (1 if tight else 6)


@every_case
def test_teacher_forced_loss_and_gradient(name: str) -> None:
    """From the recorded latent and points of every kept iteration."""
    case, record = LatentCase(name), recorded(name)
    method: Any = METHODS[case.method]
    data, kinks = case.data, case.said["result"]["n_xprev_kinks_below_2e6_by_step"]
    scene = dataclasses.replace(record.scene, shown=None)
    place = dataclasses.replace(scene.place, latent=data["inverted"])
    scene = dataclasses.replace(scene, place=place)
    reference = method.features(scene, None, data["inverted"]).detach()
    begun = method.begin(scene, reference)
    checked = 0
    for step, latent in zip(data["step_index"].tolist(), data["step_param"], strict=True):
        if case.method == "freedrag" and step >= data["outer_step"].tolist()[1]:
            continue  # its templates are the run's own: the free run covers them
        variable = latent[None].clone().requires_grad_()
        forward = method.features(scene, None, variable)
        state = begun
        if case.method == "dragdiffusion":
            state = dataclasses.replace(begun, handles=data["step_handles"][step].long())
        loss = method.supervise(scene, reference, forward, state)
        assert loss.item() == pytest.approx(data["step_loss"][step].item(), rel=2e-5)
        (gradient,) = torch.autograd.grad(loss, variable)
        wanted = data["step_grad"][checked]
        error = float((gradient[0] - wanted).norm() / wanted.norm())
        on_a_kink = step > 0 and kinks[step] > 0 and scene.keep is not None
        assert error < (2e-2 if on_a_kink else 5e-5), f"iteration {step}"
        checked += 1
    assert checked >= 2


@every_case
def test_denoise_from_the_recorded_latent(name: str) -> None:
    """With the unedited picture's keys and values, which the record has kept."""
    data, record = LatentCase(name).data, recorded(name)
    method = METHODS[LatentCase(name).method]
    final = propagate(method, record.scene, None, data["updated_latent"])
    assert largest(final[0] - data["final_latents"][1]) < 2e-4


def test_tracking_at_the_border_is_the_published_one() -> None:
    """DragDiffusion's windows are clamped into the map, as ours are."""
    given = units("dragdiffusion")
    before, now = given["F0"][0], given["F1"][0]
    size = (before.shape[1], before.shape[2])
    handles, placed = given["track_in"].long(), given["track_init"].long()
    origins = patches(before, placed, size, 0)[:, :, 0, 0]
    moved = track(now, origins, handles, handles, size, 3).moved
    assert moved.tolist() == given["track_out"].tolist()


def test_the_line_search_is_the_published_one() -> None:
    """36 searches: ahead, staying and back, at three distances and three reaches."""
    given = units("freedrag")
    size = tuple(given["F1"].shape[2:])
    template = given["gep_template"].T.reshape(1, 6, 5, 5)
    for expected, reach, arrived, now, threshold, row, column in given["gep_table"].tolist():
        advances = now < threshold
        settings = SimpleNamespace(l_expected=expected, d_max=reach, win_r=2)
        scene: Any = SimpleNamespace(
            settings=settings, targets=given["gep_target"][None], resolution=size
        )
        # The published search is told its threshold; ours is half of the expected distance.
        scale = 1.0 if advances else 10 * expected
        state = freedrag.WaypointState(
            given["gep_current"][None],
            template,
            torch.tensor([arrived * scale]),
            torch.tensor([now * scale]),
            torch.tensor(1),
            torch.tensor(False),
        )
        forward: Any = SimpleNamespace(features=given["F1"])
        found = freedrag._search(scene, forward, state)
        assert found[0].tolist() == pytest.approx([row, column], abs=1e-4)


def test_how_much_a_template_takes_on_is_the_published_formula() -> None:
    given = units("freedrag")
    shares = freedrag._share(given["xishu_loss"], 1.0)
    torch.testing.assert_close(shares, given["xishu_out"], atol=1e-5, rtol=0)


def test_features_between_cells_are_the_published_ones() -> None:
    given = units("freedrag")
    inside = (given["gfp_pos"] >= 0).all(1)
    size = (given["F0"].shape[2], given["F0"].shape[3])
    for key in ("F0", "F1"):
        looks = patches(given[key][0], given["gfp_pos"][inside], size, 0)[:, :, 0, 0]
        if largest(looks - given["gfp_out"][inside]) < 1e-5:
            return
    pytest.fail("features at the recorded positions are not the recorded ones")


def test_mutual_attention_reads_what_was_shown_in_the_last_layers_alone() -> None:
    """Also nothing where nothing is read, and in order."""
    mutual = MutualAttention()
    numbers = [mutual.add() for _ in range(4)]
    keys = [torch.full((1, 2, 3), float(number)) for number in numbers]
    with mutual.showing(2) as shown:
        for number in numbers:
            mutual.show(number, keys[number], -keys[number])
    assert [float(each.mean()) for each in shown] == [2, -2, 3, -3]
    with mutual.reading(shown):
        assert mutual.read(0) is None
        assert mutual.read(1) is None
        for number in (2, 3):
            read = mutual.read(number)
            assert read is not None
            assert float(read[0].mean()) == number
    assert mutual.read(3) is None
