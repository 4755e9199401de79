"""Measure how a picture is learned: our training beside a plain loop of diffusers and PEFT.

Steps of the two alternate. The plain loop does what the published code does at every step: it
encodes the batch of pictures, adds noise, runs diffusers' network with PEFT's layers, and updates
every matrix with AdamW. Frozen weights are frozen there too, attention is fused, and all is
float32. `fidelity` measures what an adapter is good for.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
import torch.nn.functional as F
from torch import Tensor

from dragnoise.engine import Editor, Image, PersonaliseConfig, stages
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.inputs.frame import Frame
from dragnoise.engine.session.session import Session
from dragnoise.engine.training.lora import LoraTraining

from ..report.record import number
from .pictures import unknown_pictures
from .timing import Spread, clock_ms, peak_bytes, ratio, reset_peak

__all__ = ["Fidelity", "fidelity", "fidelity_table", "measure", "training_table"]


def measure(
    model: Model,
    image: Image,
    config: PersonaliseConfig,
    rounds: int,
    *,
    watch: Callable[[str], object],
) -> dict[str, Any]:
    """Time a step of both loops in alternating rounds; the first round does not count.

    Args:
        model: The model.
        image: The picture to learn.
        config: The settings of both loops.
        rounds: How many rounds count.
        watch: Called before every round.

    Returns:
        The figures, as the record holds them; `once_ms` is what is done once.
    """
    editor = Editor(model, check_pictures=False)
    pixels = Frame.of(image, model.factor).pixels(image).to(model.device)
    with torch.no_grad():
        text = stages.embed(editor.model, "")
    trainings: list[LoraTraining] = []

    def prepare() -> None:
        latent = stages.encode(editor.model, pixels)
        trainings.append(LoraTraining(editor.model, latent, text, config))

    once_ms = clock_ms(prepare, model.device)
    plain = _plain_loop(model, pixels, text, config)
    ours_ms = []
    plain_ms = []
    reset_peak(model.device)
    for round_number in range(rounds + 1):
        watch(f"round {round_number} of {rounds}")
        ours_ms.append(clock_ms(trainings[0].advance, model.device))
        plain_ms.append(clock_ms(plain, model.device))
    return {
        "once_ms": once_ms,
        "ours_ms": Spread.of(ours_ms[1:]).to_dict(),
        "plain_ms": Spread.of(plain_ms[1:]).to_dict(),
        "ratio": ratio(plain_ms[1:], ours_ms[1:]).to_dict(),
        "steps": config.steps,
        "batch": config.batch,
        "rank": config.rank,
        "peak_bytes": dict(peak_bytes(model.device)),
    }


def _plain_loop(
    model: Model, pixels: Tensor, text: Tensor, config: PersonaliseConfig
) -> Callable[[], None]:
    """Return a step of the plain loop."""
    network = _with_peft(model, config)
    vae = copy.deepcopy(model.vae).float()
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    adam = torch.optim.AdamW(weights, lr=config.lr, weight_decay=1e-2)
    alphas = model.schedule(1).alphas.to(model.device)
    batch = pixels.repeat(config.batch, 1, 1, 1)
    texts = text.float().repeat(config.batch, 1, 1)

    def plain() -> None:
        with torch.no_grad():
            latent = vae.encode(batch).latent_dist.sample() * vae.config["scaling_factor"]
        noise = torch.randn_like(latent)
        timesteps = torch.randint(0, 1000, (config.batch,), device=latent.device)
        alpha = alphas[timesteps][:, None, None, None]
        noisy = alpha.sqrt() * latent + (1 - alpha).sqrt() * noise
        loss = F.mse_loss(network(noisy, timesteps, encoder_hidden_states=texts).sample, noise)
        loss.backward()
        adam.step()
        adam.zero_grad()

    return plain


def _with_peft(model: Model, config: PersonaliseConfig) -> Any:
    """Return a copy of the U-Net in float32, frozen but for PEFT's matrices."""
    from peft import LoraConfig

    network = copy.deepcopy(model.unet.network).float().requires_grad_(False)
    network.add_adapter(
        LoraConfig(
            r=config.rank,
            lora_alpha=config.rank,
            target_modules=["to_q", "to_k", "to_v", "to_out.0"],
            init_lora_weights="gaussian",
        )
    )
    return network


