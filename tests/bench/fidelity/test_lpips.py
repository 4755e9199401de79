"""LPIPS as the `lpips` package computes it."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from dragnoise.bench.fidelity.lpips import Lpips
from dragnoise.bench.fidelity.pixels import Pixels
from dragnoise.engine import ModelError
from lpips_weights import random_weights

PUBLISHED = {
    (60, 80): 0.38901352882385254,
    (341, 512): 0.3958923816680908,
    (224, 224): 0.34365683794021606,
}
"""Distances by the package `lpips` 0.1.4 with `random_weights`, by the pictures' sizes."""


def pictures(size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    random = np.random.default_rng(size[0])
    one = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    other = (one // 2 + random.integers(0, 100, one.shape)).astype(np.uint8)
    return one, other


@pytest.mark.parametrize("size", PUBLISHED)
def test_distances_are_those_of_the_package(size: tuple[int, int]) -> None:
    one, other = pictures(size)
    measure = Lpips(random_weights())
    assert measure.distance(one, other) == pytest.approx(PUBLISHED[size], rel=1e-5)
    assert measure.distance(other, one) == pytest.approx(PUBLISHED[size], rel=1e-5)
    assert measure.distance(one, one) == 0


def test_distances_are_those_of_the_package_where_it_is_installed() -> None:
    package = pytest.importorskip("lpips", reason="the package lpips is not installed")
    theirs = package.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False).eval()
    theirs.load_state_dict(random_weights(), strict=False)
    one, other = pictures((300, 200))
    batches = [
        F.interpolate(
            torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1,
            (224, 224),
            mode="bilinear",
        )
        for picture in (one, other)
    ]
    with torch.no_grad():
        expected = float(theirs(*batches))
    assert Lpips(random_weights()).distance(one, other) == pytest.approx(expected, rel=1e-5)


def test_weights_are_read_by_path_and_digest(tmp_path: Path) -> None:
    file = tmp_path / "alex.safetensors"
    more = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
    save_file(random_weights() | more, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    one, other = pictures((60, 80))
    for wanted in (None, digest, digest.upper()):
        measure = Lpips.read(file, wanted)
        assert measure.distance(one, other) == pytest.approx(PUBLISHED[60, 80], rel=1e-5)
    with pytest.raises(ModelError, match=f"the digest of .* is {digest}, not 00ff"):
        Lpips.read(file, "00ff")


def test_other_files_and_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no file at"):
        Lpips.read(tmp_path / "alex.safetensors")
    torch.save(random_weights(), tmp_path / "alex.pth")
    with pytest.raises(ModelError, match=r"is no \.safetensors file"):
        Lpips.read(tmp_path / "alex.pth")
    (tmp_path / "alex.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="could not be loaded"):
        Lpips.read(tmp_path / "alex.safetensors")
    weights = random_weights()
    weights["net.slice2.3.weight"] = torch.zeros(1)
    with pytest.raises(ModelError, match=r"have \[1\] for 'net.slice2.3.weight', not \[192"):
        Lpips(weights)
    del weights["net.slice2.3.weight"]
    with pytest.raises(ModelError, match="have nothing for"):
        Lpips(weights)
