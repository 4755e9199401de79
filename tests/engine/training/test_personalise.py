"""Adapters: trained as PEFT trains them, read and written as diffusers does, merged in place and
taken out bit for bit.
"""

import copy
import dataclasses
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from dragnoise.engine import (
    Adapter,
    AdapterError,
    CancelledError,
    ConfigError,
    DeadlineError,
    DragConfig,
    Editor,
    Image,
    NumbersError,
    PersonaliseConfig,
    Store,
    stages,
)
from dragnoise.engine.cache.digest import digest
from dragnoise.engine.diffusion import weights
from dragnoise.engine.diffusion.lora.adapter import FILE, AdapterUse, projections
from dragnoise.engine.diffusion.lora.merge import Adapters
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.unet import UNet
from dragnoise.engine.system.worker import Job
from dragnoise.engine.training.lora import LoraTraining, TrainingState, personalise
from golden_cases import GOLDEN, MODEL
from small_models import sd2

QUICK = PersonaliseConfig(steps=4, rank=3, lr=1e-3, batch=2)
DRAG = DragConfig(steps=10, strength=0.3, iterations=2)
PICTURE = Image(
    np.asarray(PIL.Image.open(GOLDEN / "images" / "face_256x256.png").convert("RGB"))[
        64:128, 64:128
    ]
)
POINTS = [((20, 20), (40, 34))]


@cache
def editor(backend: str | None = None, dtype: str = "float32") -> Editor:
    return Editor.from_pretrained(MODEL, device="cpu", backend=backend, dtype=dtype)


def inputs(model: Model) -> tuple[Tensor, Tensor]:
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    return latent, stages.embed(model, "a face")


def learned(model: Model, config: PersonaliseConfig = QUICK, **more: Any) -> Adapter:
    return personalise(model, *inputs(model), config, **more)


@cache
def adapter(seed: int = 0) -> Adapter:
    """Strong enough to be seen."""
    found = learned(editor().model, QUICK.replace(seed=seed))
    return Adapter(tuple((name, down, 20 * up) for name, down, up in found.matrices))


def equal(one: Adapter, other: Adapter) -> bool:
    return one.digest == other.digest


def output(unet: UNet, dtype: torch.dtype = torch.float32) -> Tensor:
    latent, text = inputs(editor().model)
    with torch.no_grad():
        return unet(latent, unet.step(481, text.to(dtype)))


def with_peft(network: UNet2DConditionModel, rank: int) -> UNet2DConditionModel:
    network = copy.deepcopy(network).requires_grad_(False)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    network.add_adapter(
        LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights="gaussian")
    )
    return network


def put(network: UNet2DConditionModel, found: Adapter) -> dict[str, Any]:
    """The adapter's matrices in PEFT's layers."""
    layers = dict(network.named_modules())
    with torch.no_grad():
        for name, down, up in found.matrices:
            layers[name].lora_A["default"].weight.copy_(down)
            layers[name].lora_B["default"].weight.copy_(up)
    return layers


# Training


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_it_trains_as_peft_does(prediction: str, tmp_path: Path) -> None:
    """The same matrices at first, the same noise and times: the same losses and the same matrices
    after four steps of AdamW.
    """
    model = (
        editor().model
        if prediction == "epsilon"
        else Editor.from_pretrained(sd2(tmp_path), device="cpu").model
    )
    latent, text = inputs(model)
    losses: list[float] = []
    found = learned(model, on_step=lambda step, loss, state: losses.append(loss))
    training = LoraTraining(model, latent, text, QUICK)
    network = with_peft(model.unet.network, QUICK.rank)
    layers = put(network, training.adapter())
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    assert len(weights) == 2 * len(projections(model.unet.network))
    adam = torch.optim.AdamW(weights, lr=QUICK.lr, weight_decay=1e-2)
    alphas = model.schedule(1).alphas
    for step, timesteps in enumerate(training._timesteps):
        noise = training._draw(1 + step, lambda chance: torch.randn(2, 4, 8, 8, generator=chance))
        a = alphas[timesteps][:, None, None, None]
        noisy = a.sqrt() * latent + (1 - a).sqrt() * noise
        target = noise if prediction == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * latent
        predicted = network(noisy, timesteps, encoder_hidden_states=text.repeat(2, 1, 1)).sample
        loss = F.mse_loss(predicted, target)
        adam.zero_grad()
        loss.backward()
        adam.step()
        assert losses[step] == pytest.approx(loss.item(), rel=1e-5)
    moved = max(float(up.abs().max()) for _, _, up in found.matrices)
    assert moved > 2e-3
    apart = [
        (layers[name].lora_A["default"].weight - down, layers[name].lora_B["default"].weight - up)
        for name, down, up in found.matrices
    ]
    # Adam's first steps are lr * sign(g): where g is zero but for rounding, they may differ.
    wrong = sum(int((one.abs() > 1e-4).sum() + (other.abs() > 1e-4).sum()) for one, other in apart)
    assert wrong <= 5e-3 * sum(one.numel() + other.numel() for one, other in apart)


def test_no_other_weight_has_a_gradient() -> None:
    model = editor().model
    learned(model)
    assert all(
        weight.grad is None and not weight.requires_grad
        for weight in model.unet.network.parameters()
    )
    asked: list[tuple[int, ...]] = []
    real = torch.ops.aten.convolution_backward.default

    class Watched(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if function is real:
                asked.append(tuple(args[-1]))
            return function(*args, **(kwargs or {}))

    for backend in ("eager", "packed"):
        with Watched():  # type: ignore[no-untyped-call]
            learned(editor(backend).model, QUICK.replace(steps=1))
    assert asked  # eager: some convolution has a gradient of its map
    assert not any(weight for _, weight, _ in asked)


def test_the_same_input_gives_the_same_bits_and_settings_others() -> None:
    model = editor().model
    assert equal(learned(model), learned(model))
    digests = {
        learned(model, QUICK.replace(**change)).digest
        for change in ({}, {"seed": 1}, {"lr": 2e-3}, {"steps": 3}, {"batch": 3})
    }
    assert len(digests) == 5


@pytest.mark.parametrize("at", [1, 3])
def test_a_resumed_training_is_the_uninterrupted_one(at: int) -> None:
    model, kept = editor().model, []

    def stop(step: int, loss: float, state: Any) -> None:
        if step == at:
            kept.append(state())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learned(model, on_step=stop)
    begun: TrainingState = kept[0]
    before = begun.matrices.clone()
    steps: list[int] = []
    assert equal(
        learned(model, resume=begun, on_step=lambda step, *_: steps.append(step)), learned(model)
    )
    assert steps == list(range(at + 1, QUICK.steps + 1))
    assert torch.equal(begun.matrices, before)
    with pytest.raises(ValueError, match="another model, rank or number of steps"):
        learned(model, QUICK.replace(rank=5), resume=begun)


def test_it_stops_on_a_plateau() -> None:
    """A learning rate that does nothing: the smoothed loss wanders, but does not fall by 1 % for
    long.
    """
    steps: list[int] = []
    learned(
        editor().model,
        QUICK.replace(steps=60, lr=1e-12, plateau=5),
        on_step=lambda step, *_: steps.append(step),
    )
    assert 5 < len(steps) < 60


def test_it_learns() -> None:
    """The loss over the same times and noises is lower after than before."""
    one = Editor.from_pretrained(MODEL, device="cpu")
    found = learned(one.model, QUICK.replace(steps=40, batch=4, lr=5e-3))

    def loss(used: AdapterUse) -> float:
        losses: list[float] = []
        config = QUICK.replace(steps=10, batch=8, lr=1e-12, seed=7)
        with one.adapters.active(used):
            learned(one.model, config, on_step=lambda _, loss, __: losses.append(loss))
        return sum(losses)

    assert loss(AdapterUse(found)) < 0.97 * loss(AdapterUse())


# Merging


@pytest.fixture
def merging() -> Iterator[tuple[Editor, Adapters]]:
    found = Editor.from_pretrained(MODEL, device="cpu")
    yield found, found.adapters
    with found.adapters.active(AdapterUse()):
        pass


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("backend", ["packed", "eager"])
def test_merged_in_place_and_taken_out_bit_for_bit(backend: str, dtype: str) -> None:
    one = Editor.from_pretrained(MODEL, device="cpu", backend=backend, dtype=dtype)
    network, unet = one.model.unet.network, one.model.unet
    precision = one.model.dtype
    weights = {name: weight.clone() for name, weight in network.named_parameters()}
    places = {name: weight.data_ptr() for name, weight in network.named_parameters()}
    plain = output(unet, precision)
    outputs = {}
    for used in (
        AdapterUse(adapter()),
        AdapterUse(adapter(1), 0.5),
        AdapterUse(adapter()),
        AdapterUse(adapter(), 2.0),
    ):
        with one.adapters.active(used):
            outputs[used.key] = output(unet, precision)
            fresh = UNet(copy.deepcopy(network), unet.operators)
            assert torch.equal(outputs[used.key], output(fresh, precision))
    assert len(outputs) == 3
    assert all(not torch.equal(plain, found) for found in outputs.values())
    for none in (AdapterUse(), AdapterUse(adapter(), 0.0)):
        with one.adapters.active(none):
            assert torch.equal(output(unet, precision), plain)
    assert all(torch.equal(weight, weights[name]) for name, weight in network.named_parameters())
    assert {name: weight.data_ptr() for name, weight in network.named_parameters()} == places


def test_merged_it_is_pefts_network(merging: tuple[Editor, Adapters]) -> None:
    one, adapters = merging
    network = with_peft(one.model.unet.network, QUICK.rank)
    put(network, adapter())
    latent, text = inputs(one.model)
    with torch.no_grad():
        expected = network(latent, 481, encoder_hidden_states=text).sample
    with adapters.active(AdapterUse(adapter())):
        torch.testing.assert_close(output(one.model.unet), expected, rtol=0, atol=1e-4)


def test_an_adapter_of_another_model_changes_nothing(merging: tuple[Editor, Adapters]) -> None:
    one, adapters = merging
    plain = output(one.model.unet)
    name, down, up = adapter().matrices[0]
    wrong = [
        (Adapter(((name, down[:, :-1], up),)), r"it was made for another model"),
        (Adapter(((name, down[0], up),)), r"it was made for another model"),
        (Adapter(((name, down[0, 0], up[None]),)), r"it was made for another model"),
        (Adapter(((name, down[1:], up),)), r"it was made for another model"),
        (
            Adapter((*adapter().matrices, ("none.to_q", down, up))),
            "none.to_q, which this model does not have",
        ),
        (Adapter((("conv_in", down, up),)), "conv_in, a Conv2d; only linear layers can be adapted"),
    ]
    for found, said in wrong:
        with pytest.raises(AdapterError, match=said), adapters.active(AdapterUse(found)):
            pass
        with adapters.active(AdapterUse()):
            assert torch.equal(output(one.model.unet), plain)


# Files


def test_diffusers_reads_ours_and_we_read_diffusers(tmp_path: Path) -> None:
    file = adapter().save(tmp_path / FILE)
    network = copy.deepcopy(editor().model.unet.network)
    network.load_lora_adapter(
        str(tmp_path), weight_name=FILE, prefix="unet", adapter_name="default"
    )
    latent, text = inputs(editor().model)
    with torch.no_grad():
        theirs = network(latent, 481, encoder_hidden_states=text).sample
    one = Editor.from_pretrained(MODEL, device="cpu")
    with one.adapters.active(AdapterUse(Adapter.load(file))):
        torch.testing.assert_close(output(one.model.unet), theirs, rtol=0, atol=1e-4)
    network.save_lora_adapter(tmp_path / "theirs")
    back = Adapter.load(tmp_path / "theirs" / FILE)
    assert equal(back, adapter())
    assert equal(Adapter.load(tmp_path), adapter())


def test_alpha_and_older_names(tmp_path: Path) -> None:
    """Kohya's and the first diffusers' spellings; alpha / r goes into B."""
    name, down, up = adapter().matrices[0]
    expected = Adapter(((name, down, up * (6.0 / len(down))),))
    spelled = {
        f"unet.{name}.lora.down.weight": down,
        f"unet.{name}.lora.up.weight": up,
        f"unet.{name}.alpha": torch.tensor(6.0),
    }
    old = {
        f"{name.replace('.to_', '.processor.to_')}_lora.{kind}.weight": value
        for kind, value in (("down", down), ("up", up))
    }
    save_file(
        {key: value.contiguous() for key, value in spelled.items()}, tmp_path / "a.safetensors"
    )
    found = Adapter.load(tmp_path / "a.safetensors")
    assert found.matrices[0][0] == name
    torch.testing.assert_close(found.matrices[0][2], expected.matrices[0][2])
    save_file({key: value.contiguous() for key, value in old.items()}, tmp_path / "b.safetensors")
    assert equal(Adapter.load(tmp_path / "b.safetensors"), Adapter(((name, down, up),)))


def test_what_is_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no")
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    whole = load_file(adapter().save(tmp_path / "whole.safetensors"))
    whole.pop(next(iter(whole)))
    save_file(whole, tmp_path / "half.safetensors")
    for name, said in (
        ("none.safetensors", "no adapter can be read"),
        ("text.safetensors", "no adapter can be read"),
        ("weights.safetensors", "is not an adapter of a U-Net's linear layers: it has 'weight'"),
        ("half.safetensors", "is not an adapter"),
    ):
        with pytest.raises(AdapterError, match=said):
            Adapter.load(tmp_path / name)


# Sessions


def test_a_session_wears_what_it_learned(tmp_path: Path) -> None:
    one = Editor.from_pretrained(MODEL, device="cpu", cache=Store(folder=tmp_path))
    session = one.open(PICTURE, prompt="a face", config=DRAG)
    plain = session.drag(POINTS)
    seen: list[tuple[str, int, int]] = []
    found = session.personalise(QUICK, lr=0.05, progress=lambda *said: seen.append(said))
    assert seen == [("personalise", step, 4) for step in (1, 2, 3, 4)]
    assert session.adapter is found
    worn = session.drag(POINTS)
    assert {"condition", "invert"} <= set(worn.timings_ms)
    assert (worn.image.pixels != plain.image.pixels).any()
    assert worn.settings["adapter"] == (found.digest, 1.0)
    given = Editor.from_pretrained(MODEL, device="cpu").edit(
        PICTURE, POINTS, prompt="a face", config=DRAG, adapter=found
    )
    assert (given.image.pixels == worn.image.pixels).all()
    session.use_adapter(None)
    bare = session.drag(POINTS)
    assert (bare.image.pixels == plain.image.pixels).all()
    again = one.open(PICTURE, prompt="a face", config=DRAG)
    assert equal(again.personalise(QUICK, lr=0.05), found)
    assert one.cache is not None
    assert one.cache.to_dict()["stages"]["personalise"]["misses"] == 1
    other = Editor.from_pretrained(MODEL, device="cpu", cache=Store(folder=tmp_path)).open(
        PICTURE, prompt="a face"
    )
    assert equal(
        other.personalise(QUICK, lr=0.05, progress=lambda *_: pytest.fail("it was learned before")),
        found,
    )
    restored = one.restore(again.save(tmp_path / "s.safetensors"))
    assert restored.adapter is not None
    assert (restored.drag(POINTS).image.pixels == worn.image.pixels).all()


def test_cancelled_learning_goes_on() -> None:
    session = editor().open(PICTURE, config=DRAG)
    whole = editor().open(PICTURE, config=DRAG).personalise(QUICK)
    with pytest.raises(CancelledError):
        session.personalise(
            QUICK, progress=lambda stage, done, of: session.cancel() if done == 1 else None
        )
    assert session.adapter is None
    seen: list[int] = []
    assert equal(
        session.personalise(QUICK, progress=lambda stage, done, of: seen.append(done)), whole
    )
    assert seen == [3, 4]
    with pytest.raises(DeadlineError):
        session.personalise(QUICK, steps=100_000, timeout_s=0.3)
    with pytest.raises(ConfigError, match="rank must be a whole number from 1 to 1024, got 0"):
        session.personalise(rank=0)
    with pytest.raises(ConfigError, match="alpha: no such setting"):
        session.personalise(alpha=3)


def test_learning_can_end_before_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While weights are read, of which no more are read then; and once all is set up."""
    one = Editor.from_pretrained(MODEL, device="cpu", cache=Store(folder=tmp_path))
    session = one.open(PICTURE, config=DRAG)
    read: list[Tensor] = []

    def cancelling(weight: Tensor) -> str:
        read.append(weight)
        session.cancel()
        return digest(weight)

    with monkeypatch.context() as patch:
        patch.setattr(weights, "digest", cancelling)
        with pytest.raises(CancelledError):
            session.personalise(QUICK)
    assert 0 < len(read) < len(list(one.model.unet.held.network.parameters())) / 2
    allocate = LoraTraining._allocate

    def allocating(training: LoraTraining) -> None:
        allocate(training)
        session.cancel()

    with monkeypatch.context() as patch:
        patch.setattr(LoraTraining, "_allocate", allocating)
        patch.setattr(LoraTraining, "advance", lambda training: pytest.fail("a step was made"))
        with pytest.raises(CancelledError):
            session.personalise(QUICK)
    assert equal(session.personalise(QUICK), editor().open(PICTURE).personalise(QUICK))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(PersonaliseConfig)])
def test_settings_are_checked(name: str) -> None:
    for wrong in (-1, "x", None, float("nan"), True):
        with pytest.raises(ConfigError, match=name):
            dataclasses.replace(PersonaliseConfig(), **{name: wrong})  # type: ignore[arg-type]


def assert_learned_the_same(mine: Adapter, theirs: Adapter) -> None:
    """Fail unless what was learned differs by rounding alone.

    Adam turns a gradient that is all rounding into steps of any sign. Queries and keys of the
    middle block have such gradients here: with one place to attend to they do not matter.
    """
    for (name, _, one_up), (other, _, up) in zip(mine.matrices, theirs.matrices, strict=True):
        assert name == other
        assert float((one_up - up).abs().max()) <= 2 * QUICK.steps * QUICK.lr
        if not name.startswith("mid_block") or not name.endswith(("attn1.to_q", "attn1.to_k")):
            assert float((one_up - up).abs().mean()) <= 0.1 * float(up.abs().mean()), name


@pytest.mark.filterwarnings("ignore:.*allow_tf32.*", "ignore::UserWarning")
def test_other_convolutions_learn_the_same() -> None:
    latent, text = inputs(editor("eager").model)
    theirs = personalise(editor("eager").model, latent, text, QUICK)
    with torch.backends.mkldnn.flags(enabled=False):
        mine = personalise(editor("eager").model, latent, text, QUICK)
    assert_learned_the_same(mine, theirs)


@pytest.mark.gpu
def test_on_cuda_a_step_is_a_graph_and_learns_the_same() -> None:
    one = Editor.from_pretrained(MODEL, device="cuda", dtype="float32", backend="eager")
    latent, text = inputs(editor("eager").model)
    mine = personalise(one.model, latent.to("cuda"), text.to("cuda"), QUICK)
    theirs = personalise(editor("eager").model, latent, text, QUICK)
    assert_learned_the_same(mine, theirs)


def test_what_was_learned_as_its_caller_was_interrupted_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after the last step, before the adapter is in the caller's hands."""
    whole = editor().open(PICTURE).personalise(QUICK)
    session = editor().open(PICTURE)
    result = Job.result

    def interrupted(job: Job[Any]) -> Any:
        result(job)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Job, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.personalise(QUICK)
    file = session.save_learning(tmp_path / "state.safetensors")
    assert file is not None
    again = editor().open(PICTURE)
    again.resume_learning(file)
    for one in (session, again):
        assert equal(one.personalise(QUICK, progress=lambda *_: pytest.fail("learned")), whole)
        assert one.save_learning(tmp_path / "state.safetensors") is None


def test_a_training_that_diverges_is_said_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where only the last step's matrices are not finite, its loss still is.

    A rate that does it at once is refused before; here it is let through.
    """
    monkeypatch.setattr(PersonaliseConfig, "__post_init__", lambda self: None)
    for steps in (1, 2, 4):
        session = editor().open(PICTURE)
        with pytest.raises(NumbersError, match="smaller lr"):
            session.personalise(QUICK, steps=steps, lr=1e38)
        assert session.adapter is None
        assert session.save_learning(tmp_path / "state.safetensors") is None
