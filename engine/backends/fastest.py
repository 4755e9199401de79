"""Choose the fastest backend of every part by the clock.

Every candidate of every part is run once, timed, and the verdict is kept for this machine.
Candidates are PyTorch's backends of the device, and those that run exported parts where files for
them lie (none is made for this). All are timed at the size that the model was made for, with one
text. Only what has passed its own checks (gate, graph, plan) is a candidate.
"""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from ..cache.digest import digest, environment_digest
from ..diffusion.model import Model
from ..diffusion.parts import DOWN, FOLDED, MIDDLE, UP, VAE_DECODER
from ..diffusion.unet import FEATURE_BLOCK, Step, UNet
from ..errors import DragnoiseError
from ..system.schema import Each, Fields, MismatchError, Plain, Real, Text
from .artefacts import Artefacts
from .placement import Placement
from .registry import BACKENDS, ORDER, choose
from .verdicts import Verdicts

__all__ = ["fastest_placement"]

_log = logging.getLogger("dragnoise")

Times = dict[str, dict[str, float]]
"""Milliseconds by field of `Placement` and candidate."""

_DRAG = FOLDED.placed_by
_VAE = VAE_DECODER.placed_by
_UNET_PARTS = tuple(part.placed_by for part in (DOWN, MIDDLE, UP))
_ROUNDS = 3
_TIMESTEP = 481


def fastest_placement(
    model: Model, attention: str, artefacts: Artefacts
) -> tuple[Placement, Times]:
    """Return the fastest placement, and the times that decided: measured now, or earlier here."""
    files = sorted(
        path.name for path in artefacts.folder.glob("*") if path.suffix in (".onnx", ".plan")
    )
    key = digest(
        model.weights.digest, str(model.dtype), attention, environment_digest(model.device), files
    )
    verdicts = Verdicts(artefacts.folder / "measured")
    times = _times_in(verdicts.read(key), _candidates(model))
    if times is None:
        times = _measure(model, attention, artefacts)
        verdicts.keep(key, times)
    return _placement(times), times


def _candidates(model: Model) -> dict[str, tuple[str, ...]]:
    """Return the names that a verdict may have here, by field of `Placement`."""
    drag = tuple(name for name in _of_device(model) if not BACKENDS[name].objections(model))
    parts = (*drag, *_exporting(model))
    return {_DRAG: drag, **dict.fromkeys(_UNET_PARTS, parts), _VAE: ("eager", *_exporting(model))}


def _of_device(model: Model) -> tuple[str, ...]:
    return tuple(ORDER.get(model.device.type, ("eager",)))


def _exporting(model: Model) -> tuple[str, ...]:
    """Return the names of backends that run exported parts, and can serve."""
    return tuple(
        name
        for name, row in BACKENDS.items()
        if row.open_parts is not None and not row.objections(model)
    )


def _placement(times: Times) -> Placement:
    fastest = {
        part: min(candidates, key=lambda name: candidates[name])
        for part, candidates in times.items()
    }
    drag = fastest.pop(_DRAG)
    elsewhere = {part: name for part, name in fastest.items() if name not in (drag, "eager")}
    return Placement(drag, **elsewhere)


def _measure(model: Model, attention: str, artefacts: Artefacts) -> Times:
    """Time every candidate. All parts but the drag's are timed without gradients."""
    inputs = _inputs(model)
    times: Times = {name: {} for name in (_DRAG, *_UNET_PARTS, _VAE)}
    for name in _of_device(model):
        if not BACKENDS[name].objections(model):
            candidate = choose(model, name, attention)[0]
            times[_DRAG][name] = _ms(model, partial(_iteration, candidate, inputs))
    drag = min(times[_DRAG], key=lambda name: times[_DRAG][name])
    for name in (drag, *_exporting(model)):
        candidate = choose(model, name, attention, Artefacts(artefacts.folder))[0]
        for part, work in _work(candidate, inputs).items():
            runs_it = "eager" if part == _VAE and name == drag else name
            try:
                with torch.no_grad():
                    times[part][runs_it] = _ms(model, work)
            except DragnoiseError as missing:
                _log.info("%s is no candidate for %s: %s", name, part, missing)
    return times


def _inputs(model: Model) -> tuple[Tensor, Tensor, Step]:
    """Return pixels [1, 3, H, W], a latent [1, 4, h, w] and a step, of noise."""
    config = model.unet.config
    generator = torch.Generator().manual_seed(0)
    noise = partial(torch.randn, generator=generator, dtype=torch.float32)
    side = config["sample_size"] * model.factor
    width = config["cross_attention_dim"]
    length = model.tokenizer.model_max_length
    pixels = torch.rand(1, 3, side, side, generator=generator, dtype=torch.float32) * 2 - 1
    latent = noise(1, 4, side // model.factor, side // model.factor)
    text = noise(1, length, width)
    step = model.unet.step(_TIMESTEP, text.to(model.device))
    return pixels.to(model.device, model.vae.dtype), latent.to(model.device), step


def _work(model: Model, inputs: tuple[Tensor, Tensor, Step]) -> dict[str, Callable[[], object]]:
    """Return what is timed, by field of `Placement`."""
    pixels, latent, step = inputs
    unet = model.unet
    autoencoder = model.autoencoder
    down = UNet(unet.network).down(latent, step)  # the other parts' inputs, whoever runs them
    vae_latent = latent.to(model.vae.dtype)

    def vae() -> None:
        autoencoder.encode(pixels)
        autoencoder.decode(vae_latent)

    return {
        DOWN.placed_by: lambda: unet.down(latent, step),
        MIDDLE.placed_by: lambda: unet.middle(down),
        UP.placed_by: lambda: unet.up(down, down.bottom),
        _VAE: vae,
    }


def _iteration(model: Model, inputs: tuple[Tensor, Tensor, Step]) -> None:
    """Run forward and backward through the decoder half, as an iteration of a drag does."""
    _, latent, step = inputs
    unet = model.unet
    with torch.no_grad():
        down = unet.down(latent, step)
        start = unet.middle(down)
        folded = unet.folded(down, start)
    leaf = start.clone().requires_grad_()
    features = unet.decode(folded, leaf, FEATURE_BLOCK).features
    assert features is not None
    torch.autograd.grad(features.float().sum(), leaf)


def _ms(model: Model, work: Callable[[], object]) -> float:
    """Return the best of `_ROUNDS` runs in milliseconds, after one warm-up."""
    times = []
    for _ in range(_ROUNDS + 1):
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        started = time.perf_counter()
        work()
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        times.append((time.perf_counter() - started) * 1e3)
    return round(min(times[1:]), 4)


def _times_in(verdict: object, candidates: Mapping[str, tuple[str, ...]]) -> Times | None:
    """Return the times that were kept; None where they are not whole, or not of candidates."""
    try:
        Fields({part: Plain() for part in candidates}).check(verdict, "verdict")
        times: Times = verdict  # type: ignore[assignment]
        for part, names in candidates.items():
            own = {name: Real(low=0) for name in names if name in times[part]}
            Fields(own).check(times[part], part)
            Each(Text(), least=1).check(list(own), part)
    except (MismatchError, TypeError):
        return None
    return times
