"""Compiled code is not believed before it is judged, and the verdict is kept."""

import dataclasses
import errno
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor.exc import CppCompileError, InductorError, InvalidCxxCompiler

from dragnoise.engine import Editor
from dragnoise.engine.backends.gate import Gate
from dragnoise.engine.backends.verdicts import Verdicts
from golden_cases import MODEL
from sessions import PICTURE, POINTS, QUICK, assert_same


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
    """Code is judged once a kind of input, and the next process reads the verdict from disk."""
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
    assert json.loads(kept.read_text())["verdict"]["objection"] == ""
    second = dataclasses.replace(gate(compiled, tmp_path), eager=that_fails)
    second(*given())
    assert len(calls) == 1 + 2 + 1
    first(*given(grad=False))
    with torch.no_grad():
        first(torch.randn(5, 4), *given()[1:])
    assert len(list(tmp_path.iterdir())) == 3
    kept.write_text("{")
    dataclasses.replace(first, _chosen={})(*given())
    assert json.loads(kept.read_text())["verdict"]["objection"] == ""


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


def _no_memory(*inputs: Any) -> Any:
    raise RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"
    )


def _no_gpu_memory(*inputs: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def _no_python_memory(*inputs: Any) -> Any:
    raise MemoryError


def _no_room(*inputs: Any) -> Any:
    raise InductorError(OSError(errno.ENOSPC, "No space left on device"), None)


def _no_compiler(*inputs: Any) -> Any:
    raise InductorError(InvalidCxxCompiler(), None)


def _killed_compiler(*inputs: Any) -> Any:
    raise InductorError(CppCompileError(["c++"], "Killed signal terminated program cc1plus"), None)


@pytest.mark.parametrize(
    "compiled",
    [_no_memory, _no_gpu_memory, _no_python_memory, _no_room, _no_compiler, _killed_compiler],
)
def test_what_is_the_moments_fault_is_not_kept(
    compiled: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    judged = gate(compiled, tmp_path)
    for _ in range(2):
        assert torch.equal(judged(*given())[0], a_part(*given())[0])
    assert list(tmp_path.iterdir()) == []
    assert len(judged.reasons) == 1
    assert len(caplog.records) == 1
    assert "\n" not in caplog.messages[0]
    later = gate(a_part, tmp_path)
    later(*given())
    assert not later.reasons


def test_an_interrupt_is_no_verdict(tmp_path: Path) -> None:
    def interrupted(*inputs: Any) -> Any:
        raise KeyboardInterrupt

    judged = gate(interrupted, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        judged(*given())
    assert list(tmp_path.iterdir()) == []
    assert not judged.reasons


@pytest.mark.parametrize("fails", [_no_compiler, _no_room, that_fails])
def test_what_was_allowed_with_a_compiler_runs_eagerly_without(
    fails: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The verdict stays for when there is one again; gates that fail alike say it once."""
    gate(a_part, tmp_path)(*given())
    (kept,) = tmp_path.iterdir()
    before = kept.read_bytes()
    told: set[str] = set()
    for _ in range(2):
        later = dataclasses.replace(gate(fails, tmp_path), told=told)
        for _ in range(2):
            assert torch.equal(later(*given())[0], a_part(*given())[0])
        assert len(later.reasons) == 1
    assert kept.read_bytes() == before
    assert len(caplog.records) == 1


def test_an_error_of_the_work_itself_is_no_matter_of_the_gate(tmp_path: Path) -> None:
    gate(a_part, tmp_path)(*given())
    with pytest.raises(torch.OutOfMemoryError):
        gate(_no_gpu_memory, tmp_path)(*given())


def test_without_a_compiler_nothing_is_compiled_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "/nowhere/c++"))
    slow = Editor.from_pretrained(MODEL, device="cpu", backend="compiled")
    result = slow.edit(PICTURE, POINTS, config=QUICK)
    eager = Editor.from_pretrained(MODEL, device="cpu", backend="eager")
    assert_same(result, eager.edit(PICTURE, POINTS, config=QUICK))
    assert [record.getMessage() for record in caplog.records] == [
        "nothing is compiled: No working C++ compiler found in torch._inductor.config.cpp.cxx: "
        "(None, '/nowhere/c++'); all runs eagerly"
    ]
    assert result.settings["refused"]
