"""Images and masks."""

import io
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.features
import PIL.Image
import pytest

from dragnoise.engine import Image, ImageError, InputWarning, Mask, MaskError
from odd_pictures import BOMBS, exif_bytes, kinds, mutated, png, png_notes, profile, tiff
from tally import WHOLE, Tally

KNOWN = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"),
    "GIF": ("1", "L", "P", "RGB", "RGBA"),
} | ({"AVIF": ("RGB", "RGBA")} if PIL.features.check("avif") else {})
UNKNOWN = {
    "PCX": ("RGB",),
    "TGA": ("RGB",),
    "PPM": ("RGB",),
    "SGI": ("RGB",),
    "DDS": ("RGB",),
    "ICO": ("RGB",),
    "ICNS": ("RGB",),
    "IM": ("RGB",),
    "SPIDER": ("F",),
    "XBM": ("1",),
    "MSP": ("1",),
    "QOI": ("RGB",),
    "JPEG2000": ("RGB",),
    "EPS": ("RGB",),
    "PDF": ("RGB",),
}


@pytest.fixture(autouse=True)
def _without_warnings() -> Iterator[None]:
    """Let odd pictures be said: Pillow's own words are no error here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _reads(path: Path, tally: Tally, name: str) -> None:
    """Try a file as an image and as a mask: it is read, or refused in one line."""
    tally.refused_or(
        name, partial(Image.of, path), lambda image: image.pixels.ndim == 3, ImageError
    )
    tally.refused_or(f"{name}, mask", partial(Mask.of, path, 24, 16), lambda _: True, MaskError)


def test_bombs(tmp_path: Path, tally: Tally) -> None:
    """Small files of huge pictures, as image and as mask, in a process of 150 MB more."""
    paths = []
    for number, (name, make) in enumerate(list(BOMBS.items())[:: 1 if WHOLE else 4]):
        paths.append(tmp_path / f"{number} {name}")
        paths[-1].write_bytes(make())
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _GROWTH, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    lines = done.stdout.splitlines()
    for line in lines:
        grown_mb, _, said = line.partition(" ")
        tally.judge(int(grown_mb) < 150, f"{said}: {grown_mb} MB")
    tally.remark = f"at most {max(int(line.split()[0]) for line in lines)} MB more"


_GROWTH = """
import re, sys
from functools import partial
from dragnoise.engine import Image, ImageError, Mask, MaskError
import PIL.Image, numpy, PIL.ImageCms
PIL.Image.init()
def peak_mb():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
for path in sys.argv[1:]:
    for read in (partial(Image.of, path), partial(Mask.of, path, 8, 8)):
        before = peak_mb()
        try:
            read()
            said = "taken"
        except (ImageError, MaskError) as refused:
            said = str(refused)[:100]
        print(peak_mb() - before, path, said)
