"""The embedded generator's trainer: it learns, goes on, and leaves what the engine reads."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from embedded_gan import output, pictures
from embedded_gan.__main__ import main
from embedded_gan.discriminator import GROUP, Discriminator
from embedded_gan.recipe import Recipe
from embedded_gan.train import Draws, Trainer, reduced

SMALL = Recipe((8, 8, 8), z=4, w=6, mapping=2, batch=8, penalty_every=2, smoothing_every=2)


def new_trainer(seed: int = 0) -> Trainer:
    torch.manual_seed(seed)
    drawn = torch.randint(0, 256, (16, 3, 16, 16), dtype=torch.uint8)
    return Trainer(SMALL, drawn, torch.float32)


def test_pictures_do_not_depend_on_the_processes(tmp_path: Path) -> None:
    count = pictures.CHUNK + 1
    paths = pictures.draw_files(tmp_path, ("land", "air"), count, seconds=60, workers=2)
    assert [path.name for path in paths] == ["land-air-0000.npy", "land-air-0001.npy"]
    first, second = (np.load(path) for path in paths)
    assert first.shape == (pictures.CHUNK, 3, 128, 128)
    np.testing.assert_array_equal(first[:6], pictures.draw(("land", "air"), 6, 0))
    assert not np.array_equal(first[:6], second[:6])


def test_an_update_is_deterministic_and_moves_every_weight() -> None:
    one, other = new_trainer(), new_trainer()
    before = {name: value.clone() for name, value in one.generator.named_parameters()}
    torch.manual_seed(1)
    losses = [one.update() for _ in range(2)]
    torch.manual_seed(1)
    again = [other.update() for _ in range(2)]
    torch.testing.assert_close(losses, again, rtol=0, atol=0)
    assert all(torch.isfinite(loss).all() for loss in losses)
    for name, value in one.generator.named_parameters():
        assert not torch.equal(value, before[name]), name
        torch.testing.assert_close(value, other.generator.get_parameter(name), rtol=0, atol=0)


def test_the_gradient_penalty_is_the_slopes_square() -> None:
    trainer = new_trainer()
    trainer.draws.draw(16, SMALL.architecture.rows, SMALL.mixing)
    real = trainer._real()
    judge = Discriminator(SMALL.channels)
    judge.load_state_dict(trainer.discriminator.state_dict())
    reported = float(trainer._penalise())
    step = 1e-2
    direction = torch.randn(real.shape)
    with torch.no_grad():
        forward = judge(real + step * direction).sum()
        backward = judge(real - step * direction).sum()
    leaf = real.clone().requires_grad_()
    (slope,) = torch.autograd.grad(judge(leaf).sum(), leaf)
    along = float((slope * direction).sum())
    assert abs(float(forward - backward) / (2 * step) - along) < 0.05 * abs(along) + 0.05
    assert abs(reported - float(slope.square().sum((1, 2, 3)).mean())) < 1e-4


def test_draws_mix_as_many_pictures_as_asked() -> None:
    draws = Draws(
        torch.zeros(4000, dtype=torch.int64),
        torch.zeros(2, 4000, 2),
        torch.zeros(4000, dtype=torch.int64),
        torch.zeros(1, 3, 4, 4),
    )
    torch.manual_seed(2)
    draws.draw(10, 6, 0.25)
    mixed = draws.cross < 6
    assert 0.2 < mixed.float().mean() < 0.3
    assert set(draws.cross.tolist()) == {1, 2, 3, 4, 5, 6}
    assert set(draws.index.tolist()) == set(range(10))


def test_scores_depend_on_the_own_group_only() -> None:
    torch.manual_seed(0)
    judge = Discriminator((8, 8))
    first, second, third = torch.randn(3, GROUP, 3, 8, 8).unbind()
    with_second = judge(torch.cat([first, second]))[:GROUP]
    torch.testing.assert_close(with_second, judge(torch.cat([first, third]))[:GROUP])
    mixed = judge(torch.cat([first[:2], second[:2]]))[:2]
    assert not torch.allclose(with_second[:2], mixed)


def test_goes_on_from_what_was_written(tmp_path: Path) -> None:
    trainer = new_trainer()
    for _ in range(2):
        trainer.update()
    output.write(tmp_path, trainer)
    other = new_trainer(seed=5)
    assert output.resume(tmp_path, other)
    assert other.seen == trainer.seen == 16
    for one, two in zip(
        (*trainer.generator.parameters(), *trainer.discriminator.parameters()),
        (*other.generator.parameters(), *other.discriminator.parameters()),
        strict=True,
    ):
        torch.testing.assert_close(one.half().float(), two)
    assert not output.resume(tmp_path / "nowhere", other)
    (tmp_path / "generator" / "model.safetensors").unlink()
    again = new_trainer(seed=6)
    assert output.resume(tmp_path, again)
    start = again.average.synthesis.start
    torch.testing.assert_close(start, trainer.generator.synthesis.start.half().float())


def test_pictures_are_reduced_by_means() -> None:
    picture = torch.tensor([[0, 2, 8, 8], [4, 6, 8, 9]], dtype=torch.uint8).repeat(1, 3, 2, 1)
    assert reduced(picture, 2)[0, 0].tolist() == [[3, 8], [3, 8]]
    assert reduced(picture, 4) is picture


def test_the_command_trains_until_its_deadline_and_leaves_its_files(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    np.save(work / "land-0000.npy", pictures.draw(("land",), 12, 0))
    before = signal.getsignal(signal.SIGTERM)
    deadline = time.time() + 7.5
    arguments = ["run", "--out", str(out), "--work", str(work), "--deadline", str(deadline)]
    assert main([*arguments, "--channels", "4,4,4", "--batch", "8"]) == 0
    signal.signal(signal.SIGTERM, before)
    assert time.time() < deadline
    config = json.loads((out / "generator" / "config.json").read_text())
    assert config["channels"] == [4, 4, 4]
    weights = load_file(out / "generator" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    assert weights["mean"].abs().max() > 0
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.size == (8 * 16, 8 * 16)
    assert int(load_file(out / "state-generator.safetensors")["seen"]) >= 8
