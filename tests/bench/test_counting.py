"""Count operators on the meta device: figures worked out by hand."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dragnoise.bench.work.counts import Counts, Kernel
from dragnoise.bench.work.recorder import Recorder

META = torch.device("meta")


def counted(run: Callable[[], object], *weights: nn.Module) -> Counts:
    """What `run` costs as the one stage of a recording; `weights` are registered as w0, w1, ..."""
    recorder = Recorder(META)
    for number, module in enumerate(weights):
        recorder.register(f"w{number}", module)
    with recorder.watching(), recorder.stage("it"):
        run()
    (only,) = recorder.stages["it"]
    return only


def meta(*shape: int, dtype: torch.dtype = torch.float32, grad: bool = False) -> Tensor:
    return torch.zeros(shape, device=META, dtype=dtype, requires_grad=grad)


def frozen(module: nn.Module) -> nn.Module:
    return module.to(META).requires_grad_(False)


def test_linear_map() -> None:
    layer, given = frozen(nn.Linear(3, 5)), meta(7, 3)
    found = counted(lambda: layer(given), layer)
    assert found.flops == 2 * 7 * 3 * 5
    assert found.weight_bytes == 4 * (3 * 5 + 5)
    assert found.activation_bytes_read == 4 * 7 * 3
    assert found.activation_bytes_written == 4 * 7 * 5
    assert found.launches == 1
    assert found.operators == 2  # the weight is transposed first, which is a view
    assert found.kernels == {Kernel(210, 4 * (20 + 21 + 35), torch.float32): 1}
    assert found.reads == {"w0.weight": 1, "w0.bias": 1}


def test_convolution_and_its_gradient() -> None:
    layer, given = frozen(nn.Conv2d(3, 5, 3, padding=1, bias=False)), meta(1, 3, 8, 8, grad=True)
    forward = 2 * 8 * 8 * 3 * 3 * 3 * 5
    assert counted(lambda: layer(given), layer).flops == forward
    both = counted(lambda: torch.autograd.grad(layer(given), given, meta(1, 5, 8, 8)), layer)
    assert both.flops == 2 * forward
    assert both.weight_bytes == 2 * 4 * 5 * 3 * 9
    assert (
        both.activation_bytes_read == 4 * (3 + 5) * 64
    )  # the backward looks at the gradient, not at the input
    assert both.weight_gradients == 0


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 5, 3), (2, 3, 8, 8)),
        (nn.Linear(3, 5), (7, 3)),
        (nn.GroupNorm(2, 4), (1, 4, 3, 3)),
    ],
)
def test_a_weight_gradient_is_seen(layer: nn.Module, shape: tuple[int, ...]) -> None:
    layer = layer.to(META)
    given = meta(*shape, grad=True)

    def both() -> None:
        layer(given).sum().backward()

    assert counted(both, layer).weight_gradients == 1
    assert counted(both, layer.requires_grad_(False)).weight_gradients == 0


def test_attention_is_one_operator() -> None:
    """Its backward counts two products for every one of the forward pass, or what is asked for."""
    queries, keys = meta(1, 2, 6, 8, grad=True), meta(1, 2, 4, 8)
    forward = 2 * (2 * 2 * 6 * 4 * 8)
    assert counted(lambda: F.scaled_dot_product_attention(queries, keys, keys)).flops == forward

    def backward() -> None:
        F.scaled_dot_product_attention(queries, keys, keys).sum().backward()

    alone = counted(backward)
    assert alone.flops == 2 * forward
    keys.requires_grad_()
    assert counted(backward).flops == 3 * forward
    assert [kernel.flops for kernel in alone.kernels if kernel.flops] == [forward, forward]


def test_views_are_dispatched_and_cost_nothing() -> None:
    given = meta(4, 6)
    found = counted(lambda: given.view(6, 4).t()[1:].expand(3, 3, 6).detach())
    assert found.operators > 0
    assert (found.launches, found.activation_bytes_read, found.activation_bytes_written) == (
        0,
        0,
        0,
    )


def test_an_expanded_input_is_read_once() -> None:
    given, other = meta(1, 6), meta(1000, 6)
    assert counted(lambda: other + given.expand(1000, 6)).activation_bytes_read == 4 * (6000 + 6)


def test_memory_is_given_without_a_launch() -> None:
    found = counted(lambda: torch.empty_strided((5,), (1,), device=META).zero_())
    assert found.launches == found.operators - 1
    assert found.activation_bytes_read == 0


def test_in_place_reads_and_writes() -> None:
    given, other = meta(10), meta(10)
    added = counted(lambda: given.add_(other))
    assert (added.activation_bytes_read, added.activation_bytes_written) == (80, 40)
    copied = counted(lambda: given.copy_(other))
    assert (copied.activation_bytes_read, copied.activation_bytes_written) == (40, 40)


def test_what_is_made_of_weights_alone_is_weights() -> None:
    layer = frozen(nn.Linear(4, 4, bias=False))
    weight, packed = layer.weight, meta(4, 4, dtype=torch.float16)
    assert isinstance(weight, Tensor)
    recorder = Recorder(META)
    recorder.register("w", layer)
    with recorder.watching():
        cast = weight.half().t().contiguous()
        packed.copy_(weight)
        mixed = cast + meta(4, 4, dtype=torch.float16)
        with recorder.stage("it"):
            torch.mm(mixed, cast)
            torch.mm(mixed, packed)
    (found,) = recorder.stages["it"]
    assert found.weight_bytes == 2 * 2 * 16
    assert found.activation_bytes_read == 2 * 2 * 16
    assert found.reads == {"w.weight": 2}


def read_a_number() -> None:
    meta().item()


def ask_a_flag() -> None:
    assert not meta(dtype=torch.bool)


def make_of_numbers() -> None:
    torch.tensor([1, 2], device=META)


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (read_a_number, 1),
        (ask_a_flag, 1),
        (lambda: meta(3).nonzero(), 1),
        (lambda: meta(3).equal(meta(3)), 1),
        (lambda: meta(3).tolist(), 1),
        (lambda: meta(3).cpu(), 1),
        (lambda: torch.zeros(3).copy_(meta(3)), 1),
        (lambda: torch.zeros(3).copy_(meta(3), non_blocking=True), 0),
        (lambda: torch.zeros(3).to(META), 1),
        (lambda: torch.zeros(3).to(META, non_blocking=True), 0),
        (make_of_numbers, 1),
        (lambda: torch.full((3,), 2.0, device=META), 0),
        (lambda: meta(3) * torch.tensor(2.0), 0),
        (lambda: torch.tensor(2.0).item(), 0),
    ],
)
def test_what_the_host_waits_for(run: Callable[[], object], expected: int) -> None:
    assert counted(run).synchronisations == expected


def test_reads_give_what_the_host_put_there() -> None:
    recorder = Recorder(META)
    with recorder.watching():
        given = torch.tensor([[3, 4]]).to(META)
        assert given.tolist() == [[3, 4]]
        assert torch.tensor(True, device=META)
        assert given.float().tolist() == [[0.0, 0.0]]
        given += 1
        assert given.tolist() == [[0, 0]]


def test_live_bytes() -> None:
    recorder = Recorder(META)
    layer = frozen(nn.Linear(8, 8, bias=False))
    recorder.register("w", layer)
    recorder.register("again", layer)
    with recorder.watching(), recorder.stage("it"):
        first = meta(100)
        recorder.mark()
        view = first[50:]
        second = meta(1000)
        del second, first
        recorder.mark()
        del view
    before, during, after = recorder.stages["it"]
    weights = 4 * 64
    assert [part.live_bytes - weights for part in (before, during, after)] == [400, 400, 0]
    assert [part.peak_bytes - weights for part in (before, during, after)] == [400, 4400, 400]


def test_saved_activations_stay_alive_until_the_gradient() -> None:
    recorder = Recorder(META)
    given = meta(1000, grad=True)
    with recorder.watching(), recorder.stage("it"):
        loss = given.exp().exp().sum()
        recorder.mark()
        torch.autograd.grad(loss, given)
        del loss
    forward, backward = recorder.stages["it"]
    assert forward.live_bytes == 4 * 2001
    assert backward.live_bytes == 0


def test_stages_and_what_lies_between_them() -> None:
    recorder = Recorder(META)
    with recorder.watching():
        for name in ("a", "b", "a"):
            meta(3)
            with recorder.stage(name):
                meta(5) * 2
    assert {name: [part.launches for part in parts] for name, parts in recorder.stages.items()} == {
        "a": [4],
        "b": [2],
    }


def test_arithmetic() -> None:
    kernel = Kernel(1, 2, torch.float32)
    one = Counts(flops=3, launches=1, peak_bytes=10, live_bytes=4)
    one.kernels[kernel] += 2
    two = Counts(flops=5, peak_bytes=7, live_bytes=6)
    both = one + two
    assert (both.flops, both.launches, both.peak_bytes, both.live_bytes) == (8, 1, 10, 6)
    assert one.times(3).kernels == {kernel: 6}
    assert (one.times(3).flops, one.times(3).peak_bytes) == (9, 10)
    assert one.differences(two) == ["flops", "launches", "kernels"]
    assert one.differences(one) == []
    assert set(one.numbers()) == {entry for entry in vars(one) if entry not in ("kernels", "reads")}


def test_on_a_real_device_everything_is_computed() -> None:
    recorder = Recorder(torch.device("cpu"))
    with recorder.watching(), recorder.stage("it"):
        product = torch.ones(2, 3) @ torch.ones(3, 4)
        assert product.tolist() == [[3.0] * 4] * 2
    assert recorder.stages["it"][0].flops == 2 * 2 * 3 * 4


def test_what_is_one_kernel_on_cuda_is_one_launch() -> None:
    """Nearest upsampling, which PyTorch takes apart in Python where it may."""
    given = meta(1, 2, 4, 4)
    found = counted(lambda: F.interpolate(given, scale_factor=2.0, mode="nearest"))
    assert (found.launches, found.activation_bytes_read, found.activation_bytes_written) == (
        1,
        4 * 32,
        4 * 128,
    )
