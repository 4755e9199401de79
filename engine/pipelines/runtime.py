"""The model, the worker and the store that all edits of one editor share."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch

from ..backends import Choice
from ..cache import Store
from ..config import LIMITS, PictureLimits, Settings
from ..diffusion.lora.adapter import AdapterUse
from ..diffusion.lora.merge import Adapters
from ..diffusion.model import Model
from ..drag.loop import LoopCache
from ..drag.method import AnyMethod
from ..errors import ForkError
from ..gan.folder import load_generator
from ..gan.model import GeneratorModel
from ..run import StageCache
from ..system.timers import Observer
from ..system.worker import Job, Worker

__all__ = ["Runtime"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Runtime:
    """The model, what runs it, and the worker that owns its device.

    Attributes:
        model: The model, as the chosen backends run it.
        running: What was chosen, and why nothing else.
        poll_every: Iterations between two reads of a drag's stop condition.
        observers: Entered around every stage that really runs.
        store: Where stages' results are kept for other sessions; None: nowhere.
        adapters: Which adapter is merged into the weights now.
        worker: Does all work on the device, one job at a time.
        preview_vae: A small decoder for previews; None: the model's own.
        limits: How large a picture may be.
        check_pictures: Whether a picture that the model does not know is said.
        load_generator: Loads the generator of methods that edit with one.
        loops: The last drags' loops, for drags that are like them.
    """

    model: Model
    running: Choice
    poll_every: int
    observers: tuple[Observer, ...]
    store: Store | None
    adapters: Adapters
    worker: Worker
    preview_vae: Any = None
    limits: PictureLimits = LIMITS
    check_pictures: bool = True
    load_generator: Callable[[], GeneratorModel] = load_generator
    loops: LoopCache = field(default_factory=LoopCache)
    _process: int = field(default_factory=os.getpid)

    def submit(
        self,
        work: Callable[[Job[T]], T],
        use: AdapterUse,
        *,
        what: str,
        priority: int = 0,
        timeout_s: float | None = None,
        since_s: float | None = None,
        nested: bool = True,
    ) -> Job[T]:
        """Hand work on the device to the worker, to be done with that adapter merged.

        Args:
            work, what, priority, timeout_s, since_s, nested: See `Worker.submit`.
            use: The adapter, or none.

        Raises:
            ForkError: The process was forked, and the model is on a GPU or was at work.
        """
        if self.model.device.type == "cuda" and self._process != os.getpid():
            raise ForkError(
                "the model is on a GPU, which a forked process cannot use; start processes by "
                '"spawn" (multiprocessing.get_context) and load the model in each'
            )

        def adapted(job: Job[T]) -> T:
            with self.adapters.active(use):
                return work(job)

        return self.worker.submit(
            adapted,
            what=what,
            priority=priority,
            timeout_s=timeout_s,
            since_s=since_s,
            nested=nested,
        )

    @cached_property
    def generator(self) -> GeneratorModel:
        """The generator, loaded when it is first wanted."""
        return self.load_generator()

    def defaults(self, method: AnyMethod, config: Settings) -> Settings:
        """Return the settings of a session's drags with a method that bring none.

        The session's own, unless the method edits with another model, which has its own.
        """
        model = method.pipeline.model(self)
        if model is self.model or isinstance(config, method.settings):
            return config
        own: Settings = model.defaults
        return own

    def cache(self, tenant: str = "") -> StageCache:
        """Return a new session's memory, with the store behind it; tenant: whose it is."""
        return StageCache(self.store, self.model.device, tenant)

    def settings(self, method: str, config: Settings, **more: object) -> dict[str, Any]:
        """Return what an edit ran with, by name."""
        model = self.model
        return {
            "method": method,
            "model": model.name,
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "config": config,
            **more,
            **self.running.to_dict(),
        }

    def numbers(self) -> Mapping[str, Any]:
        """Return the store's numbers; empty without one."""
        return {} if self.store is None else self.store.to_dict()
