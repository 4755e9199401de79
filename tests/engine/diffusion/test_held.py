"""A packed convolution stands for its plain weights: one copy is held, all readers are right."""

import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from dragnoise.engine import DragConfig, Editor, EditResult, PersonaliseConfig
from dragnoise.engine.backends import packed
from dragnoise.engine.backends.packed import PACKED_OPERATORS, objections_to
from dragnoise.engine.cache.digest import digest
from dragnoise.engine.diffusion.load import load
from dragnoise.engine.diffusion.lora.adapter import Adapter, AdapterUse
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.unet import ConvWeight, HeldNetwork, UNet
from dragnoise.engine.exported.spelling import SPELLED
from golden_cases import MODEL

pytestmark = pytest.mark.skipif(
    bool(objections_to(torch.device("cpu"), torch.float32)),
    reason="this PyTorch cannot pack weights",
)
PICTURE = np.linspace(0, 1, 64 * 64 * 3, dtype=np.float32).reshape(64, 64, 3)
SETTINGS = DragConfig(iterations=2, steps=4, strength=0.5)


def golden(dtype: str = "float32") -> Model:
    return load(MODEL, device="cpu", dtype=dtype)


def edited(editor: Editor, adapter: Adapter | None = None) -> EditResult:
    return editor.edit(PICTURE, [((20, 20), (30, 30))], config=SETTINGS, adapter=adapter)


def told(result: EditResult) -> tuple[str, list[float]]:
    return digest(result.image.pixels), [float(loss) for loss in result.history.losses]


def lent() -> Editor:
    """Return an editor that packs beside plain weights: the network was asked for before."""
    model = golden()
    assert model.unet.network is model.unet.held.network
    return Editor(model, backend="packed")


def same_weights(network: nn.Module, other: nn.Module) -> bool:
    weights, others = network.state_dict(), other.state_dict()
    return all(torch.equal(weights[name], others[name]) for name in weights | others)


def convolutions(model: Model) -> dict[str, nn.Conv2d]:
    """Those that packed operators run: a transformer's projections are run as linear maps."""
    return {
        name: module
        for name, module in model.unet.held.network.named_modules()
        if isinstance(module, nn.Conv2d) and not name.endswith(("proj_in", "proj_out"))
    }


