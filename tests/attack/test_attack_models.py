"""Files that are loaded."""

import json
import os
import pickle
import shutil
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from dragnoise.engine import DragConfig, Editor
from dragnoise.engine.diffusion.load.stored import open_weights
from dragnoise.engine.errors import ModelError
from golden_cases import MODEL
from tally import WHOLE, Tally

CONFIGURATIONS = (
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
)
NETWORKS = {
    "unet": "unet/diffusion_pytorch_model",
    "vae": "vae/diffusion_pytorch_model",
    "text_encoder": "text_encoder/model",
}
VALUES: tuple[Any, ...] = (
    None, True, False, "", "x", "silu", "linear", 0, 1, 2, 3, 7, -1, 10**6, 2**31, 2**63, 10**400,
    0.0, 0.5, -0.5, 1.5, 1e-308, 1e30, 1e308, float("nan"), float("inf"), [], [1], [0.5], ["x"],
    [4, 4, 4, 4], [10**6] * 4, [[1]], [None], {}, {"a": 1},
)  # fmt: skip
EXTRA: dict[str, Any] = {
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "auto_map": {"AutoModel": "evil.Evil"},
    "_class_name": "Evil",
    "architectures": ["Evil"],
    "model_type": "t5",
    "torch_dtype": "float99",
    "dtype": [1],
    "trust_remote_code": True,
    "custom_pipeline": "/tmp/evil",
    "_name_or_path": "../../etc",
    "device_map": "auto",
    "text_config": {"hidden_size": "x"},
    "id2label": 3,
    "__class__": "Evil",
    "self": 1,
    "config": {},
    "vocab_file": "/etc/passwd",
    "tokenizer_file": "/etc/passwd",
    "model_max_length": -5,
    "pad_token": {"content": 3},
    "added_tokens_decoder": {"x": "y"},
    "unk_token": 3,
    "chat_template": "{{ 1 }}",
}
CARDS: tuple[Any, ...] = (
    [], 1, None, {"lr": "x"}, {"steps": 10**400}, {"lr": 10**400}, {"iterations": []}, {"self": 1},
    {"parity": "x"}, {"lam": None}, {"strength": {}}, {"lr": float("nan")}, {"": 1},
)  # fmt: skip
BROKEN: dict[str, Callable[[bytes, Random], bytes]] = {
    "cut": lambda text, chance: text[: chance.randrange(len(text))],
    "flipped": lambda text, chance: _flipped(text, chance.randrange(len(text)), chance),
    "empty": lambda text, chance: b"",
    "a list": lambda text, chance: b"[]",
    "an empty object": lambda text, chance: b"{}",
    "deep": lambda text, chance: b"[" * 10**5,
    "deep object": lambda text, chance: b'{"a":' * 10**5,
    "long number": lambda text, chance: b'{"a": ' + b"9" * 10**4 + b"}",
    "UTF-16": lambda text, chance: text.decode("utf-8", "replace").encode("utf-16"),
    "a byte order mark": lambda text, chance: b"\xef\xbb\xbf" + text,
    "null bytes": lambda text, chance: text + bytes(10),
}
QUICK = DragConfig(steps=4, strength=0.5, iterations=1)


