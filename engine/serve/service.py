"""A service: one editor, its sessions, its threads, and how it ends."""

import asyncio
import importlib.metadata
from contextlib import suppress
from pathlib import Path

from ..diffusion.samples import Sample, samples
from ..editor import Editor
from ..inputs.image import Image
from ..inputs.preset import PRESETS
from .documents import Info, Limits, Model, PresetAbout, SampleAbout
from .kept import Folder
from .log import log, log_crash
from .metrics import Metrics
from .refusals import Refusal
from .settings import SERVICE_LIMITS, ServeSettings
from .table import Table
from .threads import Threads
from .work import Queue

__all__ = ["Service"]

_SWEEP_S = 3.0
"""Seconds between two looks for what has changed: at most so much is lost if the process dies."""


class Service:
    """What all requests share.

    Attributes:
        editor: That does the work.
        settings: What is allowed.
        limits: How large a picture may be.
        queue: What waits and runs.
        threads: For what blocks.
        table: The sessions.
        metrics: For Prometheus.
        samples: The pictures that ship with the model, by name.
    """

    def __init__(self, editor: Editor, settings: ServeSettings) -> None:
        self.editor = editor
        self.settings = settings
        own = editor.limits
        self.limits = own.replace(
            picture_pixels=min(own.picture_pixels, SERVICE_LIMITS.picture_pixels),
            picture_side=min(own.picture_side, SERVICE_LIMITS.picture_side),
        )
        self.queue = Queue(settings.waiting)
        self.threads = Threads(settings.waiting + settings.sessions)
        folder = Folder(settings.state, settings.keep_s) if settings.state else None
        self.table = Table(editor, settings, self.threads, folder)
        self.metrics = Metrics(lambda: len(self.table), lambda: len(self.queue))
        self.samples: dict[str, Sample] = {sample.name: sample for sample in samples()}
        self.info = self._info()
        self._sweeping: asyncio.Task[None] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether new work is taken."""
        return self._sweeping is not None and not self.queue.is_draining

    async def begin(self) -> None:
        """Begin to save and to drop sessions."""
        self._sweeping = asyncio.create_task(self._sweep())
        log("ready", model=self.info.model.name)

    async def drain(self) -> None:
        """Take nothing new, let what runs end, tell whoever is connected, and save."""
        if self.queue.is_draining:
            return
        log("draining", waiting=len(self.queue), sessions=len(self.table))
        await self.queue.drain(self.settings.drain_s)
        ending = Refusal("draining", "the service is ending; connect again")
        for held in self.table:
            if held.pointer is not None:
                await held.pointer.give_up(ending, 1012)
        await self.table.save()

    async def end(self) -> None:
        """Drain, and let the threads end."""
        await self.drain()
        if self._sweeping is not None:
            self._sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeping
        self.threads.close()
        log("ended")

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            try:
                await self.table.sweep()
            except Exception as error:  # noqa: BLE001 the next sweep may do better
                log_crash(error)

    def _info(self) -> Info:
        model = self.editor.model
        return Info(
            version=importlib.metadata.version("dragnoise"),
            model=Model(
                name=Path(model.name).name, side=model.unet.config["sample_size"] * model.factor
            ),
            presets=[PresetAbout(name=name, summary=row.summary) for name, row in PRESETS.items()],
            limits=Limits(
                body_bytes=self.settings.body_bytes,
                pixels=min(self.limits.picture_pixels, self.limits.edit_pixels),
                side=self.limits.picture_side,
            ),
            samples=[_about(sample) for sample in self.samples.values()],
            personalise=self.settings.personalise,
        )


def _about(sample: Sample) -> SampleAbout:
    image = Image.of(sample.image)
    pairs = zip(sample.points.handles, sample.points.targets, strict=True)
    return SampleAbout(
        name=sample.name,
        prompt=sample.prompt,
        width=image.width,
        height=image.height,
        drags=[(*handle, *target) for handle, target in pairs],
        mask=sample.mask is not None,
    )
