"""Weights packed for oneDNN compute what plain ones do, and are tried before they are used."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dragnoise.engine import Editor
from dragnoise.engine.backends import packed
from dragnoise.engine.backends.packed import PACKED_OPERATORS, objections_to
from dragnoise.engine.diffusion.load import load
from dragnoise.engine.diffusion.unet import ConvWeight
from golden_cases import MODEL
from tolerances import assert_close

CPU = torch.device("cpu")
can_pack = pytest.mark.skipif(
    bool(objections_to(CPU, torch.float32)), reason="this PyTorch cannot pack weights"
)


@can_pack
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [(3, 1, 1, (9, 7)), (3, 1, 1, (2, 2)), (1, 1, 0, (5, 8)), (3, 2, 1, (9, 8)), (3, 2, 1, (8, 8))],
)
def test_a_packed_convolution(
    dtype: torch.dtype, kernel: int, stride: int, padding: int, size: tuple[int, int]
) -> None:
    """Value, gradient of the map, and a bias at the call.

    Also after weights have changed in place, and on maps of another size.
    """
    if objections_to(CPU, dtype):
        pytest.skip("no bfloat16 here")
    torch.manual_seed(0)
    weight, bias, other = (
        torch.randn(6, 5, kernel, kernel).to(dtype),
        torch.randn(6).to(dtype),
        torch.randn(6).to(dtype),
    )
    conv = PACKED_OPERATORS.conv(ConvWeight.of(weight), bias, stride, padding)
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
    if objections_to(CPU, torch.bfloat16):
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
    def refuses(*given: object) -> Tensor:
        raise RuntimeError("could not create a primitive\nmore")

    monkeypatch.setattr(packed, "_convolve", refuses)
    assert objections_to(CPU, torch.float32) == [
        "oneDNN refuses packed weights of torch.float32 here: could not create a primitive"
    ]
    monkeypatch.setattr(packed, "_convolve", lambda hidden, weight, *rest: torch.zeros_like(hidden))
    assert objections_to(CPU, torch.float32) == [
        "oneDNN is 1.0e+00 off with packed weights of torch.float32 here"
    ]
    assert Editor(load(MODEL, device="cpu")).running.backend == "eager"


def test_packed_objects() -> None:
    assert "packed weights are the CPU's" in objections_to(torch.device("cuda:0"), torch.float32)[0]
    assert "torch.float16 are not packed" in objections_to(CPU, torch.float16)[0]


@can_pack
@pytest.mark.parametrize("part", [slice(3), slice(3, None)], ids=["first", "rest"])
def test_part_of_a_weight_is_packed_from_where_it_lies(part: slice) -> None:
    """No copy is kept beside the packed one, the bits are a copy's, and changes are seen."""
    torch.manual_seed(0)
    weight = torch.randn(6, 5, 3, 3)
    view = ConvWeight.of(weight).part(part, PACKED_OPERATORS.part)
    assert view.plain().untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
    conv = PACKED_OPERATORS.conv(view, None, 1, 1)
    hidden = torch.randn(1, view.plain().shape[1], 8, 8).contiguous(
        memory_format=torch.channels_last
    )
    for _ in range(2):
        mine, yours = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
        copied = PACKED_OPERATORS.conv(ConvWeight.of(weight[:, part].contiguous()), None, 1, 1)
        found, expected = conv(mine), copied(yours)
        assert torch.equal(found, expected)
        assert torch.equal(PACKED_OPERATORS.once(view, None, 1, 1)(hidden), expected)
        along = torch.randn(found.shape)
        assert torch.equal(
            *(
                torch.autograd.grad(out, of, along)[0]
                for out, of in ((found, mine), (expected, yours))
            )
        )
        weight.mul_(-0.5)
