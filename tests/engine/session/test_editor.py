"""What an edit does with every legal input, through the public API, and that it does no more work
than it must.
"""

import dataclasses
import inspect
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dragnoise.engine import (
    ConfigError,
    DragConfig,
    Editor,
    Image,
    InputWarning,
    MaskError,
    PointError,
)
from dragnoise.engine.diffusion.unet import UNet
from dragnoise.engine.drag.loop import DragLoop
from dragnoise.engine.methods import METHODS
from dragnoise.engine.session.result import EditResult
from golden_cases import GOLDEN, MODEL

QUICK = DragConfig(steps=10, strength=0.3, iterations=3, lr=0.05, lam=0.1)
PICTURE = Image(
    np.asarray(PIL.Image.open(GOLDEN / "images" / "face_256x256.png").convert("RGB"))[
        64:160, 64:160
    ]
)
MIDDLE = "40,40:70,60"


@cache
def editor() -> Editor:
    return Editor.from_pretrained(MODEL, device="cpu", check_pictures=False)


def edit(
    image: Any = PICTURE, points: Any = MIDDLE, config: DragConfig = QUICK, **more: Any
) -> EditResult:
    return editor().edit(image, points, config=config, record=True, **more)


def same(one: EditResult, other: EditResult) -> bool:
    assert one.record is not None
    assert other.record is not None
    return np.array_equal(one.image.pixels, other.image.pixels) and torch.equal(
        one.record.final_latent, other.record.final_latent
    )


def test_a_result_says_all() -> None:
    seen: list[tuple[str, int, int]] = []
    result = editor().edit(PICTURE, MIDDLE, config=QUICK, progress=lambda *step: seen.append(step))
    assert result.image.pixels.shape == PICTURE.pixels.shape
    assert result.record is None
    assert result.history.losses.shape == (3,)
    assert result.history.handles.shape == (3, 1, 2)
    assert result.history.handles[0].tolist() == [[40, 40]]
    assert list(result.points.targets) == [(70, 60)]
    assert not result.reached
    assert list(result.timings_ms) == [
        "embed",
        "encode",
        "condition",
        "invert",
        "start",
        "drag",
        "propagate",
        "decode",
        "total",
    ]
    assert (
        result.timings_ms["total"]
        >= sum(ms for stage, ms in result.timings_ms.items() if stage != "total")
        > 0
    )
    assert result.settings["config"] == QUICK
    assert result.settings["device"] == "cpu"
    assert seen == [
        *(("invert", n, 3) for n in (1, 2, 3)),
        *(("drag", n, 3) for n in (1, 2, 3)),
        *(("propagate", n, 3) for n in (1, 2, 3)),
    ]


@pytest.mark.parametrize("corner", [(0, 0), (95, 0), (0, 95), (95, 95), (1, 47), (47, 94), (2, 2)])
def test_points_on_and_near_the_border(corner: tuple[int, int]) -> None:
    """From the border inwards, along it and from inside onto it: windows and patches clamp."""
    x, y = corner
    result = edit(points=[(x, y, 48, 48), (48, 48, x, y), (x, y, 95 - x, y)])
    assert ((result.history.handles >= 0) & (result.history.handles <= 95)).all()
    assert np.isfinite(result.history.losses).all()


