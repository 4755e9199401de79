"""What one drag has computed, the next does not compute again; other keys are other results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dragnoise.engine import Editor, FastConfig, Session, Store
from dragnoise.engine.methods import METHODS
from dragnoise.engine.session.result import EditResult
from dragnoise.engine.system.cuda_graphs import NullGraph
from dragnoise.engine.system.worker import Worker
from golden_cases import MODEL
from sessions import (
    FIRST,
    FURTHER,
    MASK,
    ONE_BIT,
    OTHERS,
    PICTURE,
    POINTS,
    QUICK,
    REST,
    assert_same,
    editor,
    opened,
    same,
)


def test_a_first_drag_is_an_edit_and_the_next_starts_at_the_drag() -> None:
    session = opened()
    first = session.drag(POINTS, mask=MASK)
    assert_same(first, editor().edit(PICTURE, POINTS, mask=MASK, prompt="a face", config=QUICK))
    assert list(first.timings_ms) == FIRST + REST
    second = session.drag(OTHERS)
    assert list(second.timings_ms) == REST
    assert_same(second, editor().edit(PICTURE, OTHERS, prompt="a face", config=QUICK))
    assert second.cache == {}
    assert same(session.source, PICTURE)
    assert same(session.image, second)


def test_prepared_ahead() -> None:
    session, seen = opened(), []
    session.prepare(progress=lambda *said: seen.append(said))
    assert seen == [("invert", number, 3) for number in (1, 2, 3)]
    assert list(session.drag(POINTS).timings_ms) == REST


def test_a_store_serves_other_sessions_and_other_processes(tmp_path: Path) -> None:
    alone = editor().edit(PICTURE, POINTS, prompt="a face", config=QUICK)
    first = Editor.from_pretrained(
        MODEL, device="cpu", cache=Store(folder=tmp_path), check_pictures=False
    )
    assert_same(opened(first).drag(POINTS), alone)
    again = opened(first).drag(POINTS)
    assert list(again.timings_ms) == REST
    assert again.cache["stages"]["invert"]["hits"] == {"host": 1}
    second = Editor.from_pretrained(
        MODEL, device="cpu", cache=Store(folder=tmp_path), check_pictures=False
    )
    found = second.edit(PICTURE, POINTS, prompt="a face", config=QUICK)
    assert list(found.timings_ms) == ["condition", "start", *REST]
    assert found.cache["stages"]["invert"] == found.cache["stages"]["invert"] | {
        "hits": {"disk": 1},
        "misses": 0,
    }
    assert found.cache["stages"]["invert"]["saved_ms"] != 0
    assert_same(found, alone)


BEFORE: dict[str, Any] = {"image": PICTURE, "prompt": "a face", "config": QUICK}


@pytest.mark.parametrize(
    ("changes", "made"),
    [
        ({"config": QUICK.replace(iterations=1, lr=0.5, lam=0.0)}, set()),
        ({"prompt": "two faces"}, {"embed", "condition", "invert", "start"}),
        ({"config": QUICK.replace(steps=20)}, {"condition", "invert", "start"}),
        ({"config": QUICK.replace(strength=0.5)}, {"invert", "start"}),
        ({"config": QUICK.replace(guidance=2.0)}, {"embed", "condition", "invert", "start"}),
        ({"image": ONE_BIT}, {"encode", "invert", "start"}),
        ({"method": "baseline"}, set(FIRST)),
    ],
    ids=["settings of the drag", "prompt", "steps", "strength", "guidance", "one bit", "method"],
)
def test_a_key_is_exactly_what_a_stage_depends_on(changes: dict[str, Any], made: set[str]) -> None:
    editor = Editor.from_pretrained(MODEL, device="cpu", cache=Store(), check_pictures=False)
    editor.edit(points=POINTS, **BEFORE)
    result = editor.edit(points=POINTS, **(BEFORE | changes))
    assert result.timings_ms.keys() - set(REST) == made


def test_other_weights_backends_and_precisions_have_other_keys() -> None:
    digests = {
        Editor.from_pretrained(MODEL, device="cpu", backend=backend, dtype=dtype).model.digest
        for backend in ("eager", "packed")
        for dtype in ("float32", "bfloat16")
    }
    changed = Editor.from_pretrained(MODEL, device="cpu", backend="eager")
    changed.model.unet.network.conv_in.weight.data[0, 0, 0, 0] += 1e-6
    assert len(digests | {changed.model.digest}) == 5
    methods = ("dragnoise", "baseline", "baseline-plain")
    assert len({METHODS[name].prepare(editor().model).digest for name in methods}) == 3
    used = Editor.from_pretrained(MODEL, device="cpu")
    used.edit(PICTURE, POINTS, config=QUICK)
    assert used.model.digest == editor().model.digest


def new_editor(**how: Any) -> Editor:
    return Editor.from_pretrained(MODEL, device="cpu", check_pictures=False, **how)


def recorded(monkeypatch: pytest.MonkeyPatch, module: str) -> list[object]:
    """Return what that module captures as graphs from now on; here they are called."""
    works: list[object] = []

    class Recorded(NullGraph):
        def __init__(self, work: Callable[[], None]) -> None:
            works.append(work)
            super().__init__(work)

    monkeypatch.setattr(f"dragnoise.engine.{module}.graph_on", lambda device: Recorded)
    return works


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Let loops run as on CUDA, and return what is captured."""
    return recorded(monkeypatch, "drag.loop")


