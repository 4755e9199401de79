"""Host programs."""

import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dragnoise.engine import (
    Adapter,
    ConfigError,
    DragConfig,
    Editor,
    EditResult,
    NumbersError,
    PersonaliseConfig,
    Session,
    Store,
)
from golden_cases import MODEL
from host_modes import MODES, observed
from sessions import MASK, PICTURE, POINTS, QUICK, same
from tally import WHOLE, Tally

# Deterministic algorithms are part of what a session was saved with.
pytestmark = pytest.mark.filterwarnings("ignore:.*was saved on another machine")

TEXT = "a face"
FEW = PersonaliseConfig(steps=2, rank=2)


class Host:
    """A host program: one walk through everything that the engine does, each call in some mode.

    Args:
        mode_of: Returns the name of the mode that a call is made in.
        folder: Where it keeps files.
    """

    def __init__(self, mode_of: Callable[[str], str], folder: Path) -> None:
        self._mode_of = mode_of
        self._folder = folder
        self.results: dict[str, list[bytes]] = {}

    def call(self, name: str, work: Callable[[], Any]) -> Any:
        """Do a call in its mode, which must be as it was before."""
        with MODES[self._mode_of(name)]():
            before = observed()
            result = work()
            assert observed() == before, f"{name}: the modes were changed"
        if isinstance(result, EditResult):
            self.results[name] = list(_bits(result))
        return result

    def walk(self) -> dict[str, list[bytes]]:
        """Load, edit, drag, stream, save, restore, learn and generate; return all results."""
        editor: Editor = self.call(
            "load",
            lambda: Editor.from_pretrained(
                MODEL, device="cpu", cache=Store(folder=self._folder / "cache")
            ),
        )
        self.call(
            "edit", lambda: editor.edit(PICTURE, POINTS, mask=MASK, config=QUICK, record=True)
        )
        session: Session = self.call(
            "open", lambda: editor.open(PICTURE, prompt=TEXT, config=QUICK)
        )
        self.call("prepare", session.prepare)
        self.call("drag", lambda: session.drag(POINTS))
        self.call("go on", lambda: session.drag(POINTS, base="last"))
        self.call("stream", lambda: list(session.drag_stream(POINTS, base="result"))[-1].result)
        self.call("undo", session.undo)
        file = self._folder / "session.safetensors"
        self.call("save", lambda: session.save(file))
        again: Session = self.call("restore", lambda: editor.restore(file))
        self.call("drag restored", lambda: again.drag(POINTS, base="last", record=True))
        adapter: Adapter = self.call("personalise", lambda: again.personalise(FEW))
        saved = self._folder / "adapter.safetensors"
        self.call("save adapter", lambda: adapter.save(saved))
        self.call("use adapter", lambda: again.use_adapter(Adapter.load(saved)))
        self.call("drag adapted", lambda: again.drag(POINTS))
        made = self.call(
            "generate", lambda: editor.generate(TEXT, config=QUICK, size=(64, 64), seed=5)
        )
        self.call("drag generated", lambda: editor.edit(made, POINTS, record=True))
        return self.results


def _bits(result: EditResult) -> list[bytes]:
    """Return a result's bits; its tensors are ordinary ones."""
    found: list[Any] = [result.image.pixels, result.history.losses, result.history.handles]
    if result.record is not None:
        record = result.record
        tensors: list[Tensor] = [*record.trajectory, record.final_latent, record.bottleneck]
        assert not any(tensor.is_inference() for tensor in tensors)
        assert {tensor.dtype for tensor in tensors} == {torch.float32}
        found += [tensor.numpy() for tensor in tensors]
    return [array.tobytes() for array in found]


def _walk(mode_of: Callable[[str], str]) -> dict[str, list[bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        return Host(mode_of, Path(folder)).walk()


@pytest.fixture(scope="module")
def plain() -> dict[str, list[bytes]]:
    return _walk(lambda name: "none")


def test_modes_around_every_call(plain: dict[str, list[bytes]], tally: Tally) -> None:
    """Inference mode, autocast, default dtypes and devices ..., another one around each call."""
    for chance in tally.lot(small=1, whole=60):
        modes: dict[str, str] = {}

        def mode_of(name: str) -> str:
            modes[name] = chance.choice(list(MODES))  # noqa: B023 called in this round
            return modes[name]  # noqa: B023

        _judge(tally, plain, mode_of, modes)


def test_one_mode(plain: dict[str, list[bytes]], tally: Tally) -> None:
    """One mode around everything, around loading alone, around all but loading."""
    pairs = list(product(MODES, ("everywhere", "load", "all but load")))
    for mode, where in pairs if WHOLE else [("inference", "load")]:

        def mode_of(name: str) -> str:
            inside = where == "everywhere" or (name == "load") == (where == "load")  # noqa: B023
            return mode if inside else "none"  # noqa: B023

        _judge(tally, plain, mode_of, f"{mode} {where}")


def _judge(
    tally: Tally, plain: dict[str, list[bytes]], mode_of: Callable[[str], str], said: object
) -> None:
    try:
        found = _walk(mode_of)
    except Exception as failed:  # noqa: BLE001 that is what is looked for
        tally.judge(False, f"{said}: {type(failed).__name__}: {str(failed)[:100]}")
    else:
        tally.judge(found == plain, f"{said}: other bits")


def test_settings_that_leave_the_numbers(tally: Tally) -> None:
    """lr and lam from 1 to 1e308, iterations, bases: finite, or an error that says so."""
    editor = Editor.from_pretrained(MODEL, device="cpu")
    session = editor.open(PICTURE, config=QUICK)
    first = session.drag(POINTS)
    for chance in tally.lot(small=8, whole=200):
        wild = {
            chance.choice(["lr", "lam"]): 10
            ** chance.choice([chance.uniform(0, 6), chance.uniform(6, 308)])
        }
        about = {"steps": 10, "strength": 0.3, "iterations": chance.randint(1, 4), **wild}
        try:
            config = DragConfig(**about)  # type: ignore[arg-type]
            result = session.drag(POINTS, mask=MASK, config=config)
        except (ConfigError, NumbersError) as error:
            well = "\n" not in str(error) and same(session.image, first)
        else:
            well = bool(np.isfinite(result.history.losses).all())
            session.undo()
        tally.judge(well, f"{wild}: NaN was taken")
    tally.judge(same(session.drag(POINTS), first), "the session is not as it was")


def test_broken_weights(tally: Tally) -> None:
    """NaN or infinity in a weight of any network: an error in one line, or the same picture."""
    editor = Editor.from_pretrained(MODEL, device="cpu", backend="eager")
    model = editor.model
    networks = (model.unet.network, model.vae, model.text_encoder)
    expected = editor.edit(PICTURE, POINTS, config=QUICK)
    for chance in tally.lot(small=6, whole=120):
        name, weight = chance.choice(
            [pair for network in networks for pair in network.named_parameters()]
        )
        place = chance.randrange(weight.numel())
        flat = weight.detach().view(-1)
        before = float(flat[place])
        flat[place] = chance.choice([torch.nan, torch.inf, -torch.inf])
        try:
            result = editor.edit(PICTURE, POINTS, config=QUICK)
        except NumbersError as error:
            tally.judge("\n" not in str(error), f"{name}: more than one line")
        else:
            well = result.image.pixels.any() and np.isfinite(result.history.losses).all()
            tally.judge(bool(well), f"{name}: a black picture")
        finally:
            flat[place] = before
    again = editor.edit(PICTURE, POINTS, config=QUICK)
    tally.judge(same(again, expected), "the editor is not as it was")
