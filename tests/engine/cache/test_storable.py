"""Kinds that values may consist of: said where the class is written, or to one store."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from dragnoise.engine.cache import Store, flatten, kinds_of, rebuild, storable


@storable
@dataclass(frozen=True)
class StoredSettings:
    name: str
    size: tuple[int, ...]


@storable
class StoredPair(NamedTuple):
    first: Tensor
    settings: StoredSettings


class Unregistered(NamedTuple):
    first: Tensor


def test_a_storable_value_is_kept_without_a_list_of_kinds() -> None:
    value = StoredPair(torch.ones(2), StoredSettings("a", (1, 2)))
    structure, spans = flatten(value, kinds_of())
    found = rebuild(structure, spans, kinds_of())
    assert type(found) is StoredPair
    assert found.settings == value.settings
    assert Store().get_or_make("0", lambda: value, stage="s") is value


def test_kinds_registered_later_are_known() -> None:
    kinds = kinds_of()

    @storable
    class Later(NamedTuple):
        number: int

    assert rebuild(*flatten(Later(3), kinds), kinds) == Later(3)


def test_other_classes_cannot_be_stored() -> None:
    @dataclass
    class Changing:
        number: int

    for kind in (Changing, dict, tuple):
        with pytest.raises(TypeError, match=f"{kind.__name__} cannot be stored; make it a frozen"):
            storable(kind)


def test_two_kinds_of_one_name_are_refused() -> None:
    another = type("StoredPair", (Unregistered,), {"__module__": "another.module"})
    with pytest.raises(TypeError, match=r"another.module.StoredPair has the name of another kind"):
        storable(another)
    with pytest.raises(TypeError, match="rename one of them"):
        Store(kinds=(another,))
    store = Store(kinds=(Unregistered,))
    with pytest.raises(TypeError, match="rename one of them"):
        store.register(another)
    assert store.get_or_make("0", lambda: Unregistered(torch.ones(1)), stage="s")


def test_old_names_of_a_store_warn() -> None:
    store = Store()
    with pytest.warns(DeprecationWarning, match=r"Store.know is now Store.register"):
        store.know(Unregistered)
    assert store.get_or_make("0", lambda: Unregistered(torch.ones(1)), stage="s")
    with pytest.warns(DeprecationWarning, match=r"Store.said is now Store.to_dict"):
        assert store.said() == store.to_dict()
