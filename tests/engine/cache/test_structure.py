"""Values come back from their structure and spans bit for bit, with strides and what they share."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dragnoise.engine.cache import StructureError, flatten, kinds_of, rebuild
from dragnoise.engine.cache.structure import moved, nbytes
from stored_values import KINDS, Nest, Pair, key, never, same, store, the_file

DTYPES = (
    *(
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.complex64,
        torch.complex128,
    ),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu, torch.bool),
    *(
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.uint8,
        torch.uint16,
        torch.uint32,
        torch.uint64,
    ),
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back_from_disk_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    bits = (
        torch.randint(0, 2, (96,), dtype=torch.uint8)
        if dtype == torch.bool
        else torch.randint(0, 255, (96,), dtype=torch.uint8)
    )
    value = bits.to(torch.bool) if dtype == torch.bool else bits.view(dtype)
    store(tmp_path).get_or_make(key(), lambda: value, stage="s")
    assert same(store(tmp_path).get_or_make(key(), never, stage="s"), value)


def layouts() -> dict[str, Tensor]:
    plain = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    return {
        "contiguous": plain,
        "channels_last": plain.contiguous(memory_format=torch.channels_last),
        "one channel": plain[:, :1].contiguous(memory_format=torch.channels_last),
        "transposed": plain.transpose(0, 3),
        "slice": plain[:, 1:2],
        "expanded": plain[:1, :1].expand(2, 3, 4, 5),
        "offset": plain[1],
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 2),
    }


@pytest.mark.parametrize("name", list(layouts()))
def test_every_layout_comes_back(name: str, tmp_path: Path) -> None:
    """Strides come back too, with gaps or 0: a later stage's kernel depends on them."""
    value = layouts()[name]
    store(tmp_path).get_or_make(key(), lambda: value, stage="s")
    found = store(tmp_path).get_or_make(key(), never, stage="s")
    assert same(found, value)
    assert found.data_ptr() % 64 == value.data_ptr() % 64  # and on its alignment
    assert same(moved(value, {}, torch.clone), value)


def test_what_is_expanded_is_kept_once(tmp_path: Path) -> None:
    store(tmp_path).get_or_make(key(), lambda: torch.ones(1, 1).expand(3000, 3000), stage="s")
    assert the_file(tmp_path).stat().st_size < 1000
    assert nbytes(store(tmp_path).get_or_make(key(), never, stage="s")) == 4


def test_views_of_one_storage_come_back_as_such(tmp_path: Path) -> None:
    """Like parts of a chunked map: overlapping or not, of any dtype, in the storage's middle."""
    plain = torch.arange(2 * 8 * 4.0)[8:].view(7, 8)
    parts = (plain[1:], plain[2], plain[:, :3], plain[:, 3:], plain[3].view(torch.int16), plain[:0])
    value = (*parts, parts[1])
    store(tmp_path).get_or_make(key(), lambda: value, stage="s")
    found = store(tmp_path).get_or_make(key(), never, stage="s")
    assert same(found, value)
    assert found[1] is found[6]
    assert len({part.untyped_storage().data_ptr() for part in found}) == 1
    assert nbytes(found) == 56 * 4 + 32  # from the last whole multiple of 64 on


def test_nests_come_back_with_what_they_share(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    value = Nest(
        '\u00e9 "quoted"',
        (Pair(shared, None), Pair(shared, shared.view(2, 3))),
        (3, 4),
        True,
        0.1 + 0.2,
    )
    store(tmp_path).get_or_make(key(), lambda: value, stage="s")
    for found in (
        store(tmp_path).get_or_make(key(), never, stage="s"),
        moved(value, kinds_of(KINDS), torch.clone),
    ):
        assert same(found, value)
        assert found.pairs[0].one is found.pairs[1].one
        assert nbytes(found) == nbytes(value) == 24


@pytest.mark.parametrize(
    "wrong",
    [torch.eye(3).to_sparse(), torch.ones(2, dtype=torch.complex64).conj(), torch.nn.Linear(1, 1)],
)
def test_tensors_that_are_no_plain_memory_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"can(not)? be kept"):
        flatten(wrong, {})


def test_other_kinds_are_refused_and_nothing_is_left_behind(tmp_path: Path) -> None:
    found = store(tmp_path)
    for wrong in ({"a": 1}, [1], object(), Path()):
        with pytest.raises(TypeError, match="no kind that can be kept"):
            found.get_or_make(key(), lambda wrong=wrong: wrong, stage="s")  # type: ignore[misc]
    assert found.get_or_make(key(), lambda: 5, stage="s") == 5


def nested(depth: int) -> Any:
    structure: Any = {"value": 1}
    for _ in range(depth):
        structure = {"tuple": [structure]}
    return structure


@pytest.mark.parametrize(
    "structure",
    [
        None,
        {},
        {"kind": "Unknown", "fields": {}},
        {"kind": "Pair", "fields": {"third": {"value": 1}}},
        {"tensor": [1, "torch.float32", [1], [1], 0]},
        {"tensor": [0, "torch.nothing", [1], [1], 0]},
        {"tensor": [0, "torch.nn", [1], [1], 0]},
        {"tensor": [0, "torch.float32", [100], [1], 0]},
        {"tensor": [0, "torch.float32", [2**70], [0], 0]},
        {"tensor": [0, "torch.float32", [1], [1], 2**70]},
        {"tensor": [0, "torch.float32", [-1], [1], 0]},
        {"tensor": [0, "torch.float32", ["1"], [1], 0]},
        {"tensor": [-5, "torch.float32", [1], [1], 0]},
        {"tensor": {}},
        {"value": [1, 2]},
        {"value": {"a": 1}},
        {"tuple": 5},
        {"kind": ["Pair"], "fields": {}},
        {"kind": "Pair", "fields": []},
        nested(20_000),
        [1],
        "tensor",
    ],
)
def test_a_damaged_structure_is_one_error(structure: Any) -> None:
    with pytest.raises(StructureError, match="no value can be built"):
        rebuild(structure, [torch.zeros(16, dtype=torch.uint8)], kinds_of(KINDS))
