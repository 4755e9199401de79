"""Digests: equal for equal content, different for anything else, and of code without its prose."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dragnoise.engine.cache import Store
from dragnoise.engine.cache.digest import (
    UndigestedError,
    bytes_digest,
    code_digest,
    digest,
    environment_digest,
    file_digest,
)
from dragnoise.engine.stages import decode


@dataclass(frozen=True)
class Size:
    width: int
    height: int


@dataclass(frozen=True)
class Turned:
    width: int
    height: int


class Named:
    digest = "abc"


def test_memory_order_does_not_count() -> None:
    plain = torch.arange(24.0).view(1, 2, 3, 4)
    last = plain.contiguous(memory_format=torch.channels_last)
    assert digest(plain) == digest(last) == digest(plain.clone())
    array = plain.numpy()
    assert digest(array) == digest(np.asfortranarray(array))


DIFFERENT: list[Any] = [
    *(0, 0.0, False, None, "0", b"0", "", (), [], {}, ((),), (0,), [0], {"0": 0}, {0: 0}),
    *(torch.zeros(2), torch.zeros(2, dtype=torch.int32), torch.zeros(1, 2), np.zeros(2)),
    *(torch.zeros(0), torch.zeros(0, 1), torch.float32, torch.device("cpu")),
    *(Size(1, 2), Size(2, 1), Turned(1, 2), {"width": 1, "height": 2}, Named(), decode, Store),
]


def test_different_content_has_different_digests() -> None:
    assert len({digest(thing) for thing in DIFFERENT}) == len(DIFFERENT)
    assert digest("ab", "c") != digest("a", "bc")
    assert digest(1, 2) != digest((1, 2))


def test_the_order_of_a_mapping_does_not_count() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1, "b": 2}) != digest({"a": 2, "b": 1})


@pytest.mark.parametrize(
    "thing", [lambda: 0, object(), {1, 2}, Size, test_memory_order_does_not_count]
)
def test_other_kinds_have_no_digest(thing: Any) -> None:
    with pytest.raises(UndigestedError, match="has no digest"):
        digest((thing,))


def test_known_values_are_not_read_at_any_depth() -> None:
    latent = torch.ones(2)
    unreadable = object()
    keys = {id(latent): "first", id(unreadable): "second"}

    def known(thing: object) -> str | None:
        return keys.get(id(thing))

    assert digest({"a": [(latent,)]}, known=known) == digest({"a": [(latent,)]}, known=known)
    assert digest({"a": [(latent,)]}, known=known) != digest({"a": [(latent,)]})
    assert digest([unreadable], known=known) != digest([latent], known=known)
    assert digest([latent.clone()], known=known) == digest([latent])


def test_plain_values_are_never_asked_for() -> None:
    """They have one identity wherever they stand, so that a key of one would be another's too."""
    seen: list[object] = []
    digest(1, None, ("a", True), known=lambda thing: seen.append(thing))
    assert seen == [(1, None, ("a", True)), ("a", True)]


def code(folder: Path, text: str) -> str:
    (folder / "a.py").write_text(text)
    return code_digest([folder / "a.py"])


def test_prose_of_code_does_not_count(tmp_path: Path) -> None:
    plain = code(tmp_path, "class A:\n    x: int = 1\n    def f(self):\n        return 'a'\n")
    assert plain == code(
        tmp_path,
        '"""Of a file."""\n\n# a comment\nclass A:\n    """Of a class."""\n\n    x: int = 1\n'
        '    """Of an attribute."""\n    def f(self):\n        """Of a function."""\n'
        "        return (\n            'a'\n        )\n",
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = 1", "x = 2"),
        ("x = 1", "x = 1.0"),
        ("x = 1", "y = 1"),
        ("x = a.b", "x = b.a"),
        ("x = -0.0", "x = 0.0"),
        ("f('a')", "f('b')"),
        ("f(a, b)", "f(a)(b)"),
        ("f(a, *b)", "f(a, b)"),
        ("f(a=b)", "f(b=a)"),
        ("def f(a, /, b): pass", "def f(a, b, /): pass"),
        ("def f(a, b): pass", "def f(a, *, b): pass"),
        ("if a:\n    b\n    c", "if a:\n    b\nc"),
        ("if a:\n    b\nelse:\n    c", "if a:\n    b\n    c"),
        ("a = [b, c]", "a = (b, c)"),
        ("a and (b or c)", "(a and b) or c"),
        ("x = f'{a}'", "x = f'{a!r}'"),
        ("from . import a", "from .. import a"),
    ],
)
def test_what_code_does_counts(before: str, after: str, tmp_path: Path) -> None:
    assert code(tmp_path, before) != code(tmp_path, after)


def test_a_files_name_and_other_bytes_count(tmp_path: Path) -> None:
    one = tmp_path / "a.so"
    other = tmp_path / "b.so"
    one.write_bytes(b"1")
    other.write_bytes(b"1")
    first = code_digest([one])
    assert first != code_digest([other])
    one.write_bytes(b"2")
    assert first != code_digest([one])


def test_the_bytes_of_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"some ")
    (tmp_path / "b").write_bytes(b"bytes")
    assert file_digest(tmp_path / "a", tmp_path / "b") == bytes_digest(b"some bytes")
    assert len(bytes_digest(b"")) == 64


def test_the_environment_is_its_threads_and_switches_too() -> None:
    cpu = torch.device("cpu")
    before = environment_digest(cpu)
    assert environment_digest(cpu) == before
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert environment_digest(cpu) != before
    finally:
        torch.set_num_threads(threads)
    assert environment_digest(cpu) == before
