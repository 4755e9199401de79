"""What all edits of one editor share: the model and what runs it, who watches, what is kept."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ..backends import Choice
from ..cache import Store
from ..config import DragConfig
from ..diffusion.lora.adapter import AdapterUse
from ..diffusion.lora.merge import Adapters
from ..diffusion.model import Model
from ..run import StageCache
from ..stages import KEPT
from ..system.timers import Observer

__all__ = ["Runtime"]


@dataclass(frozen=True, eq=False)
class Runtime:
    """poll_every: how often a drag reads its stop condition. alone: entered around all work on the device. store: where stages' results
    are kept. preview_vae: what decodes previews, the model's own where it is None."""

    model: Model
    running: Choice
    poll_every: int
    observers: tuple[Observer, ...]
    alone: AbstractContextManager[Any]
    store: Store | None
    adapters: Adapters
    preview_vae: Any = None

    @contextmanager
    def working(self, used: AdapterUse) -> Iterator[None]:
        """Around all work on the device: alone where that must be, with that adapter merged."""
        with self.alone, self.adapters.active(used):
            yield

    def keeper(self) -> StageCache | None:
        """For one source: it knows the values that are made of it."""
        return None if self.store is None else StageCache(self.store, KEPT, self.model.device)

    def settings(self, method: str, config: DragConfig, **more: Any) -> dict[str, Any]:
        """What an edit ran with."""
        model = self.model
        return (
            {
                "method": method,
                "model": model.name,
                "device": str(model.device),
                "dtype": str(model.dtype).removeprefix("torch."),
                "threads": torch.get_num_threads(),
                "config": config,
            }
            | more
            | self.running.to_dict()
        )

    def numbers(self) -> Mapping[str, Any]:
        """Of the store; empty without one."""
        return {} if self.store is None else self.store.to_dict()
