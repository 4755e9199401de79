"""A frame of a live drag as a graph: nothing in it waits for the host or hangs on its values."""

import gc
import weakref
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from called import Called
from dragnoise.engine import Editor, FastConfig, Image
from dragnoise.engine.inputs.points import Points
from dragnoise.engine.pipelines.frames import FrameMaker
from golden_cases import MODEL
from replayed import Replayed
from sessions import MASK, PICTURE, editor
from waiting import never_waiting

QUICK = FastConfig(steps=10, strength=0.3, iterations=0, grip_px=16.0)
GRIP = np.zeros((64, 64), np.bool_)
GRIP[14:26, 14:26] = True
HANDLES = ((20.0, 20.0), (40.0, 44.0))
TARGETS = ((28.0, 22.0), (31.0, 49.0))
OTHERS = ((15.0, 40.0), (40.0, 44.0))

WAITS = {
    "aten::_local_scalar_dense",  # item(), bool(), int()
    "aten::nonzero",  # also a mask as an index
    "aten::equal",
    "aten::masked_select",
    "aten::_unique2",
    "aten::lift_fresh",  # torch.tensor(...): made on the host, and copied
}


def maker_of(editor: Editor, picture: Image = PICTURE, **how: Any) -> FrameMaker:
    """Return what makes the frames of a live drag that has made one."""
    config = how.pop("config", QUICK)
    session = editor.open(picture, prompt="a face")
    with session.live(HANDLES, method="fast", config=config, **how) as live:
        live.move(TARGETS)
        live.frame(60)
        assert live._maker is not None
        return live._maker


def cells(maker: FrameMaker, targets: Any) -> tuple[Tensor, Tensor, Tensor]:
    points = Points(HANDLES, targets)
    frame = maker._prepared.frame
    return *frame.points(points), frame.ways(points)


def half() -> Editor:
    return Editor.from_pretrained(MODEL, device="cpu", dtype="bfloat16", check_pictures=False)


@pytest.mark.parametrize(
    ("made_by", "how"),
    [
        (editor, {"mask": MASK}),
        (editor, {}),
        (editor, {"mask": MASK, "grip": GRIP}),
        (editor, {"picture": Image(PICTURE.pixels[:61, :50])}),
        (editor, {"mask": MASK, "config": QUICK.replace(guidance=3.0)}),
        (editor, {"mask": MASK, "config": QUICK.replace(fit="rigid"), "grip": GRIP}),
        (half, {"mask": MASK}),
    ],
    ids=["mask", "no mask", "grip", "odd size", "guidance", "rigid", "half precision"],
)
def test_nothing_in_a_frame_waits_for_the_host(made_by: Any, how: dict[str, Any]) -> None:
    maker = maker_of(made_by(), **how)
    given = cells(maker, OTHERS)
    with Called() as called:
        maker._pixels(*given)
    assert called.times["dragnoise::splat"] == 2
    assert called.times["aten::convolution"] > 20
    assert Counter({name: called.times[name] for name in WAITS}).total() == 0, called.times


def test_a_frame_that_is_captured_is_any_frame() -> None:
    """Its operators, recorded with all that the host knew, make another frame's bits."""
    for how in ({"mask": MASK}, {"mask": None}):
        maker = maker_of(editor(), **how)
        replayed = Replayed(maker._pixels, *cells(maker, TARGETS))
        pictures = {}
        for targets in (OTHERS, HANDLES, TARGETS):
            pictures[targets] = replayed(*cells(maker, targets))
            assert torch.equal(pictures[targets], maker._pixels(*cells(maker, targets)))
        assert not torch.equal(pictures[OTHERS], pictures[TARGETS])


def test_a_frame_that_reads_its_targets_is_not_any_frame() -> None:
    """The test above would see it."""
    maker = maker_of(editor())

    def reading(handles: Tensor, targets: Tensor, ways: Tensor) -> Tensor:
        read = torch.tensor([[float(side) for side in way] for way in ways])
        return maker._pixels(handles, targets, read)

    replayed = Replayed(reading, *cells(maker, TARGETS))
    given = cells(maker, OTHERS)
    assert not torch.equal(replayed(*given), maker._pixels(*given))
    with Called() as called:
        reading(*given)
    assert {name: called.times[name] for name in WAITS if called.times[name]} == {
        "aten::_local_scalar_dense": 4,
        "aten::lift_fresh": 1,
    }


def test_a_graph_is_freed_with_its_frames() -> None:
    """A graph holds memory of the device: it does not wait until garbage is collected."""
    maker = maker_of(editor(), mask=MASK)
    graph = weakref.ref(maker._graph)
    gc.collect()
    gc.disable()
    try:
        del maker
        assert graph() is None
    finally:
        gc.enable()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_on_cuda_a_frame_is_one_graph_and_never_waits(dtype: str) -> None:
    one = Editor.from_pretrained(
        MODEL, device="cuda", backend="eager", dtype=dtype, check_pictures=False
    )
    maker = maker_of(one, mask=MASK, grip=GRIP)
    here, there = ([each.cuda() for each in cells(maker, to)] for to in (TARGETS, OTHERS))
    for _ in range(2):  # what it is compiled for, warmed up and captured may wait
        maker._pixels(*here)
    with never_waiting():
        maker._pixels(*here)
    frames = [maker(Points(HANDLES, to)) for to in (TARGETS, OTHERS, TARGETS)]
    assert torch.equal(frames[0], frames[2])
    assert not torch.equal(frames[0], frames[1])
    for frame, given in ((frames[0], here), (frames[1], there)):
        torch.testing.assert_close(frame, maker._pixels(*given), rtol=1e-3, atol=1e-3)
