"""DIFT's features are diffusers' own, and points are found again by them."""

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor

from dragnoise.bench.fidelity.dift import Dift
from dragnoise.bench.fidelity.distance import (
    cosine_maps,
    find,
    masked_distance,
    mean_distance,
    windowed_distance,
    windows,
)
from dragnoise.bench.fidelity.pixels import Pixels
from dragnoise.bench.world.drags import Drag, drags
from dragnoise.engine import ConfigError, ImageError, MaskError, PointError
from dragnoise.engine.diffusion.load import load
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.errors import NumbersError
from dragnoise.engine.stages import embed
from golden_cases import MODEL


@cache
def model() -> Model:
    return load(MODEL, device="cpu", dtype="float32")


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@torch.no_grad()
def published(pixels: Pixels, block: int, draws: int, stream: torch.Generator) -> Tensor:
    """Return the features as diffusers' own modules make them, every draw encoded by itself."""
    told = model()
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].repeat(draws, 1, 1, 1) / 127.5 - 1
    latents = told.vae.encode(batch).latent_dist.sample(stream) * told.vae.config["scaling_factor"]
    noise = torch.randn(latents.shape, generator=stream)
    time = torch.tensor(261)
    noisy = DDIMScheduler.from_config(told.scheduler).add_noise(latents, noise, time)
    network = told.unet.network
    shown: list[Tensor] = []
    hook = network.up_blocks[block].register_forward_hook(lambda *told: shown.append(told[2]))
    network(noisy, time, encoder_hidden_states=embed(told, "a cat").repeat(draws, 1, 1))
    hook.remove()
    return shown[0].mean(0)


@pytest.mark.parametrize(
    ("block", "draws", "size"),
    [(1, 8, (64, 72)), (0, 2, (93, 101)), (2, 3, (80, 67))],
    ids=["the protocol", "sides that leave some over", "another block"],
)
def test_features_are_those_of_the_published_code(
    block: int, draws: int, size: tuple[int, int]
) -> None:
    finder = Dift(model(), up_block=block, ensemble=draws)
    ours_stream = torch.Generator().manual_seed(3)
    theirs_stream = torch.Generator().manual_seed(3)
    for seed in (1, 2):  # two pictures, one stream
        pixels = picture(*size, seed)
        ours = finder.features(pixels, "a cat", ours_stream)
        theirs = published(pixels, block, draws, theirs_stream)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert torch.equal(ours_stream.get_state(), theirs_stream.get_state())


@pytest.mark.parametrize(
    "drag", drags("tuning", ("boat", "house", "sun"), 2), ids=lambda it: it.name
)
def test_points_are_found_where_they_were_moved_to(drag: Drag) -> None:
    """By a trained model: on random weights the noise decides."""
    finder = Dift(load(None, device="cpu", dtype="float32"), ensemble=2)
    source, edited = (
        finder.features(pixels, drag.prompt, torch.Generator().manual_seed(seed))
        for seed, pixels in enumerate((drag.before, drag.after))
    )
    points = (drag.handles, drag.targets, (128, 128))
    still = mean_distance(source, source, *points)
    assert still.mean_px == pytest.approx(drag.length_px, abs=1)
    assert mean_distance(source, edited, *points).mean_px < 4
    assert windowed_distance(source, edited, *points).mean_px < 4


def test_cosines_are_those_of_features_enlarged_as_a_whole() -> None:
    random = torch.Generator().manual_seed(1)
    source, edited = torch.randn(2, 150, 6, 7, generator=random)
    handles = [(3.0, 4.0), (40.2, 30.6)]
    maps = cosine_maps(source, edited, handles, (45, 51))
    wide = [F.interpolate(each[None], (45, 51), mode="bilinear") for each in (source, edited)]
    for number, (x, y) in enumerate([(3, 4), (40, 31)]):
        vector = wide[0][0, :, y, x].view(1, -1, 1, 1)
        expected = F.cosine_similarity(vector, wide[1])[0]
        torch.testing.assert_close(maps[number], expected, rtol=0, atol=1e-5)