def _flipped(content: bytes, place: int, chance: Random) -> bytes:
    flipped = bytearray(content)
    flipped[place] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def _copy(target: Path) -> Path:
    """Make a folder anew that a try may change: links to the golden model's files."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(MODEL, target, copy_function=os.symlink)
    return target


def _write(file: Path, content: bytes) -> None:
    file.unlink(missing_ok=True)
    file.write_bytes(content)


def _edit(folder: Path, **how: Any) -> np.ndarray[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        editor = Editor.from_pretrained(folder, device="cpu", **how)
        made = editor.edit(
            np.full((64, 64, 3), 128, np.uint8),
            "20,20:30,20",
            prompt="an orange disc",
            config=QUICK,
        )
    return made.image.pixels


def _try(tally: Tally, name: str, folder: Path) -> None:
    """Count as right what is refused in one line, or edits to a picture, within 30 s."""
    begun = time.monotonic()
    tally.refused_or(name, lambda: _edit(folder), lambda picture: bool(picture.any()))
    assert time.monotonic() - begun < 30, name


def test_configuration_values(tmp_path: Path, tally: Tally) -> None:
    """model folder: configuration values of other types, sizes, ranges."""
    for chance in tally.lot(small=6, whole=565):
        folder = _copy(tmp_path / "model")
        file = folder / chance.choice(CONFIGURATIONS)
        said = json.loads(file.read_text())
        field, value = chance.choice(sorted(said)), chance.choice(VALUES)
        _write(file, json.dumps(said | {field: value}).encode())
        _try(tally, f"{file.parent.name} {field} = {str(value)[:40]}", folder)


def _texts() -> Iterator[tuple[str, str, Callable[[bytes, Random], bytes]]]:
    """Yield tries on the text of a folder's files: name, file, change."""
    files = sorted(str(file.relative_to(MODEL)) for file in MODEL.rglob("*.json"))
    for file in (*files, "tokenizer/merges.txt"):
        if file != "model_index.json":
            for name, change in BROKEN.items():
                yield f"{file}: {name}", file, change
    for card in CARDS:
        text = json.dumps(card).encode()
        yield f"drag.json: {str(card)[:40]}", "drag.json", partial(_instead, text)
    for field, value in EXTRA.items():
        for file in (*CONFIGURATIONS, "tokenizer/tokenizer_config.json"):
            yield f"{file}: {field}", file, partial(_more, {field: value})


def _instead(text: bytes, _: bytes, __: Random) -> bytes:
    return text


def _more(fields: dict[str, Any], text: bytes, _: Random) -> bytes:
    return json.dumps(json.loads(text) | fields).encode()


