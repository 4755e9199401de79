"""Read how a model was trained from its scheduler's configuration."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler

from ...errors import ModelError
from ...system.incoming import told_as
from .schema import SCHEDULER, checked, read_settings

__all__ = ["noise_of", "read_scheduler"]


def read_scheduler(folder: Path) -> DDIMScheduler:
    """Return DDIM with the noise schedule that a folder's scheduler was trained with.

    Raises:
        ModelError: For a configuration that cannot be read, or of a model that DDIM cannot invert.
    """
    file = folder / "scheduler_config.json"
    return _trained_with(read_settings(file, SCHEDULER), str(file))


def noise_of(scheduler: Any, where: str) -> DDIMScheduler:
    """Return DDIM with the noise schedule of a pipeline's scheduler.

    Raises:
        ModelError: For one that DDIM cannot take the place of.
    """
    config = dict(scheduler.config)
    betas = config.get("trained_betas")
    names = [kind.__name__ for kind in type(scheduler).__mro__]
    known = next(filter(SCHEDULER["_class_name"].holds, names), names[0])
    said = config | {
        "_class_name": known,
        "trained_betas": None if betas is None else [float(beta) for beta in betas],
    }
    return _trained_with(checked(said, SCHEDULER, f"{where}'s scheduler"), where)


def _trained_with(settings: Mapping[str, Any], where: str) -> DDIMScheduler:
    fields = inspect.signature(DDIMScheduler.__init__).parameters
    betas = settings.get("trained_betas")
    trained = settings.get("num_train_timesteps", fields["num_train_timesteps"].default)
    if betas is not None and len(betas) != trained:
        raise ModelError(
            f"{where!r} has {len(betas)} trained_betas for {trained} num_train_timesteps; give one "
            "for each"
        )
    with told_as(ModelError, f"{where!r} could not be loaded"):
        return DDIMScheduler(**{name: settings[name] for name in settings if name in fields})
