"""The U-Net in parts is the U-Net; the schedule is diffusers' and the published one."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from safetensors.torch import load_file
from torch import Tensor

from called import Called
from dragnoise.engine import ConfigError, ModelError
from dragnoise.engine.backends.eager import FUSED_OPERATORS
from dragnoise.engine.diffusion.load import EMBEDDED, load
from dragnoise.engine.diffusion.load.build import lay_out
from dragnoise.engine.diffusion.schedule import Schedule
from dragnoise.engine.diffusion.unet import UNet
from dragnoise.engine.diffusion.unet.operators import in_a_row
from dragnoise.engine.diffusion.weights import frozen_view
from golden_cases import GOLDEN, MODEL
from small_models import sd2

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FEATURES = 2

SIZES = {
    "square": (1, 8, 8),
    "odd": (1, 9, 13),  # every level of the decoder is told its size
    "odd further down": (1, 12, 8),
    "as small as it gets": (1, 3, 5),
    "a batch": (3, 8, 16),
    "an odd batch": (2, 7, 8),
}
every_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


@pytest.fixture(scope="module", params=["SD 1.x", "SD 2.x", "embedded"])
def unet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> UNet:
    folders: dict[str, Any] = {"SD 1.x": MODEL, "embedded": EMBEDDED}
    folder: Path = folders.get(request.param) or sd2(tmp_path_factory.mktemp("sd2") / "model")
    return load(folder, device="cpu").unet


def inputs(unet: UNet, size: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    batch, height, width = size
    random = torch.Generator().manual_seed(height * width)
    text = torch.randn(batch, 7, unet.network.config["cross_attention_dim"], generator=random)
    return torch.randn(batch, 4, height, width, generator=random), text


def assert_close(mine: Tensor, theirs: Tensor) -> None:
    """Compare up to units of rounding, summed up.

    A step's projections are rounded once more than diffusers', and 1 x 1 convolutions are done as
    products.
    """
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def whole(unet: UNet, latent: Tensor, timestep: int, text: Tensor) -> Tensor:
    sample: Tensor = unet.network(latent, timestep, encoder_hidden_states=text).sample
    return sample


def features_of_the_whole(
    unet: UNet, latent: Tensor, timestep: int, text: Tensor, bottleneck: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run diffusers' own forward with its third up block watched.

    If there is a bottleneck, it replaces the middle block's output.
    """
    kept: list[Tensor] = []
    hooks = [
        unet.network.up_blocks[FEATURES].register_forward_hook(
            lambda block, given, output: kept.append(output)
        )
    ]
    if bottleneck is not None:
        hooks.append(
            unet.network.mid_block.register_forward_hook(lambda block, given, output: bottleneck)
        )
    output = whole(unet, latent, timestep, text)
    for hook in hooks:
        hook.remove()
    return kept[0], output


@every_size
@pytest.mark.parametrize("timestep", [681, 1])
@torch.no_grad()
def test_down_middle_up_is_the_network(
    unet: UNet, size: tuple[int, int, int], timestep: int
) -> None:
    latent, text = inputs(unet, size)
    expected = whole(unet, latent, timestep, text)
    assert expected.shape == latent.shape
    assert_close(unet(latent, unet.step(timestep, text)), expected)


@every_size
@torch.no_grad()
def test_another_bottleneck_is_a_replaced_middle_block(
    unet: UNet, size: tuple[int, int, int]
) -> None:
    latent, text = inputs(unet, size)
    down = unet.down(latent, unet.step(681, text))
    bottleneck = unet.middle(down)
    changed = bottleneck + torch.randn(bottleneck.shape, generator=torch.Generator().manual_seed(1))
    for mine, replaced in ((bottleneck, None), (changed, changed)):
        features, output = features_of_the_whole(unet, latent, 681, text, replaced)
        up = unet.up(down, mine, FEATURES)
        assert up.features is not None
        assert up.output is not None
        assert_close(up.features, features)
        assert_close(up.output, output)
        if replaced is not None:
            assert_close(unet.replaced(latent, unet.step(681, text), replaced), output)
    assert not torch.equal(output, whole(unet, latent, 681, text))


@every_size
def test_stopping_at_the_features_changes_neither_them_nor_their_gradient(
    unet: UNet, size: tuple[int, int, int]
) -> None:
    latent, text = inputs(unet, size)
    down = unet.down(latent, unet.step(681, text))
    start = unet.middle(down)
    results = []
    for output in (True, False):
        bottleneck = start.clone().requires_grad_()
        up = unet.up(down, bottleneck, FEATURES, output=output)
        assert up.features is not None
        assert (up.output is not None) == output
        weights = torch.arange(up.features.numel()).view_as(up.features).float().sin()
        (gradient,) = torch.autograd.grad((up.features * weights).sum(), bottleneck)
        results.append((up.features.detach(), gradient))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][1].abs().sum() > 0