def test_texts(tmp_path: Path, tally: Tally) -> None:
    """model folder: extra fields, broken text, drag.json, tokenizer files."""
    tries = list(_texts())
    for number, (name, file, change) in enumerate(tries if WHOLE else tries[:: len(tries) // 6]):
        folder = _copy(tmp_path / "model")
        text = (folder / file).read_bytes() if (folder / file).exists() else b""
        _write(folder / file, change(text, Random(number)))
        _try(tally, name, folder)


def test_flipped_headers(tmp_path: Path, tally: Tally) -> None:
    """weights: header flips."""
    for chance in tally.lot(small=2, whole=45):
        folder = _copy(tmp_path / "model")
        file = folder / f"{chance.choice(sorted(NETWORKS.values()))}.safetensors"
        whole = file.read_bytes()
        place = chance.randrange(8 + int.from_bytes(whole[:8], "little"))
        _write(file, _flipped(whole, place, chance))
        _try(tally, f"{file.name} at {place}", folder)


def test_truncated_weights(tmp_path: Path, tally: Tally) -> None:
    """weights: truncations."""
    for chance in tally.lot(small=2, whole=24):
        folder = _copy(tmp_path / "model")
        file = folder / f"{chance.choice(sorted(NETWORKS.values()))}.safetensors"
        whole = file.read_bytes()
        _write(file, whole[: chance.randrange(len(whole))])
        tally.refused(file.name, partial(_edit, folder), ModelError)


def test_flipped_weights(tmp_path: Path, tally: Tally) -> None:
    """weights: data flips: refused, or a picture (nothing to compare with)."""
    for chance in tally.lot(small=1, whole=75):
        folder = _copy(tmp_path / "model")
        file = folder / f"{chance.choice(sorted(NETWORKS.values()))}.safetensors"
        whole = file.read_bytes()
        place = chance.randrange(8 + int.from_bytes(whole[:8], "little"), len(whole))
        _write(file, _flipped(whole, place, chance))
        _try(tally, f"{file.name} at {place}", folder)


def test_no_numbers(tmp_path: Path, tally: Tally) -> None:
    """weights: NaN or inf in U-Net or VAE."""
    cases = [(name, value) for name in ("unet", "vae") for value in (float("nan"), float("inf"))]
    for name, value in cases if WHOLE else cases[1:3]:
        folder = _copy(tmp_path / "model")
        file = folder / f"{NETWORKS[name]}.safetensors"
        weights = load_file(file)
        weights[sorted(weights)[3]].view(-1)[0] = value
        file.unlink()
        save_file(weights, file)
        tally.refused(f"{name} {value}", partial(_edit, folder), ModelError)


class Planted:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


def test_planted_pickles(tmp_path: Path, tally: Tally) -> None:
    """pickles planted that would make a file (as .safetensors, torch zip, .bin, by an index)."""
    ran = tmp_path / "ran"
    torch.save({"conv_in.weight": Planted(ran)}, tmp_path / "zip")
    planted = {"pickle": pickle.dumps({"a": Planted(ran)}), "zip": (tmp_path / "zip").read_bytes()}
    ways = [
        (kind, network, way)
        for kind in planted
        for network in NETWORKS
        for way in ("as safetensors", "alone", "by an index", "allowed")
    ]
    for kind, network, way in ways if WHOLE else islice(ways, 0, None, 5):
        folder = _copy(tmp_path / "model")
        safe = folder / f"{NETWORKS[network]}.safetensors"
        safe.unlink()
        pickled = safe.with_suffix(".bin")
        if way == "by an index":
            index = safe.with_name(f"{safe.name}.index.json")
            index.write_text(json.dumps({"weight_map": {"conv_in.weight": pickled.name}}))
        _write(safe if way == "as safetensors" else pickled, planted[kind])
        call = partial(_edit, folder, allow_pickle=way == "allowed")
        tally.refused(f"{kind} {network} {way}", call, ModelError)
        tally.judge(not ran.exists(), f"{kind} {network} {way}: it ran")


def test_an_index_that_names_a_pickle(tmp_path: Path, tally: Tally) -> None:
    """a sharded index that names a pickle (no `allow_pickle`)."""
    for network, name in NETWORKS.items():
        folder = _copy(tmp_path / "model")
        safe = folder / f"{name}.safetensors"
        torch.save(load_file(safe), safe.with_name("part.bin"))
        _list_all_in(safe, "part.bin")
        tally.refused(network, partial(_edit, folder), ModelError)


def test_an_index_that_leads_outside(tmp_path: Path, tally: Tally) -> None:
    """a sharded index with `../../x`, absolute."""
    for network, name in NETWORKS.items():
        outside = tmp_path / "outside.safetensors"
        shutil.copy(MODEL / f"{name}.safetensors", outside)
        for path in ("../../outside.safetensors", str(outside)):
            folder = _copy(tmp_path / "model")
            _list_all_in(folder / f"{name}.safetensors", path)
            tally.refused(f"{network} {path}", partial(_edit, folder), ModelError)


def _list_all_in(safe: Path, part: str) -> None:
    """Put an index that names one part in a file's place."""
    listed = {"metadata": {}, "weight_map": dict.fromkeys(load_file(safe), part)}
    safe.unlink()
    safe.with_name(f"{safe.name}.index.json").write_text(json.dumps(listed))


HEADERS: dict[str, Any] = {
    "not an object": [],
    "no offsets": {"a": {"dtype": "F32", "shape": [1]}},
    "unknown type": {"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}},
    "negative": {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
    "of text": {"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}},
    "huge": {"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}},
    "beyond": {"a": {"dtype": "F32", "shape": [10**6], "data_offsets": [0, 4 * 10**6]}},
    "overlapping": {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in ("a", "b")
    },
    "with a gap": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
}


def test_crafted_headers(tmp_path: Path, tally: Tally) -> None:
    """weights: crafted headers, FIFO, device, folder, sparse file of 10 TB."""
    file = tmp_path / "model.safetensors"

    def tried(name: str) -> None:
        tally.refused(name, lambda: ExitStack().enter_context(open_weights([file])), ModelError)

    for name, header in HEADERS.items():
        text = json.dumps(header).encode()
        _write(file, struct.pack("<Q", len(text)) + text + bytes(8))
        tried(name)
    for length in (0, 1, 2**62, 2**64 - 1, 10**8):
        _write(file, struct.pack("<Q", length) + b"{}")
        tried(f"header of {length}")
    with file.open("r+b") as sparse:
        sparse.truncate(10 * 10**12)
    tried("sparse")
    file.unlink()
    for name, make in (
        ("FIFO", os.mkfifo),
        ("folder", os.mkdir),
        ("device", partial(os.symlink, "/dev/zero")),
    ):
        make(file)
        tried(name)
        file.rmdir() if file.is_dir() else file.unlink()