"""


def test_notes_of_a_png(tmp_path: Path, tally: Tally) -> None:
    """PNG with zTXt, iTXt or iCCP of 1 to 100 MB, 70 zTXt of 1 MB."""
    for kind in (b"zTXt", b"iTXt", b"iCCP"):
        for megabytes, count in ((2, 1), (100, 1), (1, 70)) if WHOLE else ((2, 1), (1, 70)):
            path = tmp_path / "noted.png"
            path.write_bytes(png_notes(kind, megabytes, count))
            tally.refused_or(
                f"{kind!r} {megabytes} MB, {count} times",
                partial(Image.of, path),
                lambda image: (image.pixels == 0).all(),
                ImageError,
            )


def test_exif(tmp_path: Path, tally: Tally) -> None:
    """Random EXIF headers in PNG, JPEG, WebP and TIFF."""
    pixels = np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3) % 251
    picture = PIL.Image.fromarray(pixels)
    for chance in tally.lot(small=150, whole=6000):
        header = exif_bytes(chance)
        suffix = chance.choice(("png", "jpeg", "webp"))
        path = tmp_path / f"exif.{suffix}"
        picture.save(path, exif=header)
        tally.refused_or(
            f"{suffix} {header!r}",
            partial(Image.of, path),
            lambda image: sorted(image.pixels.shape) == [3, 16, 24],
            ImageError,
        )


def test_mutated(tmp_path: Path, tally: Tally) -> None:
    """Mutated files of the formats that are read."""
    files = list(kinds(KNOWN))
    for chance in tally.lot(small=150, whole=5520):
        name, data = chance.choice(files)
        path = tmp_path / "mutated"
        path.write_bytes(mutated(data, chance))
        _reads(path, tally, name)


def test_other_formats(tmp_path: Path, tally: Tally) -> None:
    """Whole and mutated files of formats that are not read."""
    for chance in tally.lot(small=2, whole=50):
        for name, data in kinds(UNKNOWN):
            for content in (data, mutated(data, chance)):
                path = tmp_path / "other.png"
                path.write_bytes(content)
                tally.refused(name, partial(Image.of, path), ImageError)


def test_modes(tmp_path: Path, tally: Tally) -> None:
    """Every mode of every format that is read."""
    for name, data in kinds(KNOWN):
        path = tmp_path / "whole"
        path.write_bytes(data)
        tally.judge(Image.of(path).pixels.shape == (16, 24, 3), name)
        tally.judge(Mask.of(path, 24, 16).editable.shape == (16, 24), f"{name}, mask")


def test_truncated_lazy_pictures(tmp_path: Path, tally: Tally) -> None:
    """A Pillow image that is opened but not decoded, and cut."""
    for name, data in kinds(KNOWN):
        for share in (0.3, 0.6, 0.9):
            path = tmp_path / "cut"
            path.write_bytes(data[: int(len(data) * share)])
            try:
                opened = PIL.Image.open(path)
            except (OSError, SyntaxError):
                continue
            _reads_lazy(opened, tally, f"{name} cut to {share}")


def _reads_lazy(opened: PIL.Image.Image, tally: Tally, name: str) -> None:
    tally.refused_or(name, partial(Image.of, opened), lambda _: True, ImageError)
    tally.refused_or(f"{name}, mask", partial(Mask.of, opened, 24, 16), lambda _: True, MaskError)


def test_profiles(tmp_path: Path, tally: Tally) -> None:
    """Mutated colour profiles."""
    whole = profile()
    picture = PIL.Image.fromarray(np.full((4, 4, 3), 100, np.uint8))
    for chance in tally.lot(small=40, whole=1000):
        path = tmp_path / "profile.png"
        picture.save(path, icc_profile=mutated(whole, chance))
        tally.refused_or(
            "profile", partial(Image.of, path), lambda image: image.width == 4, ImageError
        )


def _shows(pixels: Any) -> Callable[[Image], bool]:
    return lambda seen: bool(np.abs(seen.pixels.astype(int) - pixels).max() <= 1)


def test_numbers(tmp_path: Path, tally: Tally) -> None:
    """Floats and integers of 32 bits in every range, NaN, infinity: as arrays, or refused."""
    share = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    expected = Image.of(share).pixels
    for scale, right in ((1, True), (1e-3, True), (1.5, False), (70_000, False), (-1, False)):
        for big in (False, True):
            values = (share * scale).astype(">f4" if big else "<f4")
            path = tmp_path / "floats.tif"
            path.write_bytes(tiff(8, 8, values.tobytes(), bits=32, sample=3, big=big))
            tally.refused_or(
                f"floats up to {scale}, big-endian {big}",
                partial(Image.of, path),
                _shows(expected * min(scale, 1.0)) if right else lambda _: False,
                ImageError,
            )
    for odd in (np.nan, np.inf, -np.inf):
        values = np.where(share > 0.5, np.float32(odd), share)
        path = tmp_path / "odd.tif"
        path.write_bytes(tiff(8, 8, values.tobytes(), bits=32, sample=3))
        tally.refused(f"{odd} in a file", partial(Image.of, path), ImageError)
        tally.refused(f"{odd} in an array", partial(Image.of, values), ImageError)
    dark = np.arange(64, dtype=np.uint16).reshape(8, 8)
    for big in (False, True):
        path = tmp_path / "dark.tif"
        path.write_bytes(tiff(8, 8, dark.astype(">u2" if big else "<u2").tobytes(), 16, big=big))
        tally.judge(
            bool((Image.of(path).pixels == Image.of(dark).pixels).all()), f"dark, big-endian {big}"
        )


def test_things_that_are_no_pictures(tmp_path: Path, tally: Tally) -> None:
    """SVG, PDF, HTML, /dev/zero, /dev/null, a folder, a FIFO, a sparse file of 10 TB."""
    for content in (b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4", b"<html>", b""):
        path = tmp_path / "text.png"
        path.write_bytes(content)
        tally.refused(repr(content), partial(Image.of, path), ImageError)
    os.mkfifo(tmp_path / "fifo")
    sparse = tmp_path / "sparse.webp"
    with sparse.open("wb") as file:
        file.write(b"RIFF\xff\xff\xff\x7fWEBPVP8 ")
        file.truncate(10 * 10**12)
    for thing in ("/dev/zero", "/dev/null", tmp_path, tmp_path / "fifo", sparse):
        tally.refused(str(thing), partial(Image.of, thing), ImageError)
        tally.refused(str(thing), partial(Mask.of, thing, 8, 8), MaskError)


def test_postscript_starts_no_program(
    tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostScript named .png, from a path, from bytes, and from a lazy Pillow image."""
    started = tmp_path / "started"
    gs = tmp_path / "gs"
    gs.write_text(f"#!/bin/sh\ntouch '{started}'\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    for read in (
        partial(Image.of, path),
        lambda: Image.from_bytes(content),
        lambda: Image.of(PIL.Image.open(path)),
        partial(Mask.of, path, 8, 8),
        lambda: Mask.of(PIL.Image.open(io.BytesIO(content)), 8, 8),
    ):
        tally.refused("PostScript", read)
        tally.judge(not started.exists(), "a program was started")


def test_mask_layers(tally: Tally) -> None:
    """Strokes of any colour on a transparent layer: what is painted may change."""
    for chance in tally.lot(small=60, whole=2000):
        colour = tuple(chance.randrange(256) for _ in range(3))
        beneath = tuple(chance.randrange(256) for _ in range(3))
        layer = np.empty((16, 24, 4), np.uint8)
        layer[...] = (*beneath, chance.choice((0, 0, 0, 60)))
        layer[3:9, 5:20] = (*colour, chance.choice((255, 255, 200)))
        mode = chance.choice(("RGBA", "RGBA", "LA"))
        seen = Mask.of(PIL.Image.fromarray(layer).convert(mode), 24, 16).editable
        painted = np.zeros((16, 24), np.bool_)
        painted[3:9, 5:20] = True
        tally.judge(bool((seen == painted).all()), f"{mode} {colour} on {beneath}")


def test_a_large_picture_is_read_within_limits() -> None:
    """A picture just inside the limits is read; the limits are told in the refusal."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        assert Image.from_bytes(png(16_384, 1)).width == 16_384
    with pytest.raises(ImageError, match="picture_side"):
        Image.from_bytes(png(16_385, 1))
