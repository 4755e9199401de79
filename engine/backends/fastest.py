"""Who runs which part, chosen by the clock: every candidate of every part is run once, timed, and the verdict is kept for this machine.

Candidates are PyTorch's backends of the device, and those that run exported parts where files for them lie (none is made for this). All are timed at
the size that the model was made for, one text; a part goes to the fastest. Only what has passed its own checks (gate, graph, plan) is a candidate.
"""

import json
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..cache.digest import digest, environment_digest
from ..diffusion.model import Model
from ..diffusion.unet import Step, UNet
from ..errors import DragnoiseError
from ..system.files import write_whole
from .artefacts import Artefacts
from .choose import BACKENDS, ORDER, choose
from .placement import Placement

__all__ = ["fastest_placement"]

_log = logging.getLogger("dragnoise")

Times = dict[str, dict[str, float]]
_ROUNDS, _TIMESTEP, _FEATURE_BLOCK = 3, 481, 2


def fastest_placement(
    model: Model, attention: str, artefacts: Artefacts
) -> tuple[Placement, Times]:
    """The fastest placement, and milliseconds by part and candidate: measured now, or as they were on this machine."""
    names = sorted(
        path.name for path in artefacts.folder.glob("*") if path.suffix in (".onnx", ".plan")
    )
    key = digest(
        model.read().digest, str(model.dtype), attention, environment_digest(model.device), names
    )
    kept = artefacts.folder / "measured" / f"{key}.json"
    times = _read(kept)
    if times is None:
        times = _measured(model, attention, artefacts)
        _keep(kept, times)
    fastest = {part: min(found, key=lambda name: found[name]) for part, found in times.items()}
    drag = fastest.pop("drag")
    return Placement(
        drag, **{part: None if name in (drag, "eager") else name for part, name in fastest.items()}
    ), times


def _measured(model: Model, attention: str, artefacts: Artefacts) -> Times:
    """Exported parts are asked for no gradient; PyTorch's are timed without one too."""
    drags = [
        name
        for name in ORDER.get(model.device.type, ("eager",))
        if not BACKENDS[name].objections(model)
    ]
    inputs = _inputs(model)
    times: Times = {"drag": {}, "down": {}, "middle": {}, "up": {}, "vae": {}}
    for name in drags:
        times["drag"][name] = _ms(
            model, partial(_iteration, choose(model, name, attention)[0], inputs)
        )
    drag = min(times["drag"], key=lambda name: times["drag"][name])
    served = [
        name
        for name, row in BACKENDS.items()
        if row.serve is not None and not row.objections(model)
    ]
    for name in (drag, *served):
        there = choose(model, name, attention, Artefacts(artefacts.folder))[0]
        for part, work in _work(there, inputs).items():
            try:
                with torch.no_grad():
                    times[part]["eager" if part == "vae" and name == drag else name] = _ms(
                        model, work
                    )
            except DragnoiseError as missing:
                _log.info("%s is no candidate for %s: %s", name, part, missing)
    return times


def _inputs(model: Model) -> tuple[Tensor, Tensor, Step]:
    """Pixels, latent and what the network is told."""
    network, generator = model.unet.network, torch.Generator().manual_seed(0)
    side = network.config["sample_size"] * model.factor
    width, length = network.config["cross_attention_dim"], model.tokenizer.model_max_length
    pixels = torch.rand(1, 3, side, side, generator=generator) * 2 - 1
    latent = torch.randn(1, 4, side // model.factor, side // model.factor, generator=generator)
    text = torch.randn(1, length, width, generator=generator)
    step = model.unet.step(_TIMESTEP, text.to(model.device))
    return pixels.to(model.device, model.vae.dtype), latent.to(model.device), step


def _work(model: Model, inputs: tuple[Tensor, Tensor, Step]) -> dict[str, Callable[[], object]]:
    pixels, latent, step = inputs
    unet, halves = model.unet, model.autoencoder
    down = UNet(unet.network).down(
        latent, step
    )  # what the other parts are given, whoever runs them
    bottleneck, vae_latent = down.bottom, latent.to(model.vae.dtype)

    def vae() -> None:
        halves.encode(pixels)
        halves.decode(vae_latent)

    return {
        "down": lambda: unet.down(latent, step),
        "middle": lambda: unet.middle(down),
        "up": lambda: unet.up(down, bottleneck),
        "vae": vae,
    }


def _iteration(model: Model, inputs: tuple[Tensor, Tensor, Step]) -> None:
    """A forward and backward pass through the decoder half, as a drag makes them."""
    _, latent, step = inputs
    unet = model.unet
    with torch.no_grad():
        down = unet.down(latent, step)
        folded, start = unet.folded(down), unet.middle(down)
    leaf = start.clone().requires_grad_()
    features = unet.decode(folded, leaf, _FEATURE_BLOCK).features
    assert features is not None
    torch.autograd.grad(features.float().sum(), leaf)


def _ms(model: Model, work: Callable[[], object]) -> float:
    """The least of a few, after one that is not counted."""
    found = []
    for _ in range(_ROUNDS + 1):
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        started = time.perf_counter()
        work()
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        found.append((time.perf_counter() - started) * 1e3)
    return round(min(found[1:]), 4)


def _keep(path: Path, times: Times) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(
            path, lambda part: part.write_text(json.dumps(times, indent=1), encoding="utf-8")
        )
    except (OSError, DragnoiseError) as refused:
        _log.warning(
            "what was measured is not kept (%s): it will be measured again next time", refused
        )


def _read(path: Path) -> Times | None:
    """What was kept; None where there is none to be read."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        sound = set(kept) == {"drag", "down", "middle", "up", "vae"} and all(
            found and all(isinstance(ms, float) for ms in found.values()) for found in kept.values()
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return kept if sound else None
