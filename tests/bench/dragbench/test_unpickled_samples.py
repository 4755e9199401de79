"""A sample's pickle gives plain values and numpy's arrays; whatever else it holds is not run."""

import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dragnoise.bench.dragbench import unpickled
from dragnoise.bench.dragbench.samples import convert, names_of, read_sample
from dragnoise.bench.dragbench.unpickled import plain_unpickled
from dragnoise.engine import ImageError
from miniature_dragbench import said_of, write_dragbench

ONE = "animals/one"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.int64, ">u2", np.float32])
def test_every_protocol_of_pickles_is_read(protocol: int, dtype: Any) -> None:
    said = {"prompt": "a glass", "points": [[1, 2.5]], "mask": np.eye(3, 5, dtype=dtype)}
    if protocol < 3:
        with pytest.raises(pickle.UnpicklingError):  # bytes are calls there
            plain_unpickled(pickle.dumps(said, protocol))
        return
    read = plain_unpickled(pickle.dumps(said, protocol))
    assert (read["prompt"], read["points"]) == (said["prompt"], said["points"])
    np.testing.assert_array_equal(read["mask"], said["mask"])
    assert read["mask"].dtype == dtype


def test_arrays_in_columns_and_numbers_of_numpy_are_read() -> None:
    columns = np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    read = plain_unpickled(pickle.dumps({"mask": columns, "points": [np.int64(3)]}))
    np.testing.assert_array_equal(read["mask"], columns)
    assert read["points"] == [3]


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *inputs: Any) -> None:
        self.call = (function, inputs)

    def __reduce__(self) -> Any:
        return self.call


RECONSTRUCT = np.zeros(1).__reduce__()[0]

MALICIOUS: dict[str, Any] = {
    "system": lambda trace: Call(os.system, f"touch {trace}"),
    "eval": lambda trace: Call(eval, f"open({str(trace)!r}, 'w')"),
    "a method": lambda trace: Call(Path.touch, trace),
    "numpy's own": lambda trace: Call(np.save, str(trace), np.zeros(1)),
    "a terabyte": lambda trace: Call(RECONSTRUCT, np.ndarray, (2**40,), b"b"),
    "another terabyte": lambda trace: Call(np.ndarray, (2**40,)),
    "objects": lambda trace: np.array([Call(os.mkdir, str(trace))], dtype=object),
    "a record": lambda trace: np.zeros(1, [("a", "u1")]),
    "a tensor": lambda trace: torch.zeros(1),
}


@pytest.mark.parametrize("what", MALICIOUS)
def test_a_pickle_that_does_anything_is_refused(what: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    data = pickle.dumps({"prompt": "", "points": [], "mask": MALICIOUS[what](trace)})
    with pytest.raises(pickle.UnpicklingError):
        plain_unpickled(data)
    assert not trace.exists()


def array_of(shape: tuple[int, ...]) -> bytes:
    """Return a mask's pickle that declares another shape than it has numbers for."""
    data = pickle.dumps({"mask": np.zeros((1, 3), np.uint8)}, protocol=4)
    ours = pickle.dumps((1, 3), protocol=4)[11:-2]
    theirs = pickle.dumps(shape, protocol=4)[11:-2]
    assert data.count(ours) == 1
    changed = data.replace(ours, theirs)
    return b"\x80\x04" + changed[11:]  # without the frame, which says how long it is


def nested(depth: int) -> list[Any]:
    """Return a list of ten times the same list of ten times the same list ..."""
    return [1, 2] if depth == 0 else [nested(depth - 1)] * 10


GIANT = {
    "a declared array of 10^12 numbers": array_of((10**6, 10**6)),
    "a declared bytearray of 10^12 bytes": b"\x80\x05\x96" + struct.pack("<Q", 10**12) + b".",
    "declared bytes of 10^12": b"\x80\x05\x8e" + struct.pack("<Q", 10**12) + b".",
    "a memo with room for 2^31": b"\x80\x04]r" + struct.pack("<I", 2**31 - 2) + b".",
    "ten times a list, 40 times": pickle.dumps({**said_of(ONE), "points": nested(40)}),
    "a whole number of 20 million digits": b"\x80\x04\x8b"
    + struct.pack("<i", 8_000_000)
    + b"\x7f" * 8_000_000
    + b".",
    "lists in lists without end": b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "a long prompt": pickle.dumps({**said_of(ONE), "prompt": "x" * 10_000_000}),
    "text": b"prompt: a cat",
    "nothing": b"",
}


@pytest.mark.parametrize("what", GIANT)
def test_a_giant_pickle_does_not_fill_the_memory(what: str, tmp_path: Path) -> None:
    root = write_dragbench(tmp_path / "bench")
    (root / ONE / "meta_data.pkl").write_bytes(GIANT[what])
    with pytest.raises(ImageError) as refused:
        convert(root, ONE, tmp_path / "out")
    assert f"the sample '{ONE}' cannot be read" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out" / ONE).exists()
    assert list((tmp_path / "out" / "animals").iterdir()) == []


MEASURED = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", *sys.argv[1:]], capture_output=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
@pytest.mark.parametrize(
    "what", ["a declared bytearray of 10^12 bytes", "a memo with room for 2^31"]
)
def test_its_process_stays_small(what: str, tmp_path: Path) -> None:
    (tmp_path / "meta_data.pkl").write_bytes(GIANT[what])
    module = "dragnoise.bench.dragbench.unpickled"
    command = [
        sys.executable,
        "-c",
        MEASURED,
        module,
        str(tmp_path / "meta_data.pkl"),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500_000  # KiB


def test_a_malicious_pickle_is_not_run(tmp_path: Path) -> None:
    root, trace = write_dragbench(tmp_path / "bench"), tmp_path / "trace"
    said = {**said_of(ONE), "more": Call(os.mkdir, str(trace))}
    (root / ONE / "meta_data.pkl").write_bytes(pickle.dumps(said))
    with pytest.raises(ImageError, match=r"posix\.mkdir is neither a plain value nor"):
        read_sample(root, ONE, tmp_path / "out")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prompt": 3}, "prompt is no text"),
        ({"points": 3}, "points are no list"),
        ({"points": [[1, 2, 3]]}, "no pair of numbers"),
        ({"points": [["1", 2]]}, "no pair of numbers"),
        ({"mask": [[1]]}, "mask is no array"),
        ({"mask": np.zeros((2, 3, 1))}, "mask is no array"),
    ],
)
def test_what_says_something_else_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ImageError, match=told):
        unpickled.said_of({**said_of(ONE), **change})


@pytest.mark.parametrize("content", [3, [], {"points": [], "mask": []}])
def test_what_is_no_sample_is_refused(content: object) -> None:
    with pytest.raises(ImageError, match="it holds no 'prompt'"):
        unpickled.said_of(content)


def test_a_link_to_a_device_is_refused(tmp_path: Path) -> None:
    root = write_dragbench(tmp_path / "bench")
    (root / ONE / "meta_data.pkl").unlink()
    (root / ONE / "meta_data.pkl").symlink_to("/dev/zero")
    assert ONE not in names_of(root)
    with pytest.raises(ImageError, match="device"):
        convert(root, ONE, tmp_path / "out")
