"""The real Stable Diffusion 1.5 network at 512 x 512, on the meta device: shapes, and the work of
each part counted on the real graph.
"""

from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dragnoise.engine import DragConfig
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.place import Place
from dragnoise.engine.diffusion.schedule import Schedule
from dragnoise.engine.diffusion.unet import Down, UNet
from dragnoise.engine.diffusion.weights import Weights
from dragnoise.engine.drag.method import State
from dragnoise.engine.drag.scene import Scene
from dragnoise.engine.methods import METHODS
from dragnoise.kernels.patch_motion import motion_loss

GFLOP = 1e9


@cache
def network() -> UNet:
    with torch.device("meta"):
        return UNet(
            UNet2DConditionModel(
                sample_size=64,
                cross_attention_dim=768,
                attention_head_dim=8,
                block_out_channels=(320, 640, 1280, 1280),
                layers_per_block=2,
                down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
                up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            )
            .half()
            .requires_grad_(False)
            .eval()
        )


def work(run: Callable[[], object]) -> float:
    """GFLOP, one multiply-add counted as two."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops() / GFLOP)


def inputs() -> tuple[Tensor, Tensor]:
    return torch.zeros(1, 4, 64, 64, device="meta"), torch.zeros(
        1, 77, 768, device="meta", dtype=torch.float16
    )


def down() -> Down:
    return network().down(inputs()[0], network().step(681, inputs()[1]))


def test_parts() -> None:
    half = down()
    assert len(half.skips) == 12
    bottleneck = network().middle(half)
    assert bottleneck.shape == (1, 1280, 8, 8)
    up = network().up(half, bottleneck, 2)
    assert up.features is not None
    assert up.features.shape == (1, 640, 64, 64)
    assert up.output is not None
    assert up.output.shape == (1, 4, 64, 64)
    assert work(down) == pytest.approx(249.3, rel=0.01)
    assert work(lambda: network().middle(half)) == pytest.approx(11.8, rel=0.01)
    assert work(lambda: network().up(half, bottleneck)) == pytest.approx(
        25.8 + 151.5 + 166.8 + 197.6, rel=0.01
    )


@pytest.mark.parametrize(
    ("folded", "output", "expected"),
    [(False, True, 1156.0), (True, True, 1013.0), (False, False, 696.0), (True, False, 602.0)],
)
def test_one_iteration(folded: bool, output: bool, expected: float) -> None:
    """Forward and backward to the bottleneck alone: no weight has a gradient, nothing goes back
    through the encoder half.

    The published code's iteration costs 2383 GFLOP. `output` is what the mask term needs; `folded`
    is how the drag runs.
    """
    half = down()
    handles, targets = (torch.zeros(1, 2, dtype=torch.int64, device="meta") for _ in range(2))

    decoder = (
        partial(network().decode, network().folded(half)) if folded else partial(network().up, half)
    )

    def iteration() -> None:
        bottleneck = torch.zeros(1, 1280, 8, 8, device="meta", requires_grad=True)
        up = decoder(bottleneck, 2, output)
        assert up.features is not None
        loss = motion_loss(up.features[0], handles, targets, (256, 256), 1)
        if up.output is not None:
            loss = loss + up.output.float().abs().sum()
        torch.autograd.grad(loss, bottleneck)

    assert work(iteration) == pytest.approx(expected, rel=0.01)


def test_the_published_algorithm() -> None:
    """`baseline` does the published code's work: an iteration of 2383 GFLOP, whole passes to
    invert, two at once to denoise.
    """
    baseline, config, meta = METHODS["baseline"], DragConfig(), torch.device("meta")
    with meta:
        vae = AutoencoderKL(
            block_out_channels=(32,) * 4, down_block_types=("DownEncoderBlock2D",) * 4
        )
    model = baseline.prepare(
        Model("meta", network(), vae, torch.nn.Identity(), None, {}, meta, weights=Weights({}))
    )
    schedule, (latent, text) = Schedule.of({}, config.steps), inputs()
    conditioning = model.unet.condition(schedule.timesteps, text)
    handles, targets = torch.tensor([[100, 90]]), torch.tensor([[120, 105]])
    keep = torch.zeros(1, 1, 64, 64, device=meta)
    place = Place(model, schedule, 15, latent, conditioning)
    scene = Scene(place, handles, targets, (256, 256), keep, config)
    bottleneck = torch.zeros(1, 1280, 8, 8, device=meta, requires_grad=True)

    def iteration() -> None:
        seen = baseline.features(scene, None, bottleneck)
        baseline.gradient(
            baseline.supervise(scene, seen.detach(), seen, State(handles)), bottleneck
        )

    def denoise() -> None:
        baseline.finish(scene, None, bottleneck).noise(20, schedule.timesteps[20], latent)

    assert work(iteration) == pytest.approx(2383, rel=0.01)
    with torch.no_grad():
        assert work(lambda: baseline.start(place)) == pytest.approx(803.3, rel=0.01)
        assert work(lambda: model.unet(latent, place.step)) == pytest.approx(803.3, rel=0.01)
        assert work(denoise) == pytest.approx(2 * 803.3, rel=0.01)
