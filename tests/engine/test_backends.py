"""Backends give the same edits, say why they cannot serve, and compiled code is not believed before it is judged."""

import dataclasses
import json
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dragnoise.engine import BackendError, DragConfig, Editor
from dragnoise.engine.backends import ATTENTION, BACKENDS, Backend, choose
from dragnoise.engine.backends.gate import Gate
from dragnoise.engine.backends.packed import PACKED_OPERATORS, objections
from dragnoise.engine.backends.verdicts import Verdicts
from dragnoise.engine.diffusion.load import load
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.unet import Operators, UNet
from dragnoise.engine.diffusion.unet.operators import FusedNorm
from dragnoise.engine.session.result import EditResult
from dragnoise.engine.system.cuda_graphs import Captured, CudaGraph, LateFlag, NullGraph, graph_on
from golden_cases import GOLDEN, MODEL
from tolerances import assert_close

CPU = torch.device("cpu")
QUICK = DragConfig(steps=10, strength=0.3, iterations=3, lr=0.02)
can_pack = pytest.mark.skipif(
    bool(objections(CPU, torch.float32)), reason="this PyTorch cannot pack weights"
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
    row: Any = Backend(
        "mine", "a test's own", lambda model: [], lambda model, _: (build(model), {})
    )
    return Editor(model(), backend=row)


# Packed weights.


@can_pack
def test_packed_is_the_cpus_choice_and_edits_alike() -> None:
    editor = Editor(model())
    result = edited(editor)
    assert_same_edit(result, eagerly())
    assert result.settings["backend"] == "packed"
    assert result.settings["passed_over"] == {}
    assert eagerly().settings["backend"] == "eager"


@can_pack
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [(3, 1, 1, (9, 7)), (3, 1, 1, (2, 2)), (1, 1, 0, (5, 8)), (3, 2, 1, (9, 8)), (3, 2, 1, (8, 8))],
)
def test_a_packed_convolution(
    dtype: torch.dtype, kernel: int, stride: int, padding: int, size: tuple[int, int]
) -> None:
    """Value, gradient of the map, a bias given at the call; weights that change in place; maps of another size afterwards."""
    if objections(CPU, dtype):
        pytest.skip("no bfloat16 here")
    torch.manual_seed(0)
    weight, bias, other = (
        torch.randn(6, 5, kernel, kernel).to(dtype),
        torch.randn(6).to(dtype),
        torch.randn(6).to(dtype),
    )
    conv = PACKED_OPERATORS.conv(weight, bias, stride, padding)
    for step, sides in enumerate((size, size, (size[0] + 3, size[1] + 1))):
        hidden = torch.randn(2, 5, *sides).to(dtype).contiguous(memory_format=torch.channels_last)
        mine, theirs = hidden.clone().requires_grad_(), hidden.clone().float().requires_grad_()
        for given in (None, other):
            found = conv(mine, given)
            expected = F.conv2d(
                theirs, weight.float(), (bias if given is None else given).float(), stride, padding
            )
            assert_close(found / 8, expected / 8, dtype)
            assert_close(conv(hidden, given) / 8, expected / 8, dtype)
            along = torch.randn(found.shape)
            (gradient,) = torch.autograd.grad(found, mine, along.to(dtype))
            (true,) = torch.autograd.grad(expected, theirs, along.to(dtype).float())
            assert_close(gradient / 8, true / 8, dtype)
        if step == 0:
            weight.mul_(-0.5)


@can_pack
def test_a_packed_linear_map() -> None:
    if objections(CPU, torch.bfloat16):
        pytest.skip("no bfloat16 here")
    torch.manual_seed(0)
    weight, bias = torch.randn(7, 5).bfloat16(), torch.randn(7).bfloat16()
    linear = PACKED_OPERATORS.linear(weight, bias)
    for shape in ((1, 9, 5), (2, 3, 5)):
        hidden = torch.randn(shape).bfloat16()
        mine, theirs = hidden.clone().requires_grad_(), hidden.float().requires_grad_()
        found, expected = linear(mine), F.linear(theirs, weight.float(), bias.float())
        assert_close(found / 4, expected / 4, torch.bfloat16)
        along = torch.randn(found.shape).bfloat16()
        (gradient,) = torch.autograd.grad(found, mine, along)
        (true,) = torch.autograd.grad(expected, theirs, along.float())
        assert_close(gradient / 4, true / 4, torch.bfloat16)
        weight.add_(1)


