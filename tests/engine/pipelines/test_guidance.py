"""Classifier-free guidance: two texts, one prediction, in every stage; and nothing at all where it
is 1.
"""

import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dragnoise.engine import ConfigError, DragConfig, Editor, EditResult, InputWarning, SessionError
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.place import Place
from dragnoise.engine.diffusion.unet import Conditioning, Guidance, UNet
from dragnoise.engine.drag.scene import Scene
from dragnoise.engine.methods import METHODS
from dragnoise.engine.methods.baseline import _motion
from dragnoise.engine.stages import condition, embed, invert
from golden_cases import MODEL, Case
from small_models import sd2
from tolerances import assert_close

QUICK = DragConfig(steps=10, strength=0.3, iterations=4, guidance=7.5)
CASE = Case("dn01_short_early_stop")
TEXTS = ("a ring", "a disc")
G = 7.5


@pytest.fixture(scope="module", params=["1.5", "2.x"])
def exact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A small model of either kind with its U-Net in float64."""
    folder = MODEL if request.param == "1.5" else sd2(tmp_path_factory.mktemp("sd2") / "model")
    model = Editor.from_pretrained(folder, device="cpu", backend="eager").model
    return replace(model, unet=UNet(model.unet.network.double()))


@cache
def editor(backend: str = "eager", dtype: str = "float32") -> Editor:
    return Editor.from_pretrained(
        MODEL, device="cpu", check_pictures=False, backend=backend, dtype=dtype
    )


def edit(editor: Editor, **changes: Any) -> EditResult:
    inputs: dict[str, Any] = {
        "points": "100,90:140,120",
        "prompt": "a ring",
        "config": QUICK,
        "record": True,
    }
    return editor.edit(CASE.image, **inputs | changes)


def told(model: Model, guidance: float, steps: int = 10) -> Conditioning:
    negative, prompt = TEXTS
    return condition(
        model, embed(model, prompt, negative if guidance > 1 else None), steps, guidance
    )


def alone(model: Model, prompt: str, steps: int = 10) -> Conditioning:
    return condition(model, embed(model, prompt), steps)


def random_latent(*size: int) -> Tensor:
    return torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(1))


def test_the_formulas() -> None:
    outputs, features = torch.randn(2, 4, 3, 3), torch.randn(2, 5, 3, 3)
    three = Guidance(3.0)
    assert_close(three.output(outputs)[0], 3 * outputs[1] - 2 * outputs[0])
    found = three.features(features)
    assert found.shape == (1, 10, 3, 3)
    assert_close(found[0, :5], 0.4 * features[0])
    assert_close(found[0, 5:], 0.6 * features[1])
    assert torch.equal(three.latents(outputs[:1]), outputs[[0, 0]])
    assert three.output(outputs.bfloat16()).dtype == torch.float32
    assert three.output(outputs.double()).dtype == torch.float64


def test_no_guidance_is_no_work() -> None:
    given = torch.randn(1, 4, 3, 3)
    none = Guidance()
    for handed_on in (none.latents(given), none.output(given), none.features(given)):
        assert handed_on is given


def test_no_guidance_is_the_network_alone() -> None:
    """The public ways through the network are the parts, bit for bit."""
    model = editor().model
    step, latent = told(model, 1.0).at(501), random_latent(16, 16)
    unet = model.unet
    assert step.text.shape[0] == 1
    assert torch.equal(unet(latent, step), unet.part_whole(latent, step.times, step.text))
    down = unet.down(latent, step)
    bottleneck = unet.middle(down)
    up = unet.up(down, bottleneck, 2)
    features, output = unet.part_up(bottleneck, down.skips, step.times, step.text, 2)
    for mine, yours in ((up.features, features), (up.output, output)):
        assert mine is not None
        assert yours is not None
        assert torch.equal(mine, yours)


@pytest.mark.parametrize("size", [(16, 16), (13, 19)], ids=["even", "odd"])
def test_every_way_through_the_network_is_two_passes(exact: Model, size: tuple[int, int]) -> None:
    unet, latent = exact.unet, random_latent(*size).double()
    step = told(exact, G).at(501)
    apart = [alone(exact, text).at(501) for text in TEXTS]

    def guided(outputs: list[Tensor]) -> Tensor:
        return outputs[0] + G * (outputs[1] - outputs[0])

    assert_close(unet(latent, step), guided([unet(latent, one) for one in apart]))
    downs, down = [unet.down(latent, one) for one in apart], unet.down(latent, step)
    bottlenecks, bottleneck = [unet.middle(one) for one in downs], unet.middle(down)
    assert_close(bottleneck, torch.cat(bottlenecks))
    moved = bottleneck + 0.1 * torch.randn_like(bottleneck)
    assert_close(
        unet.replaced(latent, step, moved),
        guided([unet.replaced(latent, one, h[None]) for one, h in zip(apart, moved, strict=True)]),
    )
    c = G / (2 * G - 1)
    ups = [unet.up(one, h[None], 2) for one, h in zip(downs, moved, strict=True)]
    negative, positive = (one.features for one in ups if one.features is not None)
    features = torch.cat([(1 - c) * negative, c * positive], dim=1)
    folded = unet.folded(down)
    for up in (unet.up(down, moved, 2), unet.decode(folded, moved, 2)):
        assert up.features is not None
        assert up.output is not None
        assert_close(up.features, features)
        assert_close(up.output, guided([one.output for one in ups if one.output is not None]))
    assert unet.decode(folded, moved, 2, output=False).output is None


def plain_pass(
    model: Model, latent: Tensor, timestep: int, held: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """eps and the features after the third up block, through diffusers' own network as a whole:
    float64.
    """
    seen: dict[str, Tensor] = {}
    net = model.unet.network
    hooks = [
        net.mid_block.register_forward_hook(lambda block, given, output: held),
        net.up_blocks[2].register_forward_hook(
            lambda block, given, output: seen.update(features=output)
        ),
    ]
    text = embed(model, TEXTS[1], TEXTS[0]).double()
    output = net(torch.cat([latent, latent]).double(), timestep, encoder_hidden_states=text).sample
    for hook in hooks:
        hook.remove()
    a = model.schedule(10).alphas[timestep].double()
    eps = (
        output
        if model.schedule(10).prediction == "epsilon"
        else a.sqrt() * output + (1 - a).sqrt() * latent
    )
    return eps[:1] + G * (eps[1:] - eps[:1]), seen["features"]


def test_inversion(exact: Model) -> None:
    """Against diffusers' network, guided in eps, and DDIM written out. The state is float32, as it
    is in `invert`.
    """
    latent, schedule = random_latent(16, 16), exact.schedule(10)
    found = invert(exact, latent, told(exact, G), 3)
    assert len(found) == 4
    for before, after, (_, t) in zip(found, found[1:], reversed(schedule.active(3)), strict=False):
        with torch.no_grad():
            eps, _ = plain_pass(exact, before, t)
        a, b = schedule.alphas[max(t - 100, 0)].double(), schedule.alphas[t].double()
        clean = (before - (1 - a).sqrt() * eps) / a.sqrt()
        assert_close(after, b.sqrt() * clean + (1 - b).sqrt() * eps)


def test_the_drags_gradient(exact: Model) -> None:
    """The loss of a guided drag (motion and mask) and its gradient, against autograd through
    diffusers' whole network and the loss written out.
    """
    size, latent = (32, 32), random_latent(16, 16)
    handles, targets = torch.tensor([[10, 12], [20, 9]]), torch.tensor([[20, 20], [11, 3]])
    keep = torch.ones(1, 1, 16, 16)
    keep[..., 4:12, 4:12] = 0
    config = DragConfig(steps=10, strength=0.5, guidance=G)
    place = Place(exact, exact.schedule(10), 5, latent, told(exact, G))
    scene = Scene(place, handles, targets, size, keep, config, wants_output=True)
    method = METHODS["dragnoise"]
    with torch.no_grad():
        begun = method.start(place)
        constants, start = begun.constants, begun.variable
        reference = method.features(scene, constants, start.double()).detach()
    torch.manual_seed(3)
    moved = (start + 0.2 * start.std() * torch.randn_like(start)).double()
    assert start.shape[0] == 2

    mine = moved.clone().requires_grad_()
    seen = method.features(scene, constants, mine)
    loss = method.supervise(scene, reference, seen, method.begin(scene, reference))
    (gradient,) = torch.autograd.grad(loss, mine)

    yours = moved.clone().requires_grad_()
    eps, features = plain_pass(exact, latent, scene.place.timestep, yours)
    with torch.no_grad():
        eps_0, _ = plain_pass(exact, latent, scene.place.timestep, start.double())
    c = G / (2 * G - 1)
    both = F.interpolate(
        torch.cat([(1 - c) * features[:1], c * features[1:]], dim=1), size, mode="bilinear"
    )[0]
    expected = (
        config.lam
        * (scene.place.schedule.slope(scene.place.timestep) * (eps - eps_0) * keep).abs().sum()
    )
    for handle, target in zip(handles.tolist(), targets.tolist(), strict=True):
        expected = expected + _motion(both, handle, target, config.r_m)
    (expected_gradient,) = torch.autograd.grad(expected, yours)

    assert_close(loss.detach(), expected.detach(), torch.float32)
    largest = expected_gradient.abs().max()
    assert (
        expected_gradient.abs().amax((1, 2, 3)) > 0.01 * largest
    ).all()  # both branches are dragged
    assert_close(gradient / largest, expected_gradient / largest, torch.float32)


def test_the_same_text_twice_is_no_guidance() -> None:
    """With the prompt as its own negative, guidance draws nowhere: the unguided trajectory, and
    half the motion loss, whose mean is over both.
    """
    twice = edit(editor(), negative_prompt="a ring", config=QUICK.replace(guidance=2.0))
    once = edit(editor(), config=QUICK.replace(guidance=1.0))
    assert twice.record is not None
    assert once.record is not None
    for mine, yours in zip(twice.record.trajectory, once.record.trajectory, strict=True):
        assert_close(mine, yours, torch.float16)
    assert twice.history.losses[0] == pytest.approx(once.history.losses[0] / 2, rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("masked", [True, False], ids=["mask", "no mask"])
def test_an_edit(dtype: str, masked: bool) -> None:
    found = edit(editor(None, dtype), negative_prompt="a disc", mask=CASE.mask if masked else None)
    record = found.record
    assert record is not None
    assert record.text.shape[0] == 2
    assert record.bottleneck.shape[0] == 2
    assert record.bottleneck.dtype == torch.float32
    assert record.reference_features is not None
    assert record.reference_features.shape[:2] == (
        1,
        2 * editor().model.unet.network.up_blocks[2].resnets[0].out_channels,
    )
    assert record.final_latent.shape == record.inverted.shape
    assert len(found.history.losses) == 4
    assert np.isfinite(found.history.losses).all()
    moved = (record.bottleneck - record.bottleneck_start).abs().amax((1, 2, 3))
    assert (moved > QUICK.lr).all()
    unguided = edit(editor(None, dtype), config=QUICK.replace(guidance=1.0))
    assert not np.array_equal(found.image.pixels, unguided.image.pixels)


def test_each_branch_keeps_its_own_bottleneck() -> None:
    """Propagation with the two bottlenecks changed for one another is another image."""
    record = edit(editor(), negative_prompt="a disc").record
    assert record is not None
    method = METHODS["dragnoise"]
    noise, swapped = (
        method.finish(record.scene, record.optimum.constants, variable).noise(
            8, record.scene.place.schedule.timesteps[8], record.inverted
        )
        for variable in (record.bottleneck, record.bottleneck.flip(0))
    )
    step = record.scene.place.conditioning.at(record.scene.place.schedule.timesteps[8])
    assert torch.equal(
        noise, editor().model.unet.replaced(record.inverted, step, record.bottleneck)
    )
    assert float((noise - swapped).abs().max()) > 1e-2


def test_a_session_inverts_anew_for_another_guidance() -> None:
    """What is prepared for one guidance does not serve another."""
    session = editor().open(CASE.image, prompt="a ring", negative_prompt="a disc", config=QUICK)
    drag = "100,90:140,120"
    session.drag(drag)
    for guidance in (2.0, 1.0):
        config = QUICK.replace(guidance=guidance)
        told = "a disc" if guidance > 1 else ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)
            found = session.drag(drag, config=config)
        assert "invert" in found.timings_ms
        expected = edit(editor(), points=drag, negative_prompt=told, config=config)
        assert np.array_equal(found.image.pixels, expected.image.pixels)
    with pytest.raises(SessionError, match="settings of its inversion"):
        session.drag(drag, config=QUICK, base="last")


def test_backends_agree() -> None:
    mine, yours = (edit(editor(backend), mask=CASE.mask).record for backend in ("packed", "eager"))
    assert mine is not None
    assert yours is not None
    assert_close(mine.inverted, yours.inverted, torch.float16)
    apart = (mine.bottleneck - yours.bottleneck).norm() / (
        yours.bottleneck - yours.bottleneck_start
    ).norm()
    assert apart < 0.05
    assert_close(mine.final_latent, yours.final_latent, torch.bfloat16)


def test_guided_parts_run_on_a_batch_of_two(exact: Model) -> None:
    """Whatever a backend prepares sees both texts at once: one pass, not two."""
    batches: list[tuple[str, int]] = []

    def watched(part: Any, run: Any) -> Any:
        def passed(first: Tensor, *rest: Any) -> Any:
            batches.append((part.name, first.shape[0]))
            return run(first, *rest)

        return passed

    model = replace(exact, unet=UNet(exact.unet.network, wrap=watched))
    invert(model, random_latent(16, 16), told(model, G), 2)
    invert(model, random_latent(16, 16), told(model, 1.0), 1)
    assert batches == [("unet", 2)] * 2 + [("unet", 1)]


@pytest.mark.parametrize("value", [0.99, 50.01, -3, float("nan"), True, "7"])
def test_guidance_has_a_range(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"guidance must be a number from 1 to 50, got "):
        DragConfig(guidance=value)
    assert DragConfig(guidance=50).guidance == 50


def test_the_baseline_refuses() -> None:
    with pytest.raises(
        ConfigError, match=r"the method baseline has no guidance, got 7\.5; use guidance 1"
    ):
        edit(editor(), method="baseline")


def test_a_negative_prompt_without_guidance_is_said_to_do_nothing() -> None:
    config = QUICK.replace(guidance=1.0, iterations=0)
    with pytest.warns(InputWarning, match="does nothing without guidance"):
        found = edit(editor(), negative_prompt="a disc", config=config)
    assert np.array_equal(found.image.pixels, edit(editor(), config=config).image.pixels)


def test_guidance_takes_two_texts() -> None:
    model = editor().model
    with pytest.raises(
        ValueError, match=r"guidance 7\.5 takes a negative and a positive text, got 1"
    ):
        condition(model, embed(model, "a ring"), 10, G)


def test_the_embedded_model_drags_with_guidance() -> None:
    """With a mask, as guided drags want one: the handle arrives, the rest stays."""
    from dragnoise.engine.cli.demo import samples

    sample = next(sample for sample in samples() if sample.name == "boat")
    own = Editor.from_pretrained(device="cpu")
    config = own.defaults.replace(guidance=3.0)
    found = own.edit(
        sample.image, sample.points, mask=sample.mask, prompt=sample.prompt, config=config
    )
    assert found.reached
    assert found.settings["config"].guidance == 3.0
