"""Adapters' files and numbers."""

import json
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dragnoise.engine import Adapter, AdapterError, ConfigError, DragnoiseError, Editor
from dragnoise.engine.diffusion.lora.adapter import FILE, AdapterUse, projections
from golden_cases import MODEL
from tally import Tally

PICTURE = np.zeros((64, 64, 3), np.uint8)


@cache
def editor() -> Editor:
    return Editor.from_pretrained(MODEL, device="cpu")


@pytest.fixture(autouse=True)
def warnings_are_let_pass() -> Iterator[None]:
    """A file that is read with a warning is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def whole() -> Adapter:
    layers = sorted(projections(editor().model.unet.network).items())[:4]
    chance = torch.Generator().manual_seed(1)
    return Adapter(
        tuple(
            (
                name,
                torch.randn(2, layer.in_features, generator=chance),
                torch.randn(layer.out_features, 2, generator=chance),
            )
            for name, layer in layers
        )
    )


def tensors_of(adapter: Adapter) -> dict[str, Tensor]:
    return {
        f"unet.{name}.lora_{letter}.weight": matrix.contiguous()
        for name, down, up in adapter.matrices
        for letter, matrix in (("A", down), ("B", up))
    }


def header_bytes(raw: bytes) -> int:
    return 8 + int.from_bytes(raw[:8], "little")


def opened(file: Path) -> Any:
    """Load an adapter and open a session with it, as an edit does first."""
    return editor().open(PICTURE, adapter=file)


def is_same(session: Any) -> bool:
    return bool(session.adapter.digest == whole().digest)


def test_flips_of_our_data(tmp_path: Path, tally: Tally) -> None:
    """Data flips in a file of ours."""
    flips(tmp_path, tally, lambda raw: (header_bytes(raw), len(raw)), small=40, whole_lot=500)


def test_flips_of_our_header(tmp_path: Path, tally: Tally) -> None:
    """Header flips in a file of ours."""
    flips(tmp_path, tally, lambda raw: (0, header_bytes(raw)), small=60, whole_lot=500)


def flips(
    folder: Path,
    tally: Tally,
    span: Callable[[bytes], tuple[int, int]],
    small: int,
    whole_lot: int,
) -> None:
    file = whole().save(folder / FILE)
    raw = file.read_bytes()
    for chance in tally.lot(small, whole_lot):
        flipped = bytearray(raw)
        at = chance.randrange(*span(raw))
        flipped[at] ^= 1 << chance.randrange(8)
        file.write_bytes(flipped)
        tally.refused_or(f"byte {at}", partial(opened, file), is_same, AdapterError)


def test_truncations(tmp_path: Path, tally: Tally) -> None:
    """Truncations."""
    file = whole().save(tmp_path / FILE)
    raw = file.read_bytes()
    for chance in tally.lot(small=20, whole=200):
        length = chance.randrange(len(raw))
        file.write_bytes(raw[:length])
        tally.refused(f"{length} bytes", partial(opened, file), AdapterError)


def test_crafted_headers(tmp_path: Path, tally: Tally) -> None:
    """Crafted headers: sizes of 2^62, 100 MB, negative, overlapping, nested, not UTF-8, doubled."""
    layer = whole().matrices[0][0]
    name = f"unet.{layer}.lora_A.weight"

    def entry(shape: object, offsets: object, dtype: object = "F32") -> str:
        return json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}})

    headers: dict[str, bytes] = {
        "2^62": entry([2**31, 2**31], [0, 8]).encode(),
        "negative": entry([-1, 2], [0, 8]).encode(),
        "beyond": entry([2, 2], [0, 2**40]).encode(),
        "backwards": entry([2, 2], [16, 0]).encode(),
        "overlapping": (entry([2], [0, 8])[:-1] + "," + entry([2], [4, 12])[1:]).encode(),
        "no such dtype": entry([2], [0, 8], "F99").encode(),
        "shape is no list": entry("x", [0, 8]).encode(),
        "nested": b'{"__metadata__":' + b"[" * 10**5,
        "nested settings": json.dumps(
            {"__metadata__": {"lora_adapter_metadata": "[" * 10**5}}
        ).encode(),
        "not UTF-8": b'{"\xff": 1}',
        "metadata of numbers": b'{"__metadata__": {"a": 1}}',
        "a list": b"[]",
        "empty": b"",
        "spaces": b" " * 1000,
    }
    for told, header in headers.items():
        for length in (len(header), 2**63, 10**8):
            file = tmp_path / FILE
            file.write_bytes(struct.pack("<Q", length) + header + bytes(16))
            tally.refused(f"{told}, {length}", partial(opened, file), AdapterError)


def test_things_that_are_no_file(tmp_path: Path, tally: Tally) -> None:
    """FIFO, device, folder, pickle, dangling link, loop, sparse file, null byte, AppleDouble."""
    os.mkfifo(tmp_path / "fifo.safetensors")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.bin").write_bytes(b"\x80\x04.")
    (tmp_path / "b.safetensors").write_bytes(b"\x80\x04.")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "._c.safetensors").write_bytes(b"\0\5\x16\7" + bytes(200))
    with (tmp_path / "sparse.safetensors").open("wb") as sparse:
        sparse.truncate(10 * 10**12)
    (tmp_path / "fifos").mkdir()
    os.mkfifo(tmp_path / "fifos" / FILE)
    (tmp_path / "folders").mkdir()
    (tmp_path / "folders" / FILE).mkdir()
    for path in (
        *sorted(tmp_path.iterdir()),
        Path("/dev/zero"),
        Path("null\0byte"),
        Path("long" * 100),
        Path(),
    ):
        tally.refused(str(path), partial(opened, path), AdapterError)


def test_settings(tmp_path: Path, tally: Tally) -> None:
    """Settings that are nested, endless, of other types."""
    tensors = tensors_of(whole())
    odd: list[Any] = [None, True, -1, 0, 1.5, 10**400, "x", "a\nb", [], {}, [1], {"a": 1}, 1e308]
    nested = [json.loads("[" * depth + "]" * depth) for depth in (50, 300)]
    texts = [json.dumps(one) for one in odd]
    texts += ["[" * 10**5, "9" * 10**5, '{"lora_alpha": NaN}', '{"lora_alpha": Infinity}', "{"]
    for key in ("lora_alpha", "alpha_pattern", "use_rslora", "use_dora", "peft_type", "r"):
        texts += [json.dumps({key: value}) for value in (*odd, *nested)]
        texts += [f'{{"{key}": {"9" * 5000}}}', f'{{"{key}": {"[" * 900}{"]" * 900}}}']
    texts += [json.dumps({"alpha_pattern": {"to_q": value}}) for value in (*odd, *nested)]
    for text in texts:
        save_file(tensors, tmp_path / FILE, metadata={"lora_adapter_metadata": text})
        tally.refused_or(
            text[:80], partial(opened, tmp_path), lambda s: finite(s.adapter), AdapterError
        )


def finite(adapter: Adapter) -> bool:
    return all(bool(m.isfinite().all()) for _, down, up in adapter.matrices for m in (down, up))


def test_numbers(tmp_path: Path, tally: Tally) -> None:
    """NaN, infinities, 3e38, 1e18, 1e300, alphas of NaN and infinity."""
    for value in (float("nan"), float("inf"), float("-inf"), 3e38, -3e38, 1e18, 1e30):
        for which in range(8):
            tensors = tensors_of(whole())
            for name in list(tensors)[which:]:
                tensors[name] = torch.full_like(tensors[name], value)
            save_file(tensors, tmp_path / FILE)
            tally.refused(f"{value} from {which}", partial(opened, tmp_path), AdapterError)
    layer = whole().matrices[0][0]
    for alpha in (float("nan"), float("inf"), 1e38, [1.0, 2.0], [], True, 1j):
        tensors = tensors_of(whole()) | {f"unet.{layer}.alpha": torch.tensor(alpha)}
        save_file(tensors, tmp_path / FILE)
        tally.refused(f"alpha {alpha}", partial(opened, tmp_path), AdapterError)


def test_scales(tally: Tally) -> None:
    """Scales of 1e30, 1e308, 10**400, NaN and other types."""
    adapter = whole()
    scales: list[Any] = [1e30, 1e308, -1e308, 10**400, -(10**400), float("nan"), float("inf")]
    scales += [None, "1", 1j, [1], True, np.bool_(True), np.array([1.0]), object(), b"1"]
    for scale in scales:
        open_with = partial(editor().open, PICTURE, adapter=adapter, adapter_scale=scale)
        tally.refused(repr(scale)[:60], open_with, AdapterError, ConfigError)


def test_dtypes(tmp_path: Path, tally: Tally) -> None:
    """complex64, bool, integers refused; float64, 16-bit floats and fp8 read."""
    floats = (torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
    others = (torch.complex64, torch.bool, torch.int64, torch.int8, torch.uint8, torch.uint16)
    for dtype in (*floats, *others):
        tensors = {name: tensor.to(dtype) for name, tensor in tensors_of(whole()).items()}
        save_file(tensors, tmp_path / FILE)
        load = partial(opened, tmp_path)
        if dtype in floats:
            tally.judge(finite(load().adapter), f"{dtype}: not finite")
        else:
            tally.refused(str(dtype), load, AdapterError)


def test_names_and_shapes(tmp_path: Path, tally: Tally) -> None:
    """Wrong shapes, rank 0, scalars, names with .., newline, escape codes, 10,000 letters."""
    layer, down, up = whole().matrices[0]
    odd = [
        "..",
        "",
        "__class__",
        "a\nb",
        "\x1b[31m",
        "a" * 10**4,
        "é",
        "conv_in",
        "a..b",
        layer + ".",
    ]
    odd += ["lora_unet_", "lora_unet_input_blocks_99_9_x", "time_embedding.linear_1", "\ud7ff"]
    for name in odd:
        for ending in ("lora_A.weight", "lora_A.x.weight", "alpha", "weight", "lora_mid.weight"):
            tensors = {f"{name}.{ending}": down, f"{name}.lora_B.weight": up}
            save_file(tensors, tmp_path / FILE)
            tally.refused(f"{name[:20]!r} {ending}", partial(opened, tmp_path), AdapterError)
    shapes = [(), (0,), (5,), (0, 16), (2, 0), (2, 15), (3, 16), (2, 16, 1), (2, 16, 1, 1)]
    shapes += [(2, 16, 3, 3), (1,) * 8]
    for shape in shapes:
        for ending, other in (("A", up), ("B", down)):
            tensors = {
                f"{layer}.lora_{ending}.weight": torch.ones(shape),
                f"{layer}.lora_{'AB'[ending == 'A']}.weight": other,
            }
            save_file(tensors, tmp_path / FILE)
            tally.refused(f"{ending} {shape}", partial(opened, tmp_path), AdapterError)


def test_random_keys(tmp_path: Path, tally: Tally) -> None:
    """Names of all tools mixed at random."""
    layer, down, up = whole().matrices[0]
    flat = layer.replace(".", "_")
    fronts = [
        "unet.",
        "base_model.model.",
        "lora_unet_",
        "lora_te_",
        "lora_te2_",
        "text_encoder.",
        "",
    ]
    ends = ["lora_A.weight", "lora_B.weight", "lora_down.weight", "lora_up.weight", "alpha", "diff"]
    ends += [
        "dora_scale",
        "hada_w1_a",
        "lokr_w1",
        "processor.to_q_lora.down.weight",
        "lora_mid.weight",
    ]
    for chance in tally.lot(small=60, whole=2000):
        tensors = {
            f"{chance.choice(fronts)}{chance.choice([layer, flat])}.{chance.choice(ends)}": (
                chance.choice([down, up, torch.tensor(1.0)])
            ).clone()
            for _ in range(chance.randrange(1, 6))
        }
        save_file(tensors, tmp_path / FILE)
        tally.refused_or(str(list(tensors)), partial(opened, tmp_path), lambda _: True)


def test_files_written_while_they_are_read(tmp_path: Path, tally: Tally) -> None:
    """A file cut or written again in place after it was read."""
    adapter = whole()
    for chance in tally.lot(small=20, whole=200):
        file = adapter.save(tmp_path / FILE)
        read = Adapter.load(file)
        size = file.stat().st_size
        if chance.random() < 0.5:
            os.truncate(file, chance.randrange(size))
        else:
            with file.open("r+b") as again:
                again.write(chance.randbytes(size))
        tally.judge(read.digest == adapter.digest, "what was read has changed")


def test_others_files_of_ours(tmp_path: Path, tally: Tally) -> None:
    """A file of ours without its digest, as other tools rewrite it: read."""
    file = whole().save(tmp_path / FILE)
    for metadata in (None, {"format": "pt"}, {"ss_network_dim": "2"}):
        save_file(load_file(file), tmp_path / "other.safetensors", metadata=metadata)
        session = opened(tmp_path / "other.safetensors")
        tally.judge(is_same(session), f"{metadata}: another adapter")


def test_a_refused_one_leaves_the_weights(tally: Tally) -> None:
    """Adapters refused while they are merged: the weights are as they were."""
    network = editor().model.unet.network
    plain = {name: weight.clone() for name, weight in network.named_parameters()}
    name, down, up = whole().matrices[0]
    for wrong in (
        Adapter((*whole().matrices[1:], (name, down * 1e30, up))),
        Adapter((*whole().matrices[1:], (name, down * float("nan"), up))),
        Adapter((*whole().matrices[1:], (name, down[:, 1:], up))),
        Adapter((*whole().matrices, ("z", down, up))),
    ):
        with pytest.raises(DragnoiseError), editor().adapters.active(AdapterUse(wrong)):
            pytest.fail("entered")
        same = all(torch.equal(weight, plain[n]) for n, weight in network.named_parameters())
        tally.judge(same, "the weights have changed")