@pytest.mark.parametrize(
    ("height", "width"), [(91, 83), (96, 89), (65, 64), (17, 130), (8, 8), (5, 3)]
)
def test_any_size(height: int, width: int) -> None:
    picture = Image.of(PICTURE.to_pil().resize((width, height)))
    far = (width - 1, height - 1)
    mask = np.ones((height, width), np.bool_)
    mask[: height // 2] = False
    with pytest.warns(InputWarning, match=r"every handle \(1 of 1\) lies where the mask holds"):
        result = edit(picture, [((0, 0), far)], mask=mask)
    assert result.image.pixels.shape == (height, width, 3)
    assert result.history.handles[0].tolist() == [[0, 0]]
    assert result.points.targets == (far,)


def test_padding_is_exact() -> None:
    """A picture whose padding repeats its border is the padded picture: the same points, the same
    pixels where both are.
    """
    flat = np.repeat(
        np.repeat(PICTURE.pixels[:93, :90], [1] * 92 + [4], axis=0), [1] * 89 + [7], axis=1
    )
    whole, cut = edit(Image(flat)), edit(Image(PICTURE.pixels[:93, :90]))
    np.testing.assert_array_equal(cut.image.pixels, whole.image.pixels[:93, :90])
    np.testing.assert_array_equal(cut.history.handles, whole.history.handles)


def test_no_mask_is_an_all_one_mask_is_lambda_zero() -> None:
    free = edit()
    with pytest.warns(InputWarning, match="marks all 9216 pixels as editable"):
        ones = edit(mask=np.ones((96, 96), np.bool_))
    assert same(free, ones)
    assert ones.record is not None
    assert ones.record.keep is None
    half = np.zeros((96, 96), np.bool_)
    half[:48] = True
    assert not same(free, edit(mask=half))
    assert same(free, edit(mask=half, config=QUICK.replace(lam=0)))


def test_an_all_zero_mask_holds_the_whole_picture() -> None:
    """It warns; and it is what the published code means by no mask, which parity mode keeps."""
    zeros = np.zeros((96, 96), np.bool_)
    strong = QUICK.replace(lam=100)
    with pytest.warns(InputWarning, match="marks nothing as editable"):
        held = edit(mask=zeros, config=strong)
    assert not same(held, edit(config=strong))
    published = edit(config=strong.replace(parity=True))
    assert published.record is not None
    assert held.record is not None
    assert torch.equal(published.record.final_latent, held.record.final_latent)


def test_handle_equal_to_target_changes_nothing() -> None:
    for still in ("40,40:40,40", "40,40:42,42", "40,40:40,40 50,50:51,50"):
        result = edit(points=still)
        assert result.reached
        assert len(result.history.losses) == 0
        assert result.record is not None
        assert torch.equal(result.record.bottleneck, result.record.bottleneck_start)
    assert same(result, edit(config=QUICK.replace(iterations=0)))


def test_one_still_pair_does_not_stop_the_others() -> None:
    result = edit(points="40,40:40,40 50,50:80,50")
    assert not result.reached
    assert len(result.history.losses) == 3


def test_long_prompts_are_cut_with_a_warning() -> None:
    length = editor().model.tokenizer.model_max_length
    with pytest.warns(InputWarning, match=rf"the prompt has \d+ tokens, the model reads {length}"):
        long = edit(prompt="disc " * 3 * length)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not same(long, edit(prompt="disc"))
    with pytest.warns(InputWarning):
        assert same(long, edit(prompt="disc " * 4 * length))


def test_every_kind_of_picture(tmp_path: Path) -> None:
    grey = PICTURE.to_pil().convert("L")
    expected = edit(grey)
    deep = np.asarray(grey).astype(np.uint16) * 257
    turned = PIL.Image.Exif()
    turned[0x0112] = 3
    grey.rotate(180).convert("RGB").save(tmp_path / "turned.png", exif=turned)
    opaque = grey.convert("RGBA")
    for kind in (deep, tmp_path / "turned.png", opaque, np.asarray(grey) / 255):
        assert same(expected, edit(kind))


def test_refusals() -> None:
    with pytest.raises(PointError, match="outside the 96x96 image"):
        edit(points="40,40:96,40")
    with pytest.raises(MaskError, match="95x96 but the image is 96x96"):
        edit(mask=np.ones((96, 95)))
    with pytest.raises(ConfigError, match="no method 'dragon'; known: dragnoise"):
        edit(method="dragon")
    with pytest.raises(ConfigError, match="poll_every"):
        Editor(editor().model, poll_every=0)


def test_the_embedded_model_brings_its_settings() -> None:
    embedded = Editor.from_pretrained(device="cpu")
    assert embedded.defaults != DragConfig()
    assert editor().defaults == DragConfig()


def test_end_step_over_all_steps_is_the_reconstruction() -> None:
    """No denoising step uses the optimised bottleneck, so whatever the drag did is forgotten."""
    forgotten = edit(config=QUICK.replace(end_step=10))
    plain = edit(config=QUICK.replace(end_step=10, iterations=0))
    assert same(forgotten, plain)
    assert not same(forgotten, edit())


class Calls:
    """Counts the parts of the U-Net as they are run; `outputs`: whether each decoder half went on
    to the output.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, unet: UNet) -> None:
        self.count: dict[str, int] = dict.fromkeys(("down", "middle", "up", "folded"), 0)
        self.outputs: list[bool] = []
        for part in self.count:
            monkeypatch.setattr(
                unet, f"part_{part}", self._counting(part, getattr(unet, f"part_{part}"))
            )

    def _counting(self, part: str, run: Any) -> Any:
        def counted(*args: Any) -> Any:
            self.count[part] += 1
            assert args[0].shape[0] == 1, "one image is denoised, not two"
            if part in ("up", "folded"):
                named = inspect.signature(run).bind(*args).arguments
                self.outputs.append(named.get("output", True))
            return run(*args)

        return counted


def test_no_part_of_the_network_runs_more_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 inversion passes; in the drag the decoder half alone is repeated; 3 denoising steps, the
    first with the drag's encoder half.
    """
    calls = Calls(monkeypatch, editor().model.unet)
    edit()
    assert calls.count == {"down": 3 + 1 + 2, "middle": 3 + 1, "up": 3 + 3, "folded": 3}


def test_without_a_mask_the_loop_stops_after_the_supervised_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = Calls(monkeypatch, editor().model.unet)
    editor().edit(PICTURE, MIDDLE, config=QUICK)
    half = np.zeros((96, 96), np.bool_)
    half[:48] = True
    editor().edit(PICTURE, MIDDLE, mask=half, config=QUICK)
    assert calls.outputs == [True] * 3 + [False] * 3 + [True] * 3 + [True] * 9


class Watched(TorchDispatchMode):
    """Counts reads of a tensor's value by the host, and upsampled maps."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads = 0
        self.upsampled = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.reads += function is torch.ops.aten._local_scalar_dense.default
        self.upsampled += "upsample_bilinear" in str(function)
        return function(*args, **(kwargs or {}))


def test_the_loop_reads_only_the_stop_flag_and_upsamples_nothing() -> None:
    """Of 9 iterations polled every 4th the flag is read thrice, and twice more at the end for the
    count.
    """
    record = edit().record
    assert record is not None
    method = METHODS["dragnoise"]
    scene = dataclasses.replace(record.scene, settings=QUICK.replace(iterations=9))
    start = method.start(scene.place)
    with Watched() as watched:
        loop = DragLoop(method, scene, start, torch.float32).begin(scene, start, poll_every=4)
        numbers = [iteration.number for iteration in loop]
        optimum = loop.optimum()
    assert numbers == list(range(9))
    assert len(optimum.losses) == 9
    assert watched.reads == 3 + 2
    assert watched.upsampled == 0


def test_the_weights_stay_frozen() -> None:
    edit()
    for network in (editor().model.unet.network, editor().model.vae, editor().model.text_encoder):
        assert not network.training
        assert all(
            not weight.requires_grad and weight.grad is None for weight in network.parameters()
        )
