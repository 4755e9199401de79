"""Whatever was done before, a drag gives the bits that it gives alone."""

import dataclasses
from functools import cache

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from dragnoise.engine import (
    Editor,
    EditResult,
    Session,
    SessionError,
    Store,
)
from dragnoise.engine.diffusion.load import load
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.session.session import Base
from golden_cases import MODEL
from sessions import (
    MASK,
    PICTURE,
    opened,
    same,
)


@dataclasses.dataclass(frozen=True)
class Drag:
    points: str
    masked: bool
    base: Base

    def on(self, session: Session) -> EditResult:
        return session.drag(self.points, mask=MASK if self.masked else None, base=self.base)


@cache
def model(whose: str) -> Model:
    """Return a model for the histories, or one for what is done alone: they share no tensor."""
    return load(MODEL, device="cpu")


@cache
def alone(way: tuple[Drag, ...]) -> bytes:
    """What comes of these drags, in a session of its own, with an editor of its own that keeps
    nothing.
    """
    session = opened(Editor(model("alone"), check_pictures=False))
    for drag in way:
        drag.on(session)
    return session.image.pixels.tobytes()


DRAGS = st.builds(
    Drag,
    st.sampled_from(["20,20:40,34", "20,20:44,37", "40,44:12,30 30,10:50,12"]),
    st.booleans(),
    st.sampled_from(["source", "source", "result", "inverted", "last"]),
)
ACTS = st.lists(
    st.one_of(DRAGS, DRAGS, st.sampled_from(["undo", "redo", "reopen", "restart", "restore"])),
    max_size=8,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ACTS)
def test_history_never_changes_a_bit(
    tmp_path_factory: pytest.TempPathFactory, acts: list[Drag | str]
) -> None:
    """Random sequences against a list of ways: how every picture came about, from the source on."""
    folder = tmp_path_factory.mktemp("cache")

    def started(model: Model) -> Editor:
        return Editor(model, check_pictures=False, cache=Store(folder=folder))

    editor = started(model("history"))
    ways: list[tuple[Drag, ...]] = [()]
    session, at = opened(editor), 0
    for act in acts:
        if isinstance(act, Drag):
            way = ways[at]
            if act.base == "last" and not way:
                with pytest.raises(SessionError, match="there is none"):
                    act.on(session)
                continue
            # From the source: what made the source, up to the last inversion on the way.
            made = [number for number, one in enumerate(way) if one.base == "inverted" and number]
            before = way if act.base != "source" else way[: made[-1]] if made else ()
            again = (
                (dataclasses.replace(act, base="inverted"),)
                if act.base == "source" and made
                else (act,)
            )
            act.on(session)
            ways[at + 1 :] = [(*before, *again)]
            at += 1
        elif act == "undo" and at:
            at -= 1
            session.undo()
        elif act == "redo" and at < len(ways) - 1:
            at += 1
            session.redo()
        elif act == "restore":
            session.save(folder / "session.safetensors")
            session = editor.restore(folder / "session.safetensors")
        elif act in ("reopen", "restart"):
            editor = started(load(MODEL, device="cpu")) if act == "restart" else editor
            session, ways, at = opened(editor), [()], 0
        if ways[at]:
            assert session.image.pixels.tobytes() == alone(ways[at])
        else:
            assert same(session.image, PICTURE)
