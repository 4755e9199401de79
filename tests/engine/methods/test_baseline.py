"""`baseline` gives the published code's numbers and does the published code's work, on networks
that share nothing but weights with the user's.
"""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2DCrossAttn
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dragnoise.engine import DragConfig, Editor, Image
from dragnoise.engine.drag.loop import DragLoop
from dragnoise.engine.drag.method import State
from dragnoise.engine.drag.scene import Scene
from dragnoise.engine.methods import METHODS, baseline
from dragnoise.engine.session.result import EditResult, Record
from dragnoise.engine.system.cuda_graphs import NullGraph
from dragnoise.kernels.point_tracking import track
from golden_cases import GOLDEN, MODEL, Case, assert_is_the_recorded_edit

BASELINE, DRAGNOISE = METHODS["baseline"], METHODS["dragnoise"]
QUICK = DragConfig(steps=10, strength=0.3, iterations=3, lr=0.02, lam=0.1)
PICTURE = Image(
    np.asarray(PIL.Image.open(GOLDEN / "images" / "face_256x256.png").convert("RGB"))[
        64:160, 64:160
    ]
)
MASK = np.tri(96, dtype=np.bool_)
POINTS = "40,40:70,60 20,60:50,63"


@cache
def editor() -> Editor:
    return Editor.from_pretrained(MODEL, device="cpu", check_pictures=False)


def edit(
    points: Any = POINTS, config: DragConfig = QUICK, method: str = "baseline", **more: Any
) -> EditResult:
    return editor().edit(PICTURE, points, config=config, method=method, record=True, **more)


def recorded(result: EditResult) -> Record:
    assert result.record is not None
    return result.record


def network_of(scene: Scene[Any, Any]) -> UNet2DConditionModel:
    return scene.place.model.unet.network


@pytest.mark.parametrize("method", ["baseline", "baseline-plain"])
@pytest.mark.parametrize(
    "name", ["dn01_short_early_stop", "dn02_nomask_end10", "dn09_unaligned_latent"]
)
def test_free_run_is_the_published_one(name: str, method: str) -> None:
    assert_is_the_recorded_edit(name, editor().edit(**Case(name).edit_inputs(), method=method))


def test_attention_is_fused_as_with_an_adapter_and_written_out_as_without() -> None:
    for method, processor in (("baseline", AttnProcessor2_0), ("baseline-plain", AttnProcessor)):
        network = METHODS[method].prepare(editor().model).unet.network
        assert {type(found) for found in network.attn_processors.values()} == {processor}


@pytest.mark.parametrize("mask", [None, MASK], ids=["no mask", "mask"])
@pytest.mark.parametrize("end_step", [0, 8])
def test_the_same_edit_as_ours(mask: Any, end_step: int) -> None:
    config = QUICK.replace(iterations=6, end_step=end_step)
    theirs, ours = (
        edit(config=config, mask=mask, method=method) for method in ("baseline", "dragnoise")
    )
    assert recorded(theirs).handles.tolist() == recorded(ours).handles.tolist()
    np.testing.assert_allclose(theirs.history.losses, ours.history.losses, rtol=5e-3)
    for name in ("inverted", "bottleneck_start", "reference_features", "reference_noise"):
        torch.testing.assert_close(
            getattr(recorded(theirs), name), getattr(recorded(ours), name), rtol=0, atol=1e-4
        )
    torch.testing.assert_close(
        recorded(theirs).bottleneck, recorded(ours).bottleneck, rtol=0, atol=1.5e-2
    )
    torch.testing.assert_close(
        recorded(theirs).final_latent, recorded(ours).final_latent, rtol=0, atol=5e-2
    )
    moved = recorded(theirs).bottleneck - recorded(theirs).bottleneck_start
    assert moved.abs().max() > 0.05


@pytest.mark.parametrize("corner", [(0, 0), (95, 0), (0, 95), (95, 95), (1, 47), (47, 94)])
def test_at_the_border_it_clamps_as_ours(corner: tuple[int, int]) -> None:
    """From the border inwards and from inside onto it. Tracking is compared below: here border rows
    are copies, and rounding decides between them.
    """
    x, y = corner
    points = [(x, y, 48, 48), (40, 44, x, y)]
    theirs, ours = (edit(points, method=method) for method in ("baseline", "dragnoise"))
    np.testing.assert_allclose(theirs.history.losses[0], ours.history.losses[0], rtol=1e-4)
    assert np.isfinite(theirs.history.losses).all()
    assert ((theirs.history.handles >= 0) & (theirs.history.handles <= 95)).all()


def test_it_tracks_as_ours_everywhere() -> None:
    """On random maps at the supervision resolution itself, with a handle at every position."""
    random = torch.Generator().manual_seed(3)
    before, now = torch.randn(2, 1, 5, 6, 9, generator=random)
    handles = torch.cartesian_prod(torch.arange(6), torch.arange(9))
    scene = dataclasses.replace(recorded(edit()).scene, handles=handles.flip(0), resolution=(6, 9))
    reference, seen = (baseline.UpsampledPrediction(map, map, map[0], map) for map in (before, now))
    moved = BASELINE.follow(scene, reference, seen, State(handles)).handles
    origins = before[0][:, scene.handles[:, 0], scene.handles[:, 1]].T
    assert (
        moved.tolist()
        == track(now[0], origins, handles, handles, (6, 9), scene.settings.r_p).moved.tolist()
    )