@can_pack
def test_packed_is_tried_before_it_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    from dragnoise.engine.backends import packed

    def refuses(*given: object) -> Tensor:
        raise RuntimeError("could not create a primitive\nmore")

    monkeypatch.setattr(packed, "_convolve", refuses)
    assert objections(CPU, torch.float32) == [
        "oneDNN refuses packed weights of torch.float32 here: could not create a primitive"
    ]
    monkeypatch.setattr(packed, "_convolve", lambda hidden, weight, *rest: torch.zeros_like(hidden))
    assert objections(CPU, torch.float32) == [
        "oneDNN is 1.0e+00 off with packed weights of torch.float32 here"
    ]
    assert Editor(model()).running.backend == "eager"


def test_packed_objects() -> None:
    assert "packed weights are the CPU's" in objections(torch.device("cuda:0"), torch.float32)[0]
    assert "torch.float16 are not packed" in objections(CPU, torch.float16)[0]


def test_fused_normalisation_edits_alike() -> None:
    """What runs on CUDA without a compiler, on the CPU: channels_last throughout, our own normalisation."""
    operators = Operators(memory_format=torch.channels_last, norm=FusedNorm)
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
        ({"attention": "flash"}, "no attention 'flash'; known: sdpa, xformers"),
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


# Compiled code and its gate.


def a_part(
    hidden: Tensor, constants: tuple[Tensor, ...], scale: int
) -> tuple[Tensor, Tensor | None]:
    return (hidden * constants[0]).sin() * scale, None


class _ZeroGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return torch.zeros_like(gradients[0])


def with_a_zero_gradient(
    hidden: Tensor, constants: tuple[Tensor, ...], scale: int
) -> tuple[Tensor, Tensor | None]:
    value, _ = a_part(hidden, constants, scale)
    return _ZeroGradient.apply(value), None  # type: ignore[no-untyped-call]


def with_a_wrong_output(
    hidden: Tensor, constants: tuple[Tensor, ...], scale: int
) -> tuple[Tensor, Tensor | None]:
    return a_part(hidden, constants, scale)[0] * 1.01, None


def with_a_gradient_that_is_off(
    hidden: Tensor, constants: tuple[Tensor, ...], scale: int
) -> tuple[Tensor, Tensor | None]:
    return a_part(hidden, constants, scale)[0] + 0.01 * (hidden - hidden.detach()), None


def that_fails(
    hidden: Tensor, constants: tuple[Tensor, ...], scale: int
) -> tuple[Tensor, Tensor | None]:
    raise torch._dynamo.exc.Unsupported("a graph break")


def given(grad: bool = True) -> tuple[Any, ...]:
    torch.manual_seed(0)
    return torch.randn(3, 4).requires_grad_(grad), (torch.randn(4),), 2


def gate(compiled: Callable[..., Any], folder: Path) -> Gate:
    return Gate("folded", a_part, compiled, {"torch": torch.__version__}, Verdicts(folder))