def test_a_twin_far_away_counts_in_the_whole_picture_alone() -> None:
    maps = torch.zeros(1, 60, 80)
    maps[0, 50, 70] = 1.0  # the twin
    maps[0, 12, 33] = 0.5
    handles, targets = [(10.0, 10.0)], [(30.0, 10.0)]
    anywhere = find(maps, targets)
    assert anywhere.points == ((70.0, 50.0),)
    assert anywhere.mean_px == pytest.approx(np.hypot(40, 40))
    near = find(maps, targets, windows(handles, targets, (60, 80)))
    assert near.points == ((33.0, 12.0),)
    assert near.distances_px[0] == pytest.approx(np.hypot(3, 2))


def test_the_window_holds_the_handle_and_no_more_than_the_picture() -> None:
    maps = torch.zeros(1, 30, 30)
    maps[0, 2, 2] = 1.0
    near = windows([(2.0, 2.0)], [(20.0, 2.0)], (30, 30))
    assert find(maps, [(20.0, 2.0)], near).mean_px == 18
    maps[0, 2, 1] = 2.0
    assert find(maps, [(20.0, 2.0)], near).mean_px == 18
    short = windows([(4.0, 2.0)], [(3.0, 2.0)], (30, 30))
    assert find(maps, [(3.0, 2.0)], short).mean_px == 2  # 12 px at least
    assert short[0, :15, :16].all()
    assert int(short.sum()) == 15 * 16


def test_a_twin_outside_the_mask_does_not_count() -> None:
    """Against the cosines of the masked places alone, as the published script has them."""
    source, edited = torch.randn(2, 9, 5, 6, generator=torch.Generator().manual_seed(2))
    handles, targets = [(3.0, 4.0), (11.0, 2.0)], [(9.0, 7.0), (1.0, 1.0)]
    mask = np.random.default_rng(4).random((15, 18)) < 0.2
    wide = [F.interpolate(each[None], (15, 18), mode="bilinear")[0] for each in (source, edited)]
    rows, columns = np.nonzero(mask)
    found = masked_distance(source, edited, handles, targets, mask)
    for number, ((x, y), target) in enumerate(zip(handles, targets, strict=True)):
        vector = wide[0][:, int(y), int(x), None]
        best = int(F.cosine_similarity(vector, wide[1][:, rows, columns], dim=0).argmax())
        assert found.points[number] == (columns[best], rows[best])
        away = np.hypot(columns[best] - target[0], rows[best] - target[1])
        assert found.distances_px[number] == pytest.approx(away)
    everywhere = masked_distance(source, edited, handles, targets, np.ones((15, 18), bool))
    assert everywhere == mean_distance(source, edited, handles, targets, (15, 18))
    assert everywhere != found


def test_nothing_to_look_in_or_for_is_refused() -> None:
    features = torch.ones(2, 3, 3)
    with pytest.raises(MaskError, match="no pixel to look for a point in"):
        masked_distance(features, features, [(1, 1)], [(2, 2)], np.zeros((6, 6), bool))
    with pytest.raises(PointError, match="no handle to find again"):
        mean_distance(features, features, [], [], (6, 6))


def test_features_that_are_not_finite_are_found_nowhere() -> None:
    features = torch.ones(2, 3, 3)
    broken = features.clone()
    broken[1, 2, 2] = torch.nan
    for pair in ((features, broken), (broken, features)):
        with pytest.raises(NumbersError, match="features are not finite"):
            mean_distance(*pair, [(1, 1)], [(2, 2)], (6, 6))


@pytest.mark.parametrize("targets", [[], [(1.0, 1.0), (2.0, 2.0)]])
def test_a_target_is_given_for_each_handle(targets: list[tuple[float, float]]) -> None:
    features = torch.ones(2, 3, 3)
    for distance in (mean_distance, windowed_distance):
        with pytest.raises(PointError, match=f"1 handles and {len(targets)} targets"):
            distance(features, features, [(1, 1)], targets, (6, 6))


def test_the_first_of_equal_places_is_taken() -> None:
    assert find(torch.ones(1, 4, 5), [(2.0, 2.0)]).points == ((0.0, 0.0),)


@pytest.mark.parametrize("wrong", [{"up_block": 4}, {"timestep": 1000}, {"ensemble": 0}])
def test_what_the_model_has_not_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="take a time from 0 to 999"):
        Dift(model(), **wrong)


def test_a_picture_that_leaves_the_model_nothing_is_refused() -> None:
    with pytest.raises(ImageError, match="a picture of 100x20 is too small"):
        Dift(model()).features(picture(20, 100), "", torch.Generator())
