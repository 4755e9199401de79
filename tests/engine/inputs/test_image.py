"""Every kind of image that a person may hand in, from and to files and bytes; refusals."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from dragnoise.engine import Image, ImageError, InputWarning, OutputError

RAMP = np.arange(12 * 10, dtype=np.uint8).reshape(12, 10)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (COLOURS, COLOURS),
        (RAMP, np.repeat(RAMP[..., None], 3, axis=2)),
        (RAMP[..., None], np.repeat(RAMP[..., None], 3, axis=2)),
        (RAMP.astype(np.uint16) * 257, np.repeat(RAMP[..., None], 3, axis=2)),
        (COLOURS.astype(np.uint16) * 257, COLOURS),
        (COLOURS / 255, COLOURS),
        ((COLOURS / 255).astype(np.float32), COLOURS),
    ],
    ids=["rgb", "grey", "grey with channel", "grey 16 bit", "rgb 16 bit", "float64", "float32"],
)
def test_arrays(source: Any, expected: Any) -> None:
    np.testing.assert_array_equal(Image.of(source).pixels, expected)


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    rgba = np.dstack([COLOURS, np.full_like(RAMP, 255)])
    rgba[:4, :, 3] = 0
    for source in (rgba, PIL.Image.fromarray(rgba)):
        pixels = Image.of(source).pixels
        assert (pixels[:4] == 255).all()
        np.testing.assert_array_equal(pixels[4:], COLOURS[4:])
    palette = PIL.Image.fromarray(np.zeros_like(RAMP), "P")
    palette.putpalette([10, 20, 30])
    palette.save(tmp_path / "palette.png", transparency=0)
    with pytest.warns(InputWarning, match="alpha 0 at all 120 pixels"):
        assert (Image.of(tmp_path / "palette.png").pixels == 255).all()


@pytest.mark.parametrize(
    "mode", ["L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "1", "I;16", "I", "F"]
)
def test_every_pillow_mode_becomes_rgb(mode: str) -> None:
    if mode == "I;16":
        picture = PIL.Image.fromarray(RAMP.astype(np.uint16) * 257)
    else:
        picture = (
            PIL.Image.fromarray(COLOURS)
            .convert("L" if mode in ("I", "F", "1") else "RGB")
            .convert(mode)
        )
    assert picture.mode == mode
    seen = Image.of(picture).pixels
    assert seen.shape == (12, 10, 3)
    if mode in ("I;16", "L", "I", "F"):
        grey = RAMP if mode == "I;16" else np.asarray(PIL.Image.fromarray(COLOURS).convert("L"))
        np.testing.assert_array_equal(seen, np.repeat(grey[..., None], 3, axis=2))


def test_sixteen_bit_file(tmp_path: Path) -> None:
    PIL.Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(Image.of(tmp_path / "deep.png").pixels[..., 0], RAMP)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(COLOURS).save(tmp_path / "turned.png", exif=exif)
    for source in (tmp_path / "turned.png", PIL.Image.open(tmp_path / "turned.png")):
        np.testing.assert_array_equal(Image.of(source).pixels, np.rot90(COLOURS, -1))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nowhere.png", "no file at 'nowhere.png'"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \[0, 5, 3\]"),
        (np.zeros((4, 5, 2), np.uint8), r"shape \[4, 5, 2\]"),
        (np.zeros(7, np.uint8), r"shape \[7\]"),
        (np.zeros((4, 5), np.int64), "int64"),
        (np.full((4, 5), 1.5), "1.5"),
        (np.full((4, 5), np.nan), "nan"),
        (17, "int"),
    ],
)
def test_refused_images(source: Any, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        Image.of(source)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    for name in ("cut.png", "text.png", "empty.png"):
        with pytest.raises(ImageError, match=f"{name}.*cannot be read"):
            Image.of(tmp_path / name)
    with pytest.raises(ImageError, match="is a folder"):
        Image.of(tmp_path)


def test_pixels_cannot_be_changed() -> None:
    mine = COLOURS.copy()
    image = Image(mine)
    mine[:] = 0
    np.testing.assert_array_equal(image.pixels, COLOURS)
    with pytest.raises(ValueError, match="read-only"):
        image.pixels[0, 0, 0] = 1


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp", ".jpg", ".PNG"])
def test_saved_whole(tmp_path: Path, suffix: str) -> None:
    path = Image(COLOURS).save(tmp_path / f"out{suffix}")
    again = Image.of(path)
    assert (again.width, again.height) == (10, 12)
    if suffix.lower() in (".png", ".bmp", ".tiff"):
        np.testing.assert_array_equal(again.pixels, COLOURS)
    assert os.listdir(tmp_path) == [path.name]


def test_refused_outputs(tmp_path: Path) -> None:
    image = Image(COLOURS)
    for path, says in (
        (tmp_path / "out.xyz", "known kind"),
        (tmp_path / "no" / "out.png", "does not exist"),
        (tmp_path / "out", "known kind"),
    ):
        with pytest.raises(OutputError, match=says):
            image.save(path)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        image.save(tmp_path / "folder.png")
    assert os.listdir(tmp_path) == ["folder.png"]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Image(COLOURS).save(tmp_path / "out.png")
    before = path.read_bytes()

    def full(self: PIL.Image.Image, part: Path, **_: Any) -> None:
        part.write_bytes(b"half a pict")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PIL.Image.Image, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        Image(COLOURS[::-1]).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["out.png"]


@pytest.mark.parametrize(
    "format", ["png", "PNG", ".png", "bmp", "tif", "tiff", "jpg", "jpeg", "webp"]
)
def test_to_bytes_and_back(format: str) -> None:
    data = Image(COLOURS).to_bytes(format)
    again = Image.from_bytes(data)
    assert (again.width, again.height) == (10, 12)
    kind = PIL.Image.open(io.BytesIO(data)).format
    wanted = format.lower().removeprefix(".").replace("jpg", "jpeg")
    assert kind == {"tif": "TIFF"}.get(wanted, wanted.upper())
    if kind in ("PNG", "BMP", "TIFF"):
        np.testing.assert_array_equal(again.pixels, COLOURS)


def test_bytes_are_those_of_the_saved_file(tmp_path: Path) -> None:
    path = Image(COLOURS).save(tmp_path / "out.png")
    assert Image(COLOURS).to_bytes() == path.read_bytes()
    assert Image(COLOURS)._repr_png_() == path.read_bytes()  # what a notebook shows


def test_content_is_treated_as_a_file_is(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    rgba = np.dstack([COLOURS, np.full_like(RAMP, 255)])
    rgba[:4, :, 3] = 0
    PIL.Image.fromarray(rgba).save(tmp_path / "turned.png", exif=exif)
    path = tmp_path / "turned.png"
    np.testing.assert_array_equal(Image.from_bytes(path.read_bytes()).pixels, Image.of(path).pixels)


def test_refused_bytes() -> None:
    whole = Image(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).to_bytes()
    for data in (whole[:2000], b"not a picture", b""):
        with pytest.raises(
            ImageError, match=f"{len(data)} bytes of data cannot be read as an image"
        ):
            Image.from_bytes(data)
    with pytest.raises(ImageError, match="content is bytes, got str"):
        Image.from_bytes("picture.png")  # type: ignore[arg-type]


def test_refused_formats() -> None:
    for format in ("gif", "", "picture.png"):
        with pytest.raises(OutputError, match="not a known kind of picture; use one of png, jpg"):
            Image(COLOURS).to_bytes(format)
    wide = Image(np.zeros((1, 16384, 3), np.uint8))
    with pytest.raises(OutputError, match="16384x1 cannot be written as webp"):
        wide.to_bytes("webp")


@pytest.mark.parametrize("suffix", [".png", ".webp", ".WEBP", ".bmp", ".tif", ".TIFF"])
def test_every_pixel_is_kept(suffix: str, tmp_path: Path) -> None:
    noise = Image(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    assert np.array_equal(Image.of(noise.save(tmp_path / f"a{suffix}")).pixels, noise.pixels)
    assert np.array_equal(Image.from_bytes(noise.to_bytes(suffix)).pixels, noise.pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG"])
def test_jpeg_keeps_colours_at_full_resolution(suffix: str, tmp_path: Path) -> None:
    """Noise is the worst there is: the largest difference of quality 75 is over 100."""
    noise = Image(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    path = noise.save(tmp_path / f"a{suffix}")
    assert path.read_bytes() == noise.to_bytes(suffix)
    assert np.abs(Image.of(path).pixels.astype(int) - noise.pixels).max() <= 16


def test_a_format_without_room_is_refused_before_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="65501x1 cannot be written as jpg"):
        Image(np.zeros((1, 65501, 3), np.uint8)).save(tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []
