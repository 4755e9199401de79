"""What the engine computes with is its own, whatever modes the host program is in."""

import ast
import copy
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

import dragnoise.engine.drag
from dragnoise.engine import Editor, NumbersError
from dragnoise.engine.system.finite import check_finite, check_loss, is_finite
from dragnoise.engine.system.numerics import ordinary, own_numerics
from dragnoise.engine.system.worker import Worker
from golden_cases import MODEL
from host_modes import MODES, observed
from sessions import PICTURE, POINTS, QUICK, assert_same, editor

ROOMS = Path(dragnoise.engine.drag.__file__).parents[2]
FLOATS = {"zeros", "ones", "empty", "full", "linspace", "logspace", "rand", "randn", "eye"}
"""Functions of torch that make tensors of the default dtype where none is named."""


@pytest.mark.parametrize("mode", MODES)
def test_own_numerics_leave_a_mode_and_come_back_to_it(mode: str) -> None:
    with MODES[mode]():
        before = observed()
        with own_numerics():
            assert not torch.is_inference_mode_enabled()
            assert torch.is_grad_enabled()
            assert not torch.is_autocast_enabled("cpu")
            assert torch.zeros(1, dtype=torch.float32).device.type == "cpu"
            square = torch.ones(2, 2, dtype=torch.float32)
            assert (square @ square).dtype == torch.float32
        assert observed() == before


def test_a_job_in_a_jobs_modes_is_done_in_ours() -> None:
    """A callback that edits, in inference mode: its job runs at once in the worker's thread."""
    worker = Worker()

    def inner(job: object) -> bool:
        return torch.is_inference_mode_enabled() or not torch.is_grad_enabled()

    def outer(job: object) -> bool:
        with torch.inference_mode():
            return worker.submit(inner, what="a callback's edit").result()

    assert not worker.submit(outer, what="an edit").result()


def test_every_tensor_is_made_with_a_dtype_that_is_named() -> None:
    """Nothing can hold the default dtype: it is the whole process's, a stream's reader's too."""
    unnamed = [
        f"{file.relative_to(ROOMS)}:{call.lineno}"
        for room in ("engine", "kernels")
        for file in sorted((ROOMS / room).rglob("*.py"))
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in FLOATS
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "torch"
        and "dtype" not in {keyword.arg for keyword in call.keywords}
    ]
    # An empty tensor that is asked for its device alone.
    assert [place for place in unnamed if "tensorrt/execution.py" not in place] == []


def test_a_tensor_of_inference_mode_becomes_an_ordinary_view_of_its_memory() -> None:
    with torch.inference_mode():
        made = torch.arange(6.0).view(2, 3).t()
    view = ordinary(made)
    assert (view.shape, view.stride(), view.data_ptr()) == ((3, 2), (1, 3), made.data_ptr())
    assert torch.equal(view, made)
    (view.clone().requires_grad_() * view).sum().backward()
    assert ordinary(view) is view


def test_a_pipeline_of_inference_mode_is_dragged_on() -> None:
    plain = StableDiffusionPipeline.from_pretrained(
        MODEL, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    with torch.inference_mode():
        made = copy.deepcopy(plain)
    expected = Editor.from_pipeline(plain).edit(PICTURE, POINTS, config=QUICK)
    assert_same(Editor.from_pipeline(made).edit(PICTURE, POINTS, config=QUICK), expected)


def test_finite_is_told_at_every_depth() -> None:
    bad = torch.tensor([1.0, torch.nan])
    whole = (torch.ones(2), (torch.arange(3), "x", None, editor().defaults), torch.ones(0))
    assert check_finite("invert", whole) is whole
    for result in (bad, (whole, (bad,)), torch.tensor(torch.inf), bad.bfloat16()):
        assert not is_finite(result)
        with pytest.raises(NumbersError, match=r"'invert' is the first .* adapter"):
            check_finite("invert", result)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_names_its_iteration(loss: float) -> None:
    assert check_loss("drag", 3, 0.5) == 0.5
    with pytest.raises(NumbersError, match=f"{loss} at iteration 3; take a smaller lr"):
        check_loss("drag", 3, loss)
    with pytest.raises(NumbersError, match="model's files"):
        check_loss("drag", 0, loss)
