"""Blocks are held where they are said to be, and held ones agree with the engine's own."""

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import small_models
from dragnoise.bench.measure.models import model
from dragnoise.bench.replacement.blocks import Output, blocks_of, zeros_like
from dragnoise.bench.replacement.observe import SOURCES, observe
from dragnoise.bench.replacement.rebuild import Held, Rebuilt, denoise, outputs_at, rebuild
from dragnoise.bench.replacement.subjects import Subject, known, of_one_size
from dragnoise.engine import DragConfig, Editor, stages
from dragnoise.engine.backends.packed import objections_to
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.place import Place
from dragnoise.engine.drag.scene import Scene
from dragnoise.engine.methods.dragnoise import DRAGNOISE

SETTINGS = DragConfig(steps=5, strength=0.8, end_step=0)
ACTIVE = SETTINGS.active_steps
BLOCKS = [f"down {n}" for n in range(4)] + ["middle"] + [f"up {n}" for n in range(4)]


def subjects(size: tuple[int, int] = (64, 64)) -> list[Subject]:
    return of_one_size(known("boat,house", None), size)


@cache
def pair() -> tuple[Rebuilt, Rebuilt]:
    boat, house = (rebuild(golden(), subject, SETTINGS) for subject in subjects())
    return boat, house


@cache
def golden() -> Model:
    return model("golden", "cpu", "float32")


def held_from(rebuilt: Rebuilt, start: int, block: str, output: Output) -> Tensor:
    """Return the clean latent."""
    return denoise(rebuilt.place, rebuilt.latents[start], start, Held(block, output))[-1]


def test_the_blocks_of_a_network() -> None:
    assert list(blocks_of(golden().unet.network)) == BLOCKS


