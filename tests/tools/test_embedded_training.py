"""Train and pack the embedded model: the real networks on a little data."""

import math
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dragnoise.engine import Editor
from dragnoise.engine.diffusion.load import EMBEDDED
from embedded_model import drawing, networks, pack, recipe, samples, shards, train, words
from embedded_model.shards import Pairs


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(2, 30, (6, words.LENGTH), generator=generator).short()
    return Pairs(torch.randn((6, 2, 4, 32, 32), generator=generator).half(), tokens)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, pairs: Pairs) -> train.Trainer:
    trainer = train.Trainer(tmp_path_factory.mktemp("work"))
    trainer.run(pairs, train.Budget(600, steps=2))
    return trainer


def test_a_pair_leads_from_one_latent_to_the_other(pairs: Pairs) -> None:
    """The path begins at A's noisy latent; wherever it is, less its noise it is B."""
    alphas = networks.alphas_cumprod()
    batch = recipe.draw_batch(pairs, alphas, 0.45, torch.Generator().manual_seed(2))
    a = alphas[batch.time][:, None, None, None]
    torch.testing.assert_close(
        (batch.noisy - (1 - a).sqrt() * batch.noise) / a.sqrt(), batch.clean, atol=2e-4, rtol=1e-4
    )
    at_start = torch.nonzero(batch.time[-batch.moved :] == batch.high).flatten()
    assert len(at_start) > 0
    high = alphas[batch.high][:, None, None, None]
    own_noise = (batch.source - high.sqrt() * batch.clean[-batch.moved :]) / (1 - high).sqrt()
    others = (batch.noisy[-batch.moved :] - (1 - high).sqrt() * own_noise) / high.sqrt()
    for index in at_start.tolist():
        distances = (pairs.latents.float().flatten(0, 1) - others[index]).abs().amax((1, 2, 3))
        assert distances.min() < 1e-3


def test_a_batch_holds_the_shares_asked_for(pairs: Pairs) -> None:
    generator = torch.Generator().manual_seed(3)
    alphas = networks.alphas_cumprod()
    assert recipe.draw_batch(pairs, alphas, 0.5, generator, 12).moved == 6 + 1
    assert recipe.draw_batch(pairs, alphas, 0.45, generator).moved == 11 + 2
    assert recipe.draw_batch(pairs, alphas, 0.0, generator, 12).moved == 0


def test_shards_hold_what_their_seeds_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there are more than cores."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    vae = networks.read_vae(EMBEDDED)
    paths = [tmp_path / f"shard-00{number}.npz" for number in range(3)]
    assert list(shards.make_shards(paths, vae, [7, 8, 9], 3)) == paths
    assert sorted(tmp_path.iterdir()) == paths
    read = shards.read_shards(tmp_path)
    assert read.latents.shape == (9, 2, 4, 32, 32)
    pictures, captions = drawing.draw(9, 3)
    assert torch.equal(read.tokens[6:].long(), shards.tokens(captions))
    for side, some in enumerate((pictures[:3], pictures[3:])):
        here = shards.encode(vae, some)
        torch.testing.assert_close(read.latents[6:, side].float(), here, atol=0.02, rtol=0.02)
    assert not torch.equal(read.latents[3:6], read.latents[6:])


@pytest.mark.parametrize(("done", "share"), [(None, 1.0), (0.0, 1.0), (0.5, 0.525), (1.0, 0.05)])
def test_the_last_run_decays_the_rate(done: float | None, share: float) -> None:
    assert math.isclose(recipe.learning_rate(1e-3, 1000, done), share * 1e-3)


def test_training_resumes_where_it_was(trained: train.Trainer, pairs: Pairs) -> None:
    resumed = train.Trainer(trained.folder)
    assert resumed.step == trained.step == 2
    for trainer in (trained, resumed):
        trainer.run(pairs, train.Budget(600, steps=1))
    assert resumed.step == trained.step == 3
    for mine, theirs in zip(trained.networks.weights(), resumed.networks.weights(), strict=True):
        assert torch.equal(mine, theirs)
    assert all(torch.equal(value, resumed.average[name]) for name, value in trained.average.items())
    assert [file.name for file in trained.folder.iterdir()] == [train.CHECKPOINT]


def test_deep_skips_are_open_in_some_samples_and_packed_closed(
    trained: train.Trainer, pairs: Pairs
) -> None:
    batch = recipe.draw_batch(
        pairs, networks.alphas_cumprod(), 0.45, torch.Generator().manual_seed(5), 400
    )
    assert set(batch.openness.unique().tolist()) == {0.0, 1.0}
    assert 0.15 < batch.openness.mean().item() < 0.35
    closed = pack.averaged(trained.folder)[0].up_blocks[0].resnets[0].conv1.weight
    opened = pack.averaged(trained.folder, is_open=True)[0].up_blocks[0].resnets[0].conv1.weight
    own = networks.CHANNELS[-1]
    assert not closed[:, own:].any()
    assert opened[:, own:].any()
    assert torch.equal(closed[:, :own], opened[:, :own])


@pytest.mark.parametrize("openness", [0.0, 1.0])
def test_the_halves_are_the_whole_network_with_skips_open_or_closed(openness: float) -> None:
    unet = networks.new_networks(len(words.tokenizer())).unet.eval()
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for weight in unet.parameters():
            weight.copy_(0.05 * torch.randn(weight.shape, generator=generator))
        noisy = torch.randn((2, 4, 32, 32), generator=generator)
        text = torch.randn((2, words.LENGTH, networks.WIDTH), generator=generator)
        times = torch.tensor([500, 681])
        embedding, skips, bottleneck = networks.down(unet, noisy, times, text)
        gate = torch.full((2, 1, 1, 1), openness)
        output = networks.up(unet, embedding, skips, bottleneck, text, gate)[0]
        if not openness:
            networks.close_deep_skips(unet)
        torch.testing.assert_close(output, unet(noisy, times, text).sample)


def test_the_packed_folder_is_small_whole_and_loads(trained: train.Trainer, tmp_path: Path) -> None:
    target = tmp_path / "model"
    total = pack.pack(trained.folder, networks.read_vae(EMBEDDED), target, EMBEDDED)
    assert total <= pack.LIMIT_BYTES
    assert total == pack.size_bytes(target)
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    editor = Editor.from_pretrained(target)
    drag = samples.demo_drags()[0]
    points = [(*drag.handles[0], *drag.targets[0])]
    result = editor.edit(
        drag.before,
        points,
        prompt=drag.prompt,
        config=editor.defaults.replace(iterations=1, steps=4),
    )
    assert result.image.pixels.shape == drag.before.shape


def test_a_model_that_is_too_large_is_refused_and_nothing_is_left(
    trained: train.Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "LIMIT_BYTES", 1000)
    with pytest.raises(ValueError, match="more than 1000"):
        pack.pack(trained.folder, networks.read_vae(EMBEDDED), tmp_path / "model", EMBEDDED)
    assert list(tmp_path.iterdir()) == []


def test_warm_start_takes_the_rows_of_known_words() -> None:
    fresh = networks.new_networks(len(words.tokenizer()))
    networks.warm_start(fresh, EMBEDDED)
    started: dict[str, Tensor] = fresh.unet.state_dict()
    assert all(value.isfinite().all() for value in started.values())
    assert started["conv_out.weight"].any()
