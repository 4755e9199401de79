"""Backends make the same edits, and say why they cannot serve."""

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from called import Called
from dragnoise.engine import BackendError, DragConfig, Editor
from dragnoise.engine.backends import ATTENTION, BACKENDS, Backend, choose
from dragnoise.engine.backends import backend as backend_module
from dragnoise.engine.backends.attention import by_pytorch
from dragnoise.engine.backends.backend import captured
from dragnoise.engine.backends.eager import FUSED_OPERATORS
from dragnoise.engine.backends.packed import objections_to
from dragnoise.engine.diffusion.load import load
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.parts import Part, PartFunction
from dragnoise.engine.diffusion.unet import UNet
from dragnoise.engine.diffusion.unet.operators import sdpa
from dragnoise.engine.session.result import EditResult
from dragnoise.engine.system.cuda_graphs import NullGraph
from dragnoise.kernels.attention import attention
from golden_cases import GOLDEN, MODEL

CPU = torch.device("cpu")
QUICK = DragConfig(steps=10, strength=0.3, iterations=3, lr=0.02)
can_pack = pytest.mark.skipif(
    bool(objections_to(CPU, torch.float32)), reason="this PyTorch cannot pack weights"
)


@cache
def model() -> Model:
    return load(MODEL, device="cpu")


def edited(editor: Editor) -> EditResult:
    mask = np.zeros((256, 256), np.bool_)
    mask[64:192] = True
    image = GOLDEN / "images" / "discs_256x256.png"
    return editor.edit(image, "100,90:130,100", mask=mask, config=QUICK, record=True)


@cache
def eagerly() -> EditResult:
    return edited(Editor(model(), backend="eager"))


def assert_same_edit(mine: EditResult, theirs: EditResult) -> None:
    assert mine.record is not None
    assert theirs.record is not None
    assert torch.equal(mine.record.handles, theirs.record.handles)
    np.testing.assert_allclose(mine.history.losses, theirs.history.losses, rtol=1e-3)
    torch.testing.assert_close(mine.record.inverted, theirs.record.inverted, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        mine.record.final_latent, theirs.record.final_latent, rtol=0, atol=1e-2
    )


def on_a_row_of_ones_own(build: Callable[[Model], UNet]) -> Editor:
    row = Backend("mine", "a test's own", lambda model: [], lambda model, _: (build(model), {}))
    return Editor(model(), backend=row)


@can_pack
def test_packed_is_the_cpus_choice_and_edits_alike() -> None:
    editor = Editor(model())
    result = edited(editor)
    assert_same_edit(result, eagerly())
    assert result.settings["backend"] == "packed"
    assert result.settings["passed_over"] == {}
    assert eagerly().settings["backend"] == "eager"


def test_fused_operators_edit_alike() -> None:
    """What runs on CUDA without a compiler edits alike on a CPU.

    That is channels_last throughout, our own normalisations and gate, and attention's gradients.
    """
    operators = dataclasses.replace(FUSED_OPERATORS, attention=attention)
    editor = on_a_row_of_ones_own(lambda model: UNet(model.unet.network, operators))
    assert_same_edit(edited(editor), eagerly())


# The choice.