def training_table(training: Mapping[str, Any]) -> list[list[str]]:
    """Format the times of a step and of all steps, a header first."""
    steps = training["steps"]
    ours_ms = training["ours_ms"]["median"]
    plain_ms = training["plain_ms"]["median"]
    ours_s = (training["once_ms"] + steps * ours_ms) / 1e3
    spread = training["ratio"]
    times = f"{spread['median']:.2f} ({spread['low']:.2f} to {spread['high']:.2f})"
    return [
        ["training", "step ms", f"{steps} steps s (computed)", "ratio"],
        ["diffusers and PEFT", number(plain_ms), number(steps * plain_ms / 1e3), "1.00"],
        ["ours", number(ours_ms), number(ours_s), times],
    ]


class _Losses(TypedDict):
    """A measure of what an edit loses.

    Attributes:
        rebuilt_db: PSNR of the picture inverted and denoised again without a drag.
        outside_db: PSNR outside the mask of a drag.
        reached: Whether the drag's handles arrived.
    """

    rebuilt_db: float
    outside_db: float
    reached: bool


Fidelity = TypedDict("Fidelity", {"picture": str, "without": _Losses, "with": _Losses})
"""What edits of a picture lose without and with an adapter, as the record holds it."""


def fidelity(
    model: Model,
    config: PersonaliseConfig,
    *,
    watch: Callable[[str], object],
    sheet: Path | None = None,
) -> list[Fidelity]:
    """Measure what edits of unknown pictures lose without and with an adapter.

    Args:
        model: The model.
        config: How the adapter is trained.
        watch: Called before every picture.
        sheet: A PNG of all pictures to write: source, rebuilt and dragged without, and with.
    """
    editor = Editor(model, check_pictures=False)
    side = model.unet.network.config["sample_size"] * model.factor
    rows: list[Fidelity] = []
    strips = []
    for name, prompt, picture in unknown_pictures(side):
        watch(name)
        session = editor.open(picture, prompt=prompt)
        without, shown = _losses(editor, session, picture)
        session.personalise(config)
        with_adapter, shown_with = _losses(editor, session, picture)
        rows.append({"picture": name, "without": without, "with": with_adapter})
        strips.append([picture, *shown, *shown_with])
    if sheet is not None:
        lines = [np.concatenate([image.pixels for image in strip], axis=1) for strip in strips]
        PIL.Image.fromarray(np.concatenate(lines)).save(sheet)
    return rows


def _losses(editor: Editor, session: Session, picture: Image) -> tuple[_Losses, list[Image]]:
    """Rebuild a picture and drag on it; return the losses and the two pictures."""
    side = picture.width
    middle = side // 2
    free = np.zeros((side, side), np.bool_)
    free[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = True
    points = [((middle, middle), (middle + side // 8, middle))]
    still = session.drag(points, config=editor.defaults.replace(iterations=0))
    dragged = session.drag(points, mask=free)
    losses: _Losses = {
        "rebuilt_db": _psnr(picture, still.image, np.ones_like(free)),
        "outside_db": _psnr(picture, dragged.image, ~free),
        "reached": dragged.reached,
    }
    return losses, [still.image, dragged.image]


def fidelity_table(rows: Sequence[Fidelity]) -> list[list[str]]:
    """Format what edits lose, a header first."""
    header = ["picture", "rebuilt dB", "with adapter", "outside the mask dB", "with adapter"]
    table = [header]
    for row in rows:
        without = row["without"]
        adapted = row["with"]
        figures = (
            without["rebuilt_db"],
            adapted["rebuilt_db"],
            without["outside_db"],
            adapted["outside_db"],
        )
        table.append([row["picture"], *(f"{value:.1f}" for value in figures)])
    return table


def _psnr(one: Image, other: Image, where: npt.NDArray[np.bool_]) -> float:
    """Return the peak signal-to-noise ratio in dB of the pixels `where`."""
    error = (one.pixels[where].astype(float) - other.pixels[where]) ** 2
    return round(float(10 * np.log10(255**2 / max(float(error.mean()), 1e-9))), 2)