def test_a_like_drag_uses_the_last_ones_graph(captured: list[object]) -> None:
    session = opened(new_editor())
    results = [session.drag(points, mask=MASK) for points in (POINTS, FURTHER, POINTS)]
    assert len(captured) == 2  # an iteration, and from the second drag on the first one
    assert_same(results[0], results[2])
    assert not same(results[0], results[1])
    session.drag(OTHERS, mask=MASK)  # two handles
    session.drag(OTHERS)  # no mask
    session.drag(OTHERS, config=QUICK.replace(lr=0.03))
    assert len(captured) == 5
    session.drag(OTHERS)  # the loop before the last is kept, too
    assert len(captured) == 6


@pytest.mark.parametrize("method", ["dragnoise", "dragdiffusion", "freedrag", "fast"])
def test_a_like_drag_on_another_picture_uses_the_last_ones_graph(
    captured: list[object], method: str
) -> None:
    """Another picture, another prompt: all that a drag reads is written where the graph reads."""
    config = METHODS[method].settings().replace(steps=10, strength=0.3, iterations=3)
    seen = [{"image": PICTURE, "prompt": "a face"}, {"image": ONE_BIT, "prompt": "two faces"}]
    how: dict[str, Any] = {"points": POINTS, "mask": MASK, "method": method, "config": config}
    alone = [new_editor().edit(**picture, **how) for picture in seen]
    assert not same(*alone)
    captured.clear()
    one = new_editor()
    for number in (0, 1, 0, 1):
        assert_same(one.edit(**seen[number], **how), alone[number])
    assert len(captured) == 2


def test_a_loop_is_used_again_where_passes_are_replayed(
    monkeypatch: pytest.MonkeyPatch, captured: list[object]
) -> None:
    """A pass gives results that lie in the same way, whether it runs as it is or is replayed."""
    passes = recorded(monkeypatch, "backends.backend")
    one, new = (new_editor(backend="eager") for _ in range(2))
    opened(one).drag(POINTS, mask=MASK)
    loops = list(one._runtime.loops._loops)
    assert len(loops) == 1
    how: dict[str, Any] = {"mask": MASK, "prompt": "two faces", "config": QUICK}
    assert_same(one.edit(ONE_BIT, POINTS, **how), new.edit(ONE_BIT, POINTS, **how))
    assert one._runtime.loops._loops == loops
    assert passes


def test_a_loop_begins_as_it_is_in_every_thread(captured: list[object]) -> None:
    """cuDNN's plans are a thread's own, and cannot be made while a graph is captured."""
    one = new_editor()
    first = opened(one).drag(POINTS, mask=MASK)
    assert len(captured) == 1  # an iteration
    object.__setattr__(one._runtime, "worker", Worker())
    assert_same(opened(one).drag(POINTS, mask=MASK), first)
    assert len(captured) == 1
    assert_same(opened(one).drag(POINTS, mask=MASK), first)
    assert len(captured) == 2  # the first iteration, too