def test_who_cannot_serve_says_why() -> None:
    half = load(MODEL, device="cpu")
    half.unet.network.double()
    with pytest.raises(
        BackendError, match=r"packed: weights of torch.float64 are not packed. Use auto or eager"
    ):
        choose(half, "packed")
    chosen, choice = choose(half)
    assert choice.backend == "eager"
    assert list(choice.passed_over) == ["packed"]
    assert "passed_over" in choice.to_dict()
    assert chosen.unet.network is half.unet.network


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"backend": "cudagraphs"}, "no backend 'cudagraphs'; known: packed, compiled, eager"),
        ({"attention": "flash"}, "no attention 'flash'; known: sdpa, deterministic, xformers"),
        ({"attention": "deterministic"}, "on cpu sdpa gives the same bits every time already"),
        ({"attention": "xformers"}, "attention 'xformers' cannot serve here: .*Use sdpa"),
    ],
)
def test_refusals(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(BackendError, match=words):
        Editor(model(), **asked)


def test_a_row_of_ones_own_has_a_name_of_its_own() -> None:
    """Names are cache keys: two backends of one name would hand each other their results."""
    chosen, choice = choose(model(), dataclasses.replace(BACKENDS["eager"], name="mine"))
    assert choice.backend == "mine"
    assert "mine" in chosen.how
    refusing = dataclasses.replace(BACKENDS["eager"], name="mine", objections=lambda model: ["no"])
    with pytest.raises(BackendError, match="mine: no"):
        choose(model(), refusing)
    with pytest.raises(BackendError, match="there is a backend 'eager' already"):
        choose(model(), dataclasses.replace(BACKENDS["eager"], description="another"))
    assert choose(model(), BACKENDS["eager"])[1].backend == "eager"


def test_every_backend_answers() -> None:
    for backend in BACKENDS.values():
        assert backend.description
        assert isinstance(backend.objections(model()), list)
    assert ATTENTION["sdpa"].objections(CPU, torch.float32) == []
    assert ATTENTION["xformers"].objections(CPU, torch.float32)


def test_attention_on_a_cpu_is_pytorchs() -> None:
    query, key = torch.randn(2, 1, 6, 2, 8).unbind()
    with Called() as called:
        attended = by_pytorch(query.requires_grad_(), key, key)
    assert not [name for name in called.times if name.startswith("dragnoise")]
    assert torch.equal(attended, sdpa(query, key, key))


@pytest.mark.gpu
@pytest.mark.parametrize("fixed", [True, False], ids=["a text's keys", "keys that want gradients"])
@pytest.mark.parametrize("width", [40, 160])
def test_gradients_of_attention_on_cuda(fixed: bool, width: int) -> None:
    """For a text's keys ours, of the queries alone; else PyTorch's."""
    torch.manual_seed(0)
    query, key, value, along = torch.randn(4, 2, 96, 8, width, device="cuda").half().unbind()
    query.requires_grad_()
    key, value = (each[:, :77].clone().requires_grad_(not fixed) for each in (key, value))
    leaves = [query] if fixed else [query, key, value]
    with Called() as called:
        found = torch.autograd.grad(by_pytorch(query, key, value), leaves, along)
    assert called.times["dragnoise::attention_query_gradient"] == fixed
    expected = torch.autograd.grad(sdpa(query, key, value), leaves, along)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=2e-3)


@pytest.mark.slow
def test_the_compiled_backend_edits_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts are traced and cut into forward and backward graphs as for the real compiler.

    No code is generated: that takes minutes on a CPU.
    """
    from dragnoise.engine.backends import compiled

    compile_part = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda run, **how: compile_part(run, backend="aot_eager", dynamic=False)
    )
    monkeypatch.setattr(compiled, "_verdict_folder", lambda: tmp_path)
    editor = Editor(model(), backend="compiled")
    assert_same_edit(edited(editor), eagerly())
    gates = editor.running.gates
    assert {"unet", "unet-replaced", "folded"} <= set(gates)
    assert not any(judged.reasons for judged in gates.values())
    assert len(list(tmp_path.iterdir())) == len(gates)


def test_passes_through_a_null_graph_are_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code that captures passes on CUDA, with a graph that captures nothing."""
    captures: list[str] = []

    def wrap(part: Part, run: PartFunction) -> PartFunction:
        def capture(work: Callable[[], None]) -> NullGraph:
            captures.append(part.name)
            return NullGraph(work)

        monkeypatch.setattr(backend_module, "graph_on", lambda device: capture)
        return captured(part, run, torch.device("cuda"))

    editor = on_a_row_of_ones_own(lambda model: UNet(model.unet.network, wrap=wrap))
    edited(editor)
    assert "up" not in captures
    result = edited(editor)
    assert sorted(captures) == ["down", "middle", "unet", "unet-replaced", "up"]
    mine = result.record
    theirs = eagerly().record
    assert mine is not None
    assert theirs is not None
    assert torch.equal(mine.final_latent, theirs.final_latent)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["eager", "compiled"])
def test_edits_on_cuda_are_the_cpus(backend: str) -> None:
    result = edited(Editor(load(MODEL, device="cuda", dtype="float32"), backend=backend))
    mine = result.record
    theirs = eagerly().record
    assert mine is not None
    assert theirs is not None
    assert float((mine.final_latent.cpu() - theirs.final_latent).abs().max()) < 5e-2