@pytest.mark.parametrize(
    ("compiled", "words"),
    [
        (
            with_a_zero_gradient,
            "its gradient 0 is 1.0e+00 off, 1e-03 is allowed (it is exactly zero)",
        ),
        (with_a_gradient_that_is_off, "its gradient 0 is"),
        (with_a_wrong_output, "its output 0 is 1.0e-02 off"),
        (that_fails, "it does not compile: Unsupported: a graph break"),
    ],
)
def test_the_gate_refuses_a_planted_fault(
    compiled: Callable[..., Any], words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    judged = gate(compiled, tmp_path)
    with caplog.at_level(logging.WARNING, "dragnoise"):
        found = judged(*given())
    assert torch.equal(found[0], a_part(*given())[0])
    hidden = given()[0]
    (gradient,) = torch.autograd.grad(judged(hidden, *given()[1:])[0].sum(), hidden)
    assert gradient.abs().min() > 0
    assert words in next(iter(judged.reasons.values()))
    assert "the compiled part 'folded' is not used" in caplog.text
    assert caplog.text.count("is not used") == 1


def test_the_gate_lets_right_code_through_and_remembers(tmp_path: Path) -> None:
    """Judged once a kind of input; the verdict is on disk, so the next process does not run the eager part at all."""
    calls: list[str] = []

    def compiled(*args: Any) -> Any:
        calls.append("compiled")
        return a_part(*args)

    first = gate(compiled, tmp_path)
    first(*given())
    first(*given())
    assert not first.reasons
    assert len(calls) == 1 + 2
    (kept,) = tmp_path.iterdir()
    assert json.loads(kept.read_text())["objection"] == ""
    second = dataclasses.replace(gate(compiled, tmp_path), eager=that_fails)
    second(*given())
    assert len(calls) == 1 + 2 + 1
    first(*given(grad=False))
    with torch.no_grad():
        first(torch.randn(5, 4), *given()[1:])
    assert len(list(tmp_path.iterdir())) == 3
    kept.write_text("{")
    dataclasses.replace(first, _chosen={})(*given())
    assert json.loads(kept.read_text())["objection"] == ""


def test_a_kept_objection_holds_without_trying_again(tmp_path: Path) -> None:
    gate(with_a_zero_gradient, tmp_path)(*given())
    later = gate(that_fails, tmp_path)
    later(*given())
    assert "exactly zero" in next(iter(later.reasons.values()))
    other = dataclasses.replace(gate(a_part, tmp_path), identity={"torch": "another"})
    other(*given())
    assert not other.reasons


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    judged = gate(a_part, tmp_path / "file" / "folder")
    judged(*given())
    assert "is not kept" in caplog.text
    assert not judged.reasons


@pytest.mark.slow
def test_the_compiled_backend_edits_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and cut into forward and backward graphs as for the real compiler, without generating code, which takes minutes on a CPU."""
    from dragnoise.engine.backends import compiled

    compile_part = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda run, **how: compile_part(run, backend="aot_eager", dynamic=False)
    )
    monkeypatch.setattr(compiled, "_verdict_folder", lambda: tmp_path)
    editor = Editor(model(), backend="compiled")
    assert_same_edit(edited(editor), eagerly())
    gates = editor.running.gates
    assert {"whole", "replaced", "folded"} <= set(gates)
    assert not any(judged.reasons for judged in gates.values())
    assert len(list(tmp_path.iterdir())) == len(gates)


# Capturing, as far as a CPU can show it.


def test_a_captured_function_owns_its_buffers() -> None:
    captured = Captured(lambda one, other: one * 2 + other, NullGraph)
    results = []
    for k in range(4):
        one, other = torch.full((2, 3), float(k)), torch.ones(2, 3)
        results.append((k, captured(one, other)))
        one.fill_(99)
    assert all(torch.equal(found, torch.full((2, 3), 2.0 * k + 1)) for k, found in results)
    wide = captured(torch.ones(5), torch.ones(5))
    assert torch.equal(wide, torch.full((5,), 3.0))
    first = next(iter(captured._entries))
    for size in range(6, 6 + Captured.KINDS - 2):
        captured(torch.ones(size), torch.ones(size))
    assert len(captured._entries) == Captured.KINDS
    captured(torch.ones(2, 3), torch.ones(2, 3))
    captured(torch.ones(50), torch.ones(50))
    assert len(captured._entries) == Captured.KINDS
    assert first in captured._entries, "the kind that was used last is kept"


def test_passes_through_a_null_graph_are_the_same_bits() -> None:
    """The code that captures whole passes on CUDA, with a graph that captures nothing."""
    captured: list[str] = []

    def prepare(part: str, run: Callable[..., Any]) -> Callable[..., Any]:
        if part not in ("whole", "replaced"):
            return run
        captured.append(part)
        return Captured(run, NullGraph)

    editor = on_a_row_of_ones_own(lambda model: UNet(model.unet.network, prepare=prepare))
    result = edited(editor)
    assert captured == ["whole", "replaced"]
    assert result.record is not None
    assert eagerly().record is not None
    assert torch.equal(result.record.final_latent, eagerly().record.final_latent)  # type: ignore[union-attr]


def test_a_flag_on_the_cpu_is_read_at_once() -> None:
    flag = LateFlag(CPU)
    assert not flag.ask(torch.tensor(False))
    assert flag.ask(torch.tensor(True))
    assert graph_on(CPU) is NullGraph
    assert graph_on(torch.device("cuda")) is CudaGraph


@pytest.mark.gpu
def test_a_flag_on_cuda_is_the_one_asked_for_before() -> None:
    flag = LateFlag(torch.device("cuda"))
    assert not flag.ask(torch.tensor(True, device="cuda"))
    assert flag.ask(torch.tensor(False, device="cuda"))
    assert not flag.ask(torch.tensor(False, device="cuda"))


@pytest.mark.gpu
def test_captured_on_cuda() -> None:
    captured = Captured(lambda one, other: one * 2 + other, CudaGraph)
    for k in range(4):
        found = captured(
            torch.full((2, 3), float(k), device="cuda"), torch.ones(2, 3, device="cuda")
        )
        assert torch.equal(found, torch.full((2, 3), 2.0 * k + 1, device="cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["eager", "compiled"])
def test_edits_on_cuda_are_the_cpus(backend: str) -> None:
    result = edited(Editor(load(MODEL, device="cuda"), backend=backend))
    assert result.record is not None
    assert eagerly().record is not None
    final = eagerly().record.final_latent  # type: ignore[union-attr]
    assert float((result.record.final_latent.cpu() - final).abs().max()) < 5e-2