def test_a_window_over_the_border_repeats_it() -> None:
    features = torch.arange(20.0).reshape(1, 4, 5)
    padded = nn.functional.pad(features, (3, 3, 3, 3), mode="replicate")
    for top in range(-3, 5):
        for left in range(-3, 6):
            assert torch.equal(
                baseline._cut(features, top, left, 2),
                padded[:, top + 3 : top + 5, left + 3 : left + 5],
            )


def test_the_reference_pass_is_iteration_zero_bit_for_bit() -> None:
    scene = recorded(edit(config=QUICK.replace(iterations=1))).scene
    with torch.no_grad():
        bottleneck = BASELINE.start(scene.place).variable
        whole = scene.place.model.unet(scene.place.latent, scene.place.step)
    first = recorded(edit(config=QUICK.replace(iterations=1))).optimum.reference
    seen = BASELINE.features(scene, None, bottleneck.clone().requires_grad_()).detach()
    noise = scene.place.schedule.noise(whole, scene.place.latent, scene.place.timestep)
    assert torch.equal(seen.noise, noise)
    assert isinstance(seen, baseline.UpsampledPrediction)
    for field in dataclasses.fields(seen):
        assert torch.equal(getattr(first, field.name), getattr(seen, field.name)), field.name


def batches(monkeypatch: pytest.MonkeyPatch, kind: type[nn.Module]) -> list[int]:
    """The batch size of every call of a module of that kind, from now on."""
    seen: list[int] = []
    forward = kind.forward

    def counted(module: nn.Module, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(hidden.shape[0])
        return forward(module, hidden, *args, **kwargs)

    monkeypatch.setattr(kind, "forward", counted)
    return seen


def test_every_pass_is_whole_and_the_picture_is_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 steps of inversion, the reference pass, 3 iterations, 3 steps of denoising on two: the
    middle block runs in each.
    """
    kinds = (UNet2DConditionModel, UNetMidBlock2DCrossAttn, Decoder)
    networks, middles, decoders = (batches(monkeypatch, kind) for kind in kinds)
    result = edit(mask=MASK)
    assert recorded(result).pixels.shape == (1, 3, 96, 96)
    assert networks == middles == [1] * 3 + [1] + [1] * 3 + [2] * 3
    assert decoders == [2]


def test_its_loop_is_never_captured_and_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads values on the host, which a captured graph cannot; ours is handed to whatever
    captures on the device.
    """
    captured: list[object] = []

    class Recorded(NullGraph):
        def __init__(self, work: Callable[[], None]) -> None:
            captured.append(work)
            super().__init__(work)

    monkeypatch.setattr("dragnoise.engine.drag.loop.graph_on", lambda device: Recorded)
    scene = recorded(edit()).scene
    answers = iter([False, True, True])
    halted = dataclasses.replace(
        BASELINE, finished=lambda scene, state: torch.tensor(next(answers))
    )
    start = halted.start(scene.place)
    loop = DragLoop(halted, scene, start, torch.float32).begin(scene, start, poll_every=1000)
    for _ in loop:
        pass
    optimum = loop.optimum()
    assert optimum.reached
    assert (len(optimum.losses), len(list(answers))) == (1, 1)
    assert not captured
    edit(method="dragnoise")
    assert len(captured) == 1


class Watched(TorchDispatchMode):
    """Counts reads of a tensor's value by the host, fused attention, softmax, and notes the sizes
    of upsampled maps.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads, self.fused, self.softmax = 0, 0, 0
        self.upsampled: list[list[int]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        self.reads += function is torch.ops.aten._local_scalar_dense.default
        self.fused += "scaled_dot_product" in str(function)
        self.softmax += function is torch.ops.aten._softmax.default
        if "upsample_bilinear2d." in str(function):
            self.upsampled.append(list(found.shape))
        return found


def test_an_iteration_upsamples_the_whole_map_and_reads_every_point() -> None:
    scene = recorded(edit(mask=MASK)).scene
    with torch.no_grad():
        start = BASELINE.start(scene.place).variable
    leaf = start.clone().requires_grad_()
    layers = len(network_of(scene).attn_processors)
    with Watched() as watched:
        seen = BASELINE.features(scene, None, leaf)
        state = BASELINE.begin(scene, seen)
        BASELINE.follow(scene, seen.detach(), seen, state)
    assert watched.upsampled == [[1, seen.features.shape[1], 48, 48]]
    assert watched.reads == len(scene.handles)
    assert (watched.fused, watched.softmax) == (layers, 0)


def test_every_weight_but_the_middle_blocks_gets_a_gradient_that_adds_up() -> None:
    """As published: 640 of 686 on this network. The bottleneck's own gradient is what autograd
    gives for it alone.
    """
    scene = recorded(edit(mask=MASK, config=QUICK.replace(iterations=1))).scene
    weights = dict(network_of(scene).named_parameters())
    without = {name for name, weight in weights.items() if weight.grad is None}
    assert without == {name for name in weights if name.startswith("mid_block.")}
    assert (len(weights), len(weights) - len(without)) == (686, 640)
    for name in (
        "conv_in.weight",
        "down_blocks.0.attentions.0.proj_in.weight",
        "time_embedding.linear_1.weight",
    ):
        assert weights[name].grad.abs().sum() > 0, name

    with torch.no_grad():
        start = BASELINE.start(scene.place).variable
    moved = start + 0.1
    reference = BASELINE.features(scene, None, start).detach()
    network_of(scene).zero_grad()
    gradients, held = [], []
    for _ in range(2):
        leaf = moved.clone().requires_grad_()
        seen = BASELINE.features(scene, None, leaf)
        loss = BASELINE.supervise(scene, reference, seen, BASELINE.begin(scene, reference))
        gradients += [
            torch.autograd.grad(loss, leaf, retain_graph=True)[0],
            BASELINE.gradient(loss, leaf),
        ]
        held.append(weights["conv_in.weight"].grad.clone())
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
    torch.testing.assert_close(held[1], 2 * held[0])


def test_without_a_mask_the_backward_pass_is_as_long() -> None:
    """The published code computes the mask term always: the last layers' weights have gradients,
    which are zero.
    """
    scene = recorded(edit(config=QUICK.replace(iterations=1))).scene
    assert scene.keep is None
    network = network_of(scene)
    assert torch.equal(network.conv_out.weight.grad, torch.zeros_like(network.conv_out.weight))
    assert network.up_blocks[0].resnets[0].conv1.weight.grad.abs().sum() > 0


def test_the_users_model_stays_as_it_was() -> None:
    model = editor().model
    parts: tuple[nn.Module, ...] = (model.unet.network, model.vae, model.text_encoder)
    before = [{name: weight.clone() for name, weight in part.named_parameters()} for part in parts]
    processors = {
        name: id(processor) for name, processor in model.unet.network.attn_processors.items()
    }
    scene = recorded(edit(mask=MASK)).scene
    for part, weights in zip(parts, before, strict=True):
        for name, weight in part.named_parameters():
            assert weight.grad is None
            assert not weight.requires_grad
            assert torch.equal(weight, weights[name])
        assert not any(
            module._forward_hooks or module._forward_pre_hooks for module in part.modules()
        )
        assert not part.training
    assert {
        name: id(processor) for name, processor in model.unet.network.attn_processors.items()
    } == processors
    own, private = model.unet.network.conv_in.weight, network_of(scene).conv_in.weight
    assert private is not own
    assert private.data_ptr() == own.data_ptr()
    assert not any(module._forward_hooks for module in network_of(scene).modules())


def test_a_bfloat16_model_is_run_in_float32() -> None:
    rounded = Editor.from_pretrained(MODEL, device="cpu", check_pictures=False, dtype="bfloat16")
    record = recorded(rounded.edit(PICTURE, POINTS, config=QUICK, method="baseline", record=True))
    assert (
        record.scene.place.model.dtype
        == record.scene.place.model.vae.dtype
        == record.text.dtype
        == torch.float32
    )
    assert rounded.model.dtype == rounded.model.vae.dtype == torch.bfloat16
    assert record.reference_features is not None
    assert record.reference_features.dtype == torch.float32


def check_half_precision(editor: Editor) -> None:
    """Iterations in bfloat16, all else in float32: near the float32 run, and the mask term still
    begins at exactly zero.
    """
    inputs: dict[str, Any] = {"mask": MASK, "config": QUICK, "record": True}
    record = recorded(result := editor.edit(PICTURE, POINTS, method="baseline", **inputs))
    exact = edit(mask=MASK)
    assert record.reference_features is not None
    assert record.reference_features.dtype == torch.bfloat16
    assert (
        record.inverted.dtype
        == record.bottleneck.dtype
        == record.final_latent.dtype
        == torch.float32
    )
    np.testing.assert_allclose(result.history.losses[0], exact.history.losses[0], rtol=5e-2)
    distance = (record.final_latent.cpu() - recorded(exact).final_latent).norm() / recorded(
        exact
    ).final_latent.norm()
    assert distance < 0.05


def test_iterations_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path that CUDA takes, here with the CPU's autocast."""
    monkeypatch.setattr(baseline, "autocast", lambda device: torch.autocast("cpu", torch.bfloat16))
    check_half_precision(editor())


@pytest.mark.gpu
def test_iterations_in_half_precision_on_cuda() -> None:
    check_half_precision(
        Editor.from_pretrained(
            MODEL, device="cuda", dtype="float32", check_pictures=False, poll_every=1
        )
    )