def test_a_drag_within_a_drag_has_a_loop_of_its_own(captured: list[object]) -> None:
    one = new_editor()
    alone = [opened(one).drag(points, mask=MASK) for points in (POINTS, FURTHER)]
    inner, outer = opened(one), opened(one)
    found: list[EditResult] = []

    def within(iteration: Any) -> None:
        if iteration.number == 1:
            found.append(inner.drag(FURTHER, mask=MASK))

    assert_same(outer.drag(POINTS, mask=MASK, on_iteration=within), alone[0])
    assert_same(found[0], alone[1])


def test_a_failed_drag_leaves_no_loop(captured: list[object]) -> None:
    one = new_editor()
    alone = opened(one).drag(POINTS, on_iteration=lambda iteration: None)
    assert one._runtime.loops._loops

    def fail(iteration: Any) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        opened(one).drag(POINTS, on_iteration=fail)
    assert not one._runtime.loops._loops
    assert_same(opened(one).drag(POINTS), alone)


def test_without_memory_all_loops_are_freed(captured: list[object]) -> None:
    one = new_editor()
    opened(one).drag(POINTS)
    assert one._runtime.loops._loops

    def fail(iteration: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        opened(one).drag(OTHERS, on_iteration=fail)
    assert not one._runtime.loops._loops


def test_a_tenant_finds_its_own_in_a_cache_and_nobody_elses(tmp_path: Path) -> None:
    cached = Editor.from_pretrained(MODEL, device="cpu", cache=Store(folder=tmp_path))
    results = [
        cached.open(PICTURE, config=QUICK, tenant=tenant).drag(POINTS)
        for tenant in ("one", "other", "one", "")
    ]
    ran = ["invert" in result.timings_ms for result in results]
    assert ran == [True, True, False, True]
    cached.open(PICTURE, config=QUICK, tenant="one").save(tmp_path / "saved.safetensors")
    restored = cached.restore(tmp_path / "saved.safetensors", tenant="third").drag(POINTS)
    assert "invert" in restored.timings_ms
    for result in results[1:]:
        assert_same(result, results[0])


@pytest.mark.gpu
def test_on_cuda_a_like_drag_replays_the_last_ones_graph() -> None:
    # In float32 PyTorch's own attention adds its gradient in any order.
    how: dict[str, Any] = {"dtype": "float32", "attention": "deterministic"}
    one, new = (Editor.from_pretrained(MODEL, device="cuda", **how) for _ in range(2))
    session = one.open(PICTURE, prompt="a face", config=QUICK)
    first = session.drag(POINTS, mask=MASK)
    loops = one._runtime.loops._loops
    (loop,) = loops
    session.drag(FURTHER, mask=MASK)
    graphs = dict(loop._graphs)
    assert list(graphs) == ["later", ("first", False)]
    other = session.drag(FURTHER, mask=MASK)
    again = session.drag(POINTS, mask=MASK)
    assert_same(first, again)
    assert not same(first, other)
    assert_same(other, new.edit(PICTURE, FURTHER, mask=MASK, prompt="a face", config=QUICK))
    another: dict[str, Any] = {"mask": MASK, "prompt": "two faces", "config": QUICK}
    assert_same(one.edit(ONE_BIT, POINTS, **another), new.edit(ONE_BIT, POINTS, **another))
    assert loops == [loop]
    assert loop._graphs == graphs


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["dragnoise", "fast"])
def test_on_cuda_a_replayed_drag_shows_its_own_passes(method: str) -> None:
    """A replayed graph writes where it was captured, and previews read that."""
    one = Editor.from_pretrained(MODEL, device="cuda", dtype="float32", backend="eager")
    config = QUICK if method == "dragnoise" else FastConfig(steps=10, iterations=4)

    def shown(session: Session, points: Any) -> list[Tensor]:
        seen: list[Tensor] = []
        how: dict[str, Any] = {"mask": MASK, "method": method, "config": config}
        session.drag(points, on_iteration=lambda it: seen.append(it.forward.noise.clone()), **how)
        return seen

    session = one.open(PICTURE, prompt="a face")
    made = [shown(session, way) for way in (POINTS, FURTHER, POINTS, FURTHER)]
    fresh = shown(one.open(PICTURE, prompt="a face"), FURTHER)
    assert len(fresh) > 1
    assert not torch.equal(fresh[0], fresh[-1])
    for found in (made[1], made[3]):
        torch.testing.assert_close(torch.stack(found), torch.stack(fresh), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(torch.stack(made[0]), torch.stack(made[2]), rtol=1e-3, atol=1e-3)
