"""Read DragBench: its published folders, or the same without pickles.

    ROOT/CATEGORY/SAMPLE/original_image.png, meta_data.pkl              as published
    ROOT/CATEGORY/SAMPLE/original_image.png, sample.json, mask.png      as `convert` writes them

Only folders are looked at: what else lies among them is left alone.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragnoise.engine.errors import ConfigError, ImageError, OutputError
from dragnoise.engine.inputs.image import Image
from dragnoise.engine.inputs.mask import Mask
from dragnoise.engine.inputs.points import Points
from dragnoise.engine.system.files import unfinished_folder, write_whole
from dragnoise.engine.system.incoming import open_regular, read_json, told_as

from .unpickled import MASK, SAID, convert_pickle

__all__ = ["CATEGORIES", "ORDER", "Sample", "convert", "names_of", "read_sample"]

CATEGORIES = (
    "art_work",
    "land_scape",
    "building_city_view",
    "building_countryside_view",
    "animals",
    "human_head",
    "human_upper_body",
    "human_full_body",
    "interior_design",
    "other_objects",
)
"""In the order in which the published script takes them."""

ORDER = "order.json"
"""Of a converted folder: how the published folder's file system listed its samples."""

_PICTURE = "original_image.png"
_PICKLE = "meta_data.pkl"


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample of DragBench.

    Attributes:
        name: Its category and folder, "animals/JH_2023-09-14-1834-24".
        image: The picture.
        prompt: What it shows.
        points: The drags.
        mask: What may change.
    """

    name: str
    image: Image
    prompt: str
    points: Points
    mask: Mask

    @property
    def category(self) -> str:
        return self.name.partition("/")[0]


def names_of(root: Path, *, as_listed: bool = False) -> list[str]:
    """Return the samples' names, the categories in the published order.

    Args:
        root: DragBench's folder, published or converted.
        as_listed: Within a category as the file system lists them, which is how the published
            script takes them; else by name.

    Raises:
        ConfigError: There is no sample.
    """
    with told_as(ConfigError, f"the folder {str(root)!r} cannot be listed"):
        found = [
            f"{category.name}/{sample.name}"
            for category in _folders(root)
            for sample in _folders(Path(category.path))
            if any((Path(sample.path) / name).is_file() for name in (_PICKLE, SAID))
        ]
    if not found:
        raise ConfigError(
            f"{str(root)!r} holds no CATEGORY/SAMPLE/{_PICKLE}; give the folder that "
            "DragBench.zip unpacks to"
        )
    if as_listed:
        found = _in_order(found, _listed(root))
        return sorted(found, key=_place)
    return sorted(found, key=lambda name: (_place(name), name))


def _folders(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as listing:
        return [entry for entry in listing if entry.is_dir() and not entry.name.startswith(".")]


def _place(name: str) -> tuple[int, str]:
    """Return where a sample's category stands among all."""
    category = name.partition("/")[0]
    known = category in CATEGORIES
    return (CATEGORIES.index(category), "") if known else (len(CATEGORIES), category)


def _listed(root: Path) -> list[str]:
    """Return the order that a converted folder remembers; none of a published one."""
    if not (root / ORDER).exists():
        return []
    order = read_json(root / ORDER, ConfigError)
    if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
        raise ConfigError(f"{str(root / ORDER)!r} is no list of samples; convert them again")
    return order


def _in_order(names: Iterable[str], order: Sequence[str]) -> list[str]:
    places = {name: place for place, name in enumerate(order)}
    return sorted(names, key=lambda name: places.get(name, len(places)))


def read_sample(root: Path, name: str, converted: Path) -> Sample:
    """Return a sample; one that is published is converted first.

    Args:
        root: DragBench's folder, published or converted.
        name: One of `names_of`.
        converted: The folder that holds what was converted, or will.

    Raises:
        ImageError: It cannot be read.
        PointError: Its points are none, or lie outside the picture.
        MaskError: Its mask is none of this picture's.
    """
    folder = root / name
    if not (folder / SAID).is_file():
        folder = convert(root, name, converted)
    said = _said(read_json(folder / SAID, ImageError), name)
    image = Image.of(folder / _PICTURE)
    points = Points.of(said["points"])
    points.check_inside(image.width, image.height)
    mask = Mask.of(folder / MASK, image.width, image.height)
    return Sample(name, image, said["prompt"], points, mask)


def _said(said: Any, name: str) -> dict[str, Any]:
    """Return what a converted sample says, if it is what a sample says."""
    if (
        isinstance(said, dict)
        and isinstance(said.get("prompt"), str)
        and isinstance(said.get("points"), list)
    ):
        return said
    raise ImageError(f"{SAID} of the sample {name!r} has no prompt and points; convert it again")


def convert(root: Path, name: str, converted: Path) -> Path:
    """Write a published sample without its pickle, unless it is there; return its folder.

    Args:
        root: DragBench's published folder.
        name: One of `names_of`.
        converted: The folder that gets it, laid out likewise.

    Raises:
        ImageError: It cannot be read.
        OutputError: It cannot be written.
    """
    target = converted / name
    if (target / SAID).is_file():
        return target
    with unfinished_folder(target.parent) as own:
        part = own / "sample"
        part.mkdir()
        convert_pickle(root / name / _PICKLE, part, name)
        with (
            open_regular(root / name / _PICTURE, ImageError) as picture,
            told_as(OutputError, f"{str(target)!r} could not be written"),
        ):
            with (part / _PICTURE).open("wb") as copy:
                shutil.copyfileobj(picture, copy)
            _move(part, target)
    return target


def _move(part: Path, target: Path) -> None:
    """Rename a folder that is whole; another process may have been faster."""
    with contextlib.suppress(FileExistsError):
        try:
            part.rename(target)
        except OSError:
            if not (target / SAID).is_file():
                raise


def write_order(root: Path, converted: Path) -> None:
    """Write in which order the published script would take the samples."""
    order = names_of(root, as_listed=True)
    text = json.dumps(order, indent=1) + "\n"
    write_whole(converted / ORDER, lambda path: path.write_text(text, encoding="utf-8"))