def test_features_are_given_only_where_asked_for(unet: UNet) -> None:
    latent, text = inputs(unet, (1, 8, 8))
    down = unet.down(latent, unet.step(681, text))
    assert unet.up(down, unet.middle(down)).features is None


def test_weights_are_frozen(unet: UNet) -> None:
    """Neither the network nor its inputs keep a graph: only a bottleneck that wants one does."""
    latent, text = inputs(unet, (1, 8, 8))
    down = unet.down(latent, unet.step(681, text))
    bottleneck = unet.middle(down)
    assert not any(
        tensor.requires_grad
        for tensor in (down.step.times, down.step.text, down.bottom, bottleneck, *down.skips)
    )
    up = unet.up(down, bottleneck.clone().requires_grad_())
    assert up.output is not None
    up.output.sum().backward()
    for name, weight in unet.network.named_parameters():
        assert weight.grad is None, name
        assert not weight.requires_grad, name


def test_a_double_latent_is_cast_to_the_networks_precision(unet: UNet) -> None:
    latent, text = inputs(unet, (1, 8, 8))
    assert torch.equal(
        unet(latent.double(), unet.step(681, text)), unet(latent, unet.step(681, text))
    )


def test_a_network_that_cannot_be_cut_is_refused_with_every_reason() -> None:
    config = UNet2DConditionModel.load_config(MODEL / "unet") | {
        "down_block_types": ["CrossAttnDownBlock2D"] * 3,
        "up_block_types": ["CrossAttnUpBlock2D"] * 3,
        "block_out_channels": [16, 16, 16],
        "in_channels": 9,
        "class_embed_type": "timestep",
    }
    network = UNet2DConditionModel.from_config(config)
    with pytest.raises(ModelError) as refused:
        UNet(network)
    for words in (
        "class_embed_type='timestep' is not supported",
        "9 channels to 4",
        "3 up blocks, not 4",
        "Use a Stable Diffusion",
    ):
        assert words in str(refused.value)


def test_what_was_done_to_a_network_afterwards_is_not_ignored() -> None:
    """Changes that would have no effect on our layers are refused, not dropped.

    Unmerged adapters, FreeU, and attention that is more than attention.
    """

    class Adapter(torch.nn.Linear):
        base_layer = None

    def network() -> UNet2DConditionModel:
        return UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(MODEL / "unet"))

    adapted = network()
    adapted.mid_block.attentions[0].transformer_blocks[0].attn1.to_q = Adapter(32, 32)
    with pytest.raises(
        ModelError,
        match=r"1 layers have unmerged adapters \(mid_block.*to_q, ...\): merge them with",
    ):
        UNet(adapted)
    free = network()
    free.up_blocks[0].s1 = 0.9
    with pytest.raises(ModelError, match="FreeU is on: call disable_freeu"):
        UNet(free)

    class IPAdapterAttnProcessor:
        def __call__(self) -> None: ...

    prompted = network()
    prompted.set_attn_processor(IPAdapterAttnProcessor())
    with pytest.raises(
        ModelError, match="attention processors IPAdapterAttnProcessor are not plain attention"
    ):
        UNet(prompted)
    prompted.set_attn_processor(AttnProcessor2_0())
    UNet(prompted)


@cache
def units() -> dict[str, Tensor]:
    return load_file(GOLDEN / "dragnoise" / "units" / "units.safetensors")


def test_the_schedule_is_the_published_one() -> None:
    schedule, golden = Schedule.of(SD, 50), units()
    assert schedule.timesteps == tuple(golden["timesteps"].tolist())
    assert torch.equal(schedule.alphas, golden["alphas_cumprod"])
    assert schedule.alphas[0] == golden["final_alpha_cumprod"][0]
    assert schedule.prediction == "epsilon"
    assert schedule.active(3) == ((47, 41), (48, 21), (49, 1))
    assert schedule.active(35)[0] == (15, 681)


def test_steps_are_the_published_ones() -> None:
    schedule, golden = Schedule.of(SD, 50), units()
    eps, latent, times = golden["sch_eps"], golden["sch_x"], golden["sch_t"].tolist()
    assert len(times) == 5
    for number, t in enumerate(times):
        for mine, theirs in (
            (schedule.denoise(eps, latent, t), golden["step"]),
            (schedule.denoise(eps, latent, t), golden["sched_step"]),
            (schedule.clean(eps, latent, t), golden["step_pred_x0"]),
            (schedule.invert(eps, latent, t), golden["inv_step"]),
        ):
            torch.testing.assert_close(mine[0], theirs[number], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [50, 10, 30, 80, 500, 999, 1])
def test_steps_are_the_schedulers(steps: int) -> None:
    torch.manual_seed(1)
    eps, latent = torch.randn(2, 1, 4, 6, 6)
    schedule = Schedule.of(SD, steps)
    ddim = DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    ddim.set_timesteps(steps)
    assert schedule.timesteps == tuple(ddim.timesteps.tolist())
    for t in {schedule.timesteps[i * (steps - 1) // 9] for i in range(10)}:
        expected = ddim.step(eps, t, latent)
        torch.testing.assert_close(
            schedule.denoise(eps, latent, t), expected.prev_sample, rtol=1e-6, atol=1e-6
        )
        torch.testing.assert_close(
            schedule.clean(eps, latent, t), expected.pred_original_sample, rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(
            schedule.invert(eps, schedule.denoise(eps, latent, t), t), latent, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("steps", [50, 30])
def test_slope_is_the_finite_difference(steps: int) -> None:
    schedule = Schedule.of(SD, steps)
    latent = torch.randn(
        1, 4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    for t in schedule.timesteps:
        moved = schedule.denoise(latent + 0.25, latent, t) - schedule.denoise(
            latent - 0.25, latent, t
        )
        torch.testing.assert_close(
            moved, torch.full_like(moved, 0.5 * schedule.slope(t)), rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize(("trained", "steps"), [(1000, 1000), (100, 100), (100, 150)])
def test_more_steps_than_the_model_knows_are_refused(trained: int, steps: int) -> None:
    with pytest.raises(
        ConfigError,
        match=f"steps must be fewer than the {trained} that the model was trained on, got {steps}",
    ):
        Schedule.of(SD | {"num_train_timesteps": trained}, steps)
    assert (
        len(Schedule.of(SD | {"num_train_timesteps": trained}, trained - 1).timesteps)
        == trained - 1
    )


def test_a_schedule_that_begins_at_pure_noise_is_refused() -> None:
    """Rescaled to zero terminal signal, 500 steps begin where sqrt(alpha) is zero."""
    config = {
        "num_train_timesteps": 1000,
        "rescale_betas_zero_snr": True,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
    }
    assert Schedule.of(config, 50).timesteps[0] == 981
    with pytest.raises(ConfigError, match="500 steps begin at pure noise"):
        Schedule.of(config, 500)


def test_wrapped_once_more_it_is_the_same_network() -> None:
    """Operators, what is computed in place of projections, and what ran the parts before, stay."""
    plain = load(MODEL, device="cpu").unet
    doubled = UNet(plain.network, adapt=lambda module, layer: lambda hidden: 2 * layer(hidden))
    order: list[str] = []

    def noting(name: str) -> Any:
        def wrap(*given: Any) -> Any:
            *_, part, run = given

            def noted(*inputs: Any) -> Any:
                order.append(f"{name} {part.name}")
                return run(*inputs)

            return noted

        return wrap

    inner = UNet(plain.network, wrap=noting("inner"))
    latent = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    text = torch.zeros(1, 77, plain.network.config["cross_attention_dim"])
    step = plain.step(481, text)
    assert torch.equal(inner.wrapped(noting("outer"))(latent, step), plain(latent, step))
    assert order == ["outer unet", "inner unet"]
    again = doubled.wrapped(lambda unet, part, run: run)
    assert torch.equal(again(latent, step), doubled(latent, step))
    assert not torch.equal(again(latent, step), plain(latent, step))


def test_projections_in_a_row_are_one_product(unet: UNet) -> None:
    """On CUDA weights are laid out for it; merging writes to where they lie, and is seen."""
    network = frozen_view(unet.network)
    lay_out(network)
    joint = UNet(network, FUSED_OPERATORS)
    attention = network.mid_block.attentions[0].transformer_blocks[0].attn1
    weights = [getattr(attention, name).weight for name in ("to_k", "to_v", "to_q")]
    row = in_a_row(weights)
    assert row is not None
    assert torch.equal(row, torch.cat(weights))
    assert in_a_row(weights[::-1]) is None
    assert in_a_row([weight.clone() for weight in weights]) is None

    latent, text = inputs(unet, SIZES["odd"])
    apart = UNet(network, replace(FUSED_OPERATORS, joint=False))
    with torch.no_grad():
        (mine, products), (theirs, more) = (_middle(one, latent, text) for one in (joint, apart))
        assert_close(mine, theirs)
        names = [name for name, _ in network.named_modules() if name.endswith(".attn1")]
        assert more - products == 2 * sum(not name.startswith("up") for name in names)
        weights[1].mul_(2)
        changed, _ = _middle(joint, latent, text)
        assert_close(changed, _middle(apart, latent, text)[0])
        assert float((changed - mine).abs().max()) > 1e-3


def _middle(unet: UNet, latent: Tensor, text: Tensor) -> tuple[Tensor, int]:
    """Run encoder half and middle block; return the bottleneck and the number of products."""
    step = unet.step(481, text)
    with Called() as called:
        bottleneck = unet.middle(unet.down(latent, step))
    return bottleneck, called.times["aten::mm"] + called.times["aten::addmm"]
