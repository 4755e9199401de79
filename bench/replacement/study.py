"""Observe several pictures, each beside the next, and say what was found."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dragnoise.engine.config import DragConfig
from dragnoise.engine.diffusion.model import Model

from .distances import distance
from .observe import Cell, observe
from .rebuild import Rebuilt, rebuild
from .subjects import Subject

__all__ = ["Maps", "Study", "study"]

Maps = dict[str, dict[str, dict[str, list[float]]]]
"""By source, measure and block: a value for every start step."""


@dataclass(frozen=True, eq=False)
class Study:
    """The observation of several pictures.

    Attributes:
        settings: Their steps and strength.
        starts: Steps from which blocks were held, 0 the noisiest that is denoised.
        rebuilt: The pictures with nothing held.
        maps: Of every picture.
        cells: The first picture's, with what it came to be.
    """

    settings: DragConfig
    starts: tuple[int, ...]
    rebuilt: tuple[Rebuilt, ...]
    maps: tuple[Maps, ...]
    cells: tuple[Cell, ...]

    def document(self) -> dict[str, Any]:
        """Return the figures, ready for JSON.

        `maps` are means over the pictures; `drag_step` is where DragNoise drags by the model's own
        settings.
        """
        steps = self.settings.steps
        active = self.settings.active_steps
        place = self.rebuilt[0].place
        timesteps = [timestep for _, timestep in place.schedule.active(active)]
        drags = place.model.defaults.replace(steps=steps).active_steps
        return {
            "steps": steps,
            "active_steps": active,
            "starts": list(self.starts),
            "timesteps": [timesteps[start] for start in self.starts],
            "drag_step": max(0, active - drags),
            "pictures": [self._picture(number) for number in range(len(self.rebuilt))],
            "maps": _rounded(_means(self.maps)),
        }

    def other(self, number: int) -> Rebuilt:
        """Return the picture whose features are put into another: the next one."""
        return self.rebuilt[(number + 1) % len(self.rebuilt)]

    def _picture(self, number: int) -> dict[str, Any]:
        """Return what is said of one picture: `apart` is how far it is from the other one."""
        rebuilt = self.rebuilt[number]
        other = self.other(number)
        pixels = {source: by["pixels"] for source, by in self.maps[number].items()}
        return {
            "name": rebuilt.subject.name,
            "prompt": rebuilt.subject.prompt,
            "rebuilt": _rounded(asdict(distance(rebuilt.image, rebuilt.subject.image))),
            "other": other.subject.name,
            "apart": _rounded(asdict(distance(rebuilt.image, other.image))),
            "pixels": _rounded(pixels),
        }


def study(
    model: Model,
    subjects: Sequence[Subject],
    settings: DragConfig,
    starts: Sequence[int],
    sources: Sequence[str],
    *,
    watch: Callable[[str], object],
) -> Study:
    """Rebuild all pictures, and hold every block of each from every start step on.

    Args:
        model: The model.
        subjects: Pictures of one size; two or more where another's features are held.
        settings: Their steps and strength are read.
        starts: Steps to hold from, 0 the noisiest that is denoised.
        sources: What is held: names in `observe.SOURCES`.
        watch: Called with what is being done.
    """
    rebuilt = tuple(rebuild(model, subject, settings) for subject in subjects)
    others = (*rebuilt[1:], rebuilt[0])
    shown: tuple[Cell, ...] = ()
    each = []
    for one, other in zip(rebuilt, others, strict=True):
        cells = tuple(observe(one, other, starts, sources, watch))
        shown = shown or cells
        each.append(_maps(cells))
    return Study(settings, tuple(starts), rebuilt, tuple(each), shown)


def _maps(cells: Iterable[Cell]) -> Maps:
    """Sort the figures of one picture's cells."""
    maps: Maps = {}
    for cell in cells:
        by_measure = maps.setdefault(cell.source, {})
        for measure, value in cell.figures().items():
            by_measure.setdefault(measure, {}).setdefault(cell.block, []).append(value)
    return maps


def _means(each: Sequence[Maps]) -> Maps:
    """Return the means over pictures."""
    return {
        source: {
            measure: {
                block: np.mean([one[source][measure][block] for one in each], axis=0).tolist()
                for block in by_block
            }
            for measure, by_block in by_measure.items()
        }
        for source, by_measure in each[0].items()
    }


def _rounded(value: Any) -> Any:
    """Return figures with four digits, however they are nested."""
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.4g}")