def packed_names(model: Model) -> set[str]:
    found = convolutions(model).items()
    return {name for name, module in found if module.weight.is_mkldnn}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "shape", [(320, 4, 3), (4, 320, 3), (7, 33, 3), (128, 192, 3), (96, 64, 1)]
)
def test_packing_keeps_all_bits(
    dtype: torch.dtype, stride: int, shape: tuple[int, int, int]
) -> None:
    """NaN, infinity, minus zero and subnormals among them, whatever map it is packed for."""
    if objections_to(torch.device("cpu"), dtype):
        pytest.skip("not packed here")
    outer, inner, kernel = shape
    weight = torch.randn(outer, inner, kernel, kernel, generator=torch.Generator().manual_seed(0))
    weight.view(-1)[:4] = torch.tensor([float("nan"), -0.0, float("-inf"), 1e-42])
    weight = weight.to(dtype)
    for side in (64, 9, 2):
        size = torch.Size((1, inner, side, side))
        unpacked = packed._pack(weight, kernel // 2, stride, size).to_dense()
        assert torch.equal(unpacked.view(torch.uint8), weight.view(torch.uint8))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_copy_of_every_convolution_is_held(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in bytes whenever one is packed: at no time are there two of more than one."""
    if objections_to(torch.device("cpu"), getattr(torch, dtype)):
        pytest.skip("not packed here")
    model = golden(dtype)
    plain = {
        name: StorageWeakRef(module.weight.untyped_storage())
        for name, module in convolutions(model).items()
    }
    sizes = {name: module.weight.nbytes for name, module in convolutions(model).items()}
    twice: list[int] = []
    pack = packed._pack

    def counted(*given: Any) -> Tensor:
        alive = {name for name, storage in plain.items() if not storage.expired()}
        twice.append(sum(sizes[name] for name in alive & packed_names(model)))
        return pack(*given)

    monkeypatch.setattr(packed, "_pack", counted)
    edited(Editor(model, backend="packed"))
    assert len(twice) > len(sizes)
    assert max(twice) == 0
    assert packed_names(model) == set(sizes)
    assert all(storage.expired() for storage in plain.values())


def test_results_and_digest_are_those_of_plain_weights() -> None:
    model = golden()
    before = model.weights.digest
    assert told(edited(Editor(model, backend="packed"))) == told(edited(lent()))
    assert packed_names(model)
    model.weights._digest = ""
    assert model.weights.digest == before


def test_whoever_asks_for_the_network_has_it_plain_for_good() -> None:
    """In any mode; the next edits pack beside it, and return the same."""
    model = golden()
    editor = Editor(model, backend="packed")
    first = told(edited(editor))
    with pytest.raises(TypeError, match="Mkldnn"):
        model.unet.held.network.conv_in.weight.numpy()
    with torch.inference_mode():
        network = model.unet.network
    weights = dict(network.named_parameters())
    assert same_weights(network, golden().unet.network)
    assert told(edited(editor)) == first
    assert told(edited(Editor(model, backend="packed"))) == first
    now = dict(model.unet.network.named_parameters())
    assert all(weight is now[name] for name, weight in weights.items())
    latent = torch.zeros(1, 4, 8, 8)
    assert network(latent, 481, encoder_hidden_states=torch.zeros(1, 7, 32)).sample.isfinite().all()


def test_what_is_written_into_a_lent_network_is_run() -> None:
    model = golden()
    editor = Editor(model, backend="packed")
    unet, latent = editor.model.unet, torch.ones(1, 4, 8, 8)
    step = unet.step(481, torch.zeros(1, 7, 32))
    with torch.no_grad():
        before = unet(latent, step)
        model.unet.network.conv_out.weight.mul_(2)
        model.unet.network.conv_out.bias.mul_(2)
        torch.testing.assert_close(unet(latent, step), 2 * before)


def test_backends_share_a_model() -> None:
    """Whichever runs first."""
    model = golden()
    expected = {name: told(edited(Editor(golden(), backend=name))) for name in ("packed", "eager")}
    for name in ("packed", "eager", "packed"):
        assert told(edited(Editor(model, backend=name))) == expected[name]


def test_an_export_is_built_of_plain_parameters() -> None:
    model = golden()
    editor = Editor(model, backend="packed")
    edited(editor)
    assert packed_names(model)
    latent, text = torch.ones(1, 4, 8, 8), torch.zeros(1, 7, 32)
    found, expected = (
        UNet(one.unet.network, SPELLED)(latent, one.unet.step(481, text))
        for one in (editor.model, golden())
    )
    assert torch.equal(found, expected)
    assert all(type(module.weight) is nn.Parameter for module in convolutions(model).values())
    assert not packed_names(model)


def test_adapters_are_learnt_merged_and_taken_out_under_packed_weights() -> None:
    """With the bits of plain weights; training packs no second time what is packed."""
    config = PersonaliseConfig(steps=2, rank=2, batch=1)
    editors = [Editor(golden(), backend="packed"), lent()]
    plain = [told(edited(editor)) for editor in editors]
    adapters = [editor.open(PICTURE).personalise(config) for editor in editors]
    merged = [told(edited(editor, adapters[0])) for editor in editors]
    again = [told(edited(editor)) for editor in editors]
    assert digest(adapters[0].matrices) == digest(adapters[1].matrices)
    assert plain[0] == plain[1] == again[0] == again[1]
    assert merged[0] == merged[1] != plain[0]
    assert packed_names(editors[0].model) == set(convolutions(editors[0].model))
    assert not packed_names(editors[1].model)
    with editors[0].adapters.active(AdapterUse()):
        assert same_weights(editors[0].model.unet.network, golden().unet.network)


def test_a_second_network_on_the_same_weights_packs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = golden()
    first = Editor(model, backend="packed").model.unet
    second = UNet(first.held, PACKED_OPERATORS)
    latent, text = torch.ones(1, 4, 8, 8), torch.zeros(1, 7, 32)
    with torch.no_grad():
        expected = first(latent, first.step(481, text))
        monkeypatch.setattr(packed, "_pack", None)
        assert torch.equal(second(latent, second.step(481, text)), expected)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])  # noqa: S301
def test_a_model_can_be_copied(way: Any) -> None:
    model = golden()
    expected = told(edited(Editor(model, backend="packed")))
    assert packed_names(model)
    assert told(edited(Editor(way(model), backend="packed"))) == expected


def test_a_pipelines_weights_stay_its_own() -> None:
    """Others have them too, and may write to them."""
    from diffusers import StableDiffusionPipeline

    own = golden()
    pipeline = StableDiffusionPipeline(
        vae=own.vae,
        text_encoder=own.text_encoder,
        tokenizer=own.tokenizer,
        unet=own.unet.network,
        scheduler=StableDiffusionPipeline.from_pretrained(MODEL, safety_checker=None).scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    editor = Editor.from_pipeline(pipeline, backend="packed")
    edited(editor)
    assert not packed_names(editor.model)
    assert not packed_names(own)


def test_a_network_is_lent_while_others_pack_it() -> None:
    """In threads: nobody waits for ever, and nobody is handed packed weights."""
    wrong: list[str] = []
    for _ in range(20):
        modules = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(30)))
        holder = HeldNetwork(modules.requires_grad_(False), packable=True)
        weights = [ConvWeight(module, holder) for module in modules]  # type: ignore[arg-type]
        layers = [PACKED_OPERATORS.conv(weight, None, 1, 1) for weight in weights]
        hidden = torch.ones(1, 4, 6, 6).contiguous(memory_format=torch.channels_last)

        def run(layers: Any = layers, hidden: Tensor = hidden) -> None:
            for layer in layers:
                layer(hidden)

        def ask(holder: HeldNetwork = holder) -> None:
            if any(module.weight.is_mkldnn for module in holder.lend()):
                wrong.append("packed")

        threads = [threading.Thread(target=work) for work in (run, ask, run)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        ask()
    assert not wrong


def test_another_thread_takes_out_what_is_packed() -> None:
    """It was as far, and its packed weights stand for the plain ones since."""

    class Emptied(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None: ...

    module = nn.Conv2d(4, 4, 3, padding=1, bias=False).requires_grad_(False)
    holder = HeldNetwork(nn.Sequential(module), packable=True)
    hidden = torch.ones(1, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    expected = module(hidden)
    layer: Any = PACKED_OPERATORS.conv(ConvWeight(module, holder), None, 1, 1)
    object.__setattr__(layer, "packed", Emptied())
    for _ in range(2):
        torch.testing.assert_close(layer(hidden), expected)


def test_weights_that_do_not_come_back_are_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    pack = packed._pack

    def close(weight: Tensor, *given: Any) -> Tensor:
        return pack(weight * (1 + 2**-20), *given)

    monkeypatch.setattr(packed, "_pack", close)
    assert objections_to(torch.device("cpu"), torch.float32) == [
        "oneDNN does not give back the weights of torch.float32 that it packed here"
    ]
