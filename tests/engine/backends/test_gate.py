"""Compiled code is not believed before it is judged, and the verdict is kept."""

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dragnoise.engine.backends.gate import Gate
from dragnoise.engine.backends.verdicts import Verdicts


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
