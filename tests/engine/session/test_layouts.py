"""A file's layout has a number of its own: whoever changes the one changes the other."""

import dataclasses

import pytest

from dragnoise.engine.cache.digest import digest
from dragnoise.engine.session import layout, learn
from dragnoise.engine.training.lora import TrainingState

SESSION = (
    layout.ABOUT,
    layout.SETTINGS,
    layout.VALUE,
    layout.drag_rule(8),
    layout.trajectory_rule(2, (1, 4, 8, 8)),
)
LEARNING = (learn._ABOUT,)

RECORDED = {
    ("session", 2): "2eb2021f5110ec2f",
    ("learning", 2): "a4d8d0b8746c707a",
}
"""The digest of every layout since its number is checked. Add a line, leave the others."""


def described(rules: tuple[object, ...], kinds: tuple[type, ...]) -> str:
    """Digest all that is written down of a layout: rules, and fields in their order with types."""
    fields = [
        (kind.__qualname__, [(field.name, str(field.type)) for field in dataclasses.fields(kind)])
        for kind in kinds
    ]
    return digest(repr(rules), repr(fields))[:16]


@pytest.mark.parametrize(
    ("name", "version", "rules", "kinds"),
    [
        ("session", layout.VERSION, SESSION, (layout.SavedSource, layout.SavedState)),
        ("learning", learn._VERSION, LEARNING, (TrainingState,)),
    ],
)
def test_a_layout_that_changes_has_another_number(
    name: str, version: int, rules: tuple[object, ...], kinds: tuple[type, ...]
) -> None:
    now = described(rules, kinds)
    assert RECORDED.get((name, version)) == now, (
        f"the layout of a {name}'s file is another one now: files of version {version} that people "
        f"have cannot be read. Raise its version, and record ({name!r}, {version + 1}): {now!r}"
    )
    assert list(RECORDED.values()).count(now) == 1


def test_every_change_is_noticed() -> None:
    """Of a rule's range, of a field's name, type or place."""

    def changed(**new: type) -> type:
        fields = [(field.name, field.type) for field in dataclasses.fields(layout.SavedState)]
        return dataclasses.make_dataclass("SavedState", fields + list(new.items()))

    renamed = dataclasses.make_dataclass(
        "SavedState",
        [
            ("origin" if field.name == "source" else field.name, field.type)
            for field in dataclasses.fields(layout.SavedState)
        ],
    )
    kinds = [changed(), changed(more=int), changed(more=str), renamed]
    found = {described(SESSION, (kind,)) for kind in kinds}
    rules = (layout.ABOUT, layout.SETTINGS, layout.VALUE, layout.drag_rule(9))
    assert len(found | {described(rules, (kinds[0],))}) == len(kinds) + 1