def test_nothing_held_is_the_reconstruction() -> None:
    """Bit for bit, from every step on, also after blocks were held; and it is the engine's."""
    boat, _ = pair()
    assert len(boat.latents) == ACTIVE + 1
    for block, output in outputs_at(boat, 0).items():
        held_from(boat, 0, block, output)
    for start in range(ACTIVE + 1):
        latents = denoise(boat.place, boat.latents[start], start)
        assert all(map(torch.equal, latents, boat.latents[start:]))
    place = boat.place
    for number, (_, timestep) in enumerate(place.schedule.active(ACTIVE)):
        latent = boat.latents[number]
        output = place.model.unet(latent, place.conditioning.at(timestep))
        noise = place.schedule.noise(output, latent, timestep)
        after = place.schedule.denoise(noise, latent, timestep)
        torch.testing.assert_close(boat.latents[number + 1], after, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", BLOCKS)
def test_holding_counts_from_the_second_step_on(block: str) -> None:
    """From the last step on, and beyond it, every block's own output changes no bit."""
    boat, _ = pair()
    for start in (ACTIVE - 1, ACTIVE):
        own = outputs_at(boat, ACTIVE - 1)[block]
        assert torch.equal(held_from(boat, start, block, own), boat.latents[-1])
    assert not torch.equal(held_from(boat, 0, block, outputs_at(boat, 0)[block]), boat.latents[-1])


@pytest.mark.parametrize("start", range(ACTIVE))
def test_the_middle_block_held_is_the_engines_propagation(start: int) -> None:
    """A drag that changes nothing holds the bottleneck of its step to the end."""
    boat, _ = pair()
    steps = ACTIVE - start
    place = Place.at(golden(), boat.latents[start], boat.place.conditioning, steps)
    began = DRAGNOISE.start(place)
    nowhere = torch.zeros((0, 2), dtype=torch.int64)
    settings = SETTINGS.replace(strength=steps / SETTINGS.steps)
    scene = Scene(place, nowhere, nowhere, (32, 32), None, settings)
    ours = outputs_at(boat, start)["middle"]
    assert isinstance(ours, Tensor)
    torch.testing.assert_close(ours, began.variable, rtol=1e-4, atol=1e-4)
    engines = stages.propagate(DRAGNOISE, scene, began.constants, began.variable)
    held = held_from(boat, start, "middle", ours)
    torch.testing.assert_close(held, engines, rtol=2e-4, atol=2e-4)


def test_anothers_last_block_predicts_anothers_noise() -> None:
    """What follows the last block reads nothing else: at the last step the noise is the other's."""
    boat, house = pair()
    last = ACTIVE - 1
    others = held_from(boat, last, "up 3", outputs_at(house, last)["up 3"])
    schedule = boat.place.schedule
    _, timestep = schedule.active(ACTIVE)[last]
    network = golden().unet.network
    with torch.no_grad():
        output = network(house.latents[last], timestep, encoder_hidden_states=house.place.text)
    noise = schedule.noise(output.sample, house.latents[last], timestep)
    assert torch.equal(others, schedule.denoise(noise, boat.latents[last], timestep))


def test_the_sources() -> None:
    boat, house = pair()
    own, other, zeros = (source(boat, house, 1) for source in SOURCES.values())
    assert list(own) == list(other) == list(zeros) == BLOCKS
    flat = [
        torch.cat([part.flatten() for part in parts_of(each["down 1"])])
        for each in (own, other, zeros)
    ]
    assert flat[0].shape == flat[1].shape == flat[2].shape
    assert not torch.equal(flat[0], flat[1])
    assert flat[0].any()
    assert not flat[2].any()


def parts_of(output: Output) -> list[Tensor]:
    """Return an output's tensors."""
    return (
        [output] if isinstance(output, Tensor) else [t for part in output for t in parts_of(part)]
    )


def test_an_observation_has_a_cell_for_everything() -> None:
    boat, house = pair()
    told: list[str] = []
    cells = list(observe(boat, house, [2, 3], ["own", "other"], told.append))
    names = [(cell.source, cell.start, cell.block) for cell in cells]
    assert names == [(s, n, b) for s in ("own", "other") for n in (2, 3) for b in BLOCKS]
    assert told[0] == "boat: own held from step 2"
    for cell in cells:
        figures = cell.figures()
        assert 0 <= figures["pixels_share"] <= 1
        if (cell.source, cell.start) == ("own", 3):
            assert figures["pixels"] == figures["structure"] == figures["pixels_share"] == 0


@pytest.mark.skipif(
    bool(objections_to(torch.device("cpu"), torch.float32)), reason="not packed here"
)
def test_packed_weights_are_read_as_they_were() -> None:
    """A model that the engine has packed gives the bits of one that was never run."""
    used = model("golden", "cpu", "float32")
    boat, _ = subjects()
    editor = Editor(used, backend="packed", check_pictures=False)
    editor.edit(boat.image, [((20, 20), (30, 20))], config=SETTINGS.replace(iterations=1))
    modules = used.unet.held.network.modules()
    assert any(isinstance(module, nn.Conv2d) and module.weight.is_mkldnn for module in modules)
    again = rebuild(used, boat, SETTINGS)
    first = rebuild(model("golden", "cpu", "float32"), boat, SETTINGS)
    assert torch.equal(again.latents[-1], first.latents[-1])


def test_odd_sizes() -> None:
    """The latent has odd sides; a skip's size, not a double, is upsampled to."""
    boat, house = (rebuild(golden(), subject, SETTINGS) for subject in subjects((52, 76)))
    assert boat.latents[0].shape == (1, 4, 7, 10)
    for block, output in outputs_at(house, 1).items():
        assert held_from(boat, 1, block, output).isfinite().all()
    assert boat.image.pixels.shape == (52, 76, 3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_architectures(dtype: str, tmp_path: Path) -> None:
    """Stable Diffusion 2 predicts v; in bfloat16 the schedule stays in float32."""
    loaded = model(str(small_models.sd2(tmp_path)), "cpu", dtype)
    boat = rebuild(loaded, subjects()[0], SETTINGS)
    assert boat.latents[-1].dtype == torch.float32
    outputs = outputs_at(boat, ACTIVE - 1)
    for block, output in outputs.items():
        held = held_from(boat, ACTIVE - 1, block, output)
        assert torch.equal(held, boat.latents[-1])
        changed = held_from(boat, ACTIVE - 1, block, zeros_like(output))
        assert not torch.equal(changed, boat.latents[-1])
