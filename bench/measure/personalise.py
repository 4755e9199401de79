"""Learning a picture: our training beside a plain loop of diffusers and PEFT, step by step in turns; and what an adapter is good for.

The plain loop does what the published code does at every step: it encodes the batch of pictures, adds noise, runs diffusers' network with PEFT's
layers, and updates every matrix with AdamW. Frozen weights are frozen there too, attention is fused, and all is float32.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch
import torch.nn.functional as F

from dragnoise.engine import Editor, Image, PersonaliseConfig, stages
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.inputs.frame import Frame
from dragnoise.engine.training.lora import LoraTraining

from ..report.record import number
from .timing import Spread, clock_ms, peak_bytes, ratio, reset_peak

__all__ = ["fidelity", "fidelity_table", "measure", "training_table", "unknown_pictures"]


def measure(
    model: Model,
    image: Image,
    config: PersonaliseConfig,
    rounds: int,
    *,
    watch: Callable[[str], object],
) -> dict[str, Any]:
    """Milliseconds of a step of both, in alternating rounds; the first of each is not counted. What is done once is counted beside."""
    from peft import LoraConfig

    editor = Editor(model)
    pixels = Frame.of(image, model.factor).pixels(image).to(model.device)
    with torch.no_grad():
        text = stages.embed(editor.model, "")
    prepared: list[LoraTraining] = []

    def prepare() -> None:
        latent = stages.encode(editor.model, pixels)
        prepared.append(LoraTraining(editor.model, latent, text, config))

    once_ms = clock_ms(prepare, model.device)
    network = copy.deepcopy(model.unet.network).float().requires_grad_(False)
    vae = copy.deepcopy(model.vae).float()
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    network.add_adapter(
        LoraConfig(
            r=config.rank,
            lora_alpha=config.rank,
            target_modules=targets,
            init_lora_weights="gaussian",
        )
    )
    adam = torch.optim.AdamW(
        [w for w in network.parameters() if w.requires_grad], lr=config.lr, weight_decay=1e-2
    )
    alphas = model.schedule(1).alphas.to(model.device)
    batch, texts = pixels.repeat(config.batch, 1, 1, 1), text.float().repeat(config.batch, 1, 1)

    def plain() -> None:
        with torch.no_grad():
            latent = vae.encode(batch).latent_dist.sample() * vae.config["scaling_factor"]
        noise = torch.randn_like(latent)
        timesteps = torch.randint(0, 1000, (config.batch,), device=latent.device)
        a = alphas[timesteps][:, None, None, None]
        noisy = a.sqrt() * latent + (1 - a).sqrt() * noise
        loss = F.mse_loss(network(noisy, timesteps, encoder_hidden_states=texts).sample, noise)
        loss.backward()
        adam.step()
        adam.zero_grad()

    ours_ms, plain_ms = [], []
    reset_peak(model.device)
    for number_ in range(rounds + 1):
        watch(f"round {number_} of {rounds}")
        ours_ms.append(clock_ms(prepared[0].advance, model.device))
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


def training_table(found: dict[str, Any]) -> list[list[str]]:
    """A header first: a step, and all steps."""
    whole = (found["once_ms"] + found["steps"] * found["ours_ms"]["median"]) / 1e3
    plain = found["steps"] * found["plain_ms"]["median"] / 1e3
    spread = found["ratio"]
    return [
        ["training", "step ms", f"{found['steps']} steps s (computed)", "ratio"],
        ["diffusers and PEFT", number(found["plain_ms"]["median"]), number(plain), "1.00"],
        [
            "ours",
            number(found["ours_ms"]["median"]),
            number(whole),
            f"{spread['median']:.2f} ({spread['low']:.2f} to {spread['high']:.2f})",
        ],
    ]


def unknown_pictures(side: int) -> Iterator[tuple[str, str, Image]]:
    """(name, prompt, picture) of kinds that the embedded model was not trained on."""
    across, down = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    checks = ((across * 8).astype(int) + (down * 8).astype(int)) % 2
    yield (
        "checks",
        "a chessboard",
        Image(
            np.stack([60 + 150 * checks, 80 + 90 * checks, 120 - 60 * checks], 2).astype(np.uint8)
        ),
    )
    waves = 0.5 + 0.5 * np.sin(18 * across + 6 * np.sin(7 * down))
    yield (
        "waves",
        "waves of cloth",
        Image(np.stack([200 * waves, 90 + 60 * waves, 160 * (1 - waves) + 40], 2).astype(np.uint8)),
    )
    drawn = PIL.Image.new("RGB", (4 * side, 4 * side), (225, 220, 205))
    pen = PIL.ImageDraw.Draw(drawn)
    for number_, colour in enumerate([(190, 40, 40), (40, 110, 60), (40, 60, 150), (230, 170, 30)]):
        x, y = (number_ % 2) * 2 * side, (number_ // 2) * 2 * side
        pen.ellipse(
            (x + side // 4, y + side // 4, x + 7 * side // 4, y + 7 * side // 4), fill=colour
        )
        pen.rectangle(
            (x + 3 * side // 4, y + 3 * side // 4, x + 5 * side // 4, y + 5 * side // 4),
            fill=(240, 240, 240),
        )
    yield (
        "rings",
        "four coloured rings",
        Image(np.asarray(drawn.resize((side, side), PIL.Image.Resampling.LANCZOS))),
    )
    face = PIL.Image.new("RGB", (4 * side, 4 * side), (90, 130, 170))
    pen = PIL.ImageDraw.Draw(face)
    pen.ellipse((side, side // 2, 3 * side, 7 * side // 2), fill=(235, 190, 150))
    for eye in (3 * side // 2, 5 * side // 2):
        pen.ellipse(
            (eye - side // 5, 3 * side // 2, eye + side // 5, 19 * side // 10), fill=(30, 30, 40)
        )
    pen.arc(
        (3 * side // 2, 2 * side, 5 * side // 2, 3 * side),
        20,
        160,
        fill=(150, 40, 50),
        width=side // 8,
    )
    yield (
        "face",
        "a face",
        Image(np.asarray(face.resize((side, side), PIL.Image.Resampling.LANCZOS))),
    )


def fidelity(
    model: Model,
    config: PersonaliseConfig,
    *,
    watch: Callable[[str], object],
    sheet: Path | None = None,
) -> list[dict[str, Any]]:
    """What is lost without a drag (inverted and denoised again), and outside the mask of a drag, in dB of PSNR, without and with an adapter."""
    editor = Editor(model)
    side = model.unet.network.config["sample_size"] * model.factor
    free = np.zeros((side, side), np.bool_)
    free[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = True
    points = [((side // 2, side // 2), (side // 2 + side // 8, side // 2))]
    found, rows = [], []
    for name, prompt, picture in unknown_pictures(side):
        watch(name)
        session, shown = editor.open(picture, prompt=prompt), [picture]
        kept: dict[str, Any] = {"picture": name}
        for which in ("without", "with"):
            if which == "with":
                session.personalise(config)
            still = session.drag(points, config=editor.defaults.replace(iterations=0))
            dragged = session.drag(points, mask=free)
            shown += [still.image, dragged.image]
            kept[which] = {
                "rebuilt_db": _psnr(picture, still.image, np.ones_like(free)),
                "outside_db": _psnr(picture, dragged.image, ~free),
                "reached": dragged.reached,
            }
        found.append(kept)
        rows.append(np.concatenate([one.pixels for one in shown], axis=1))
    if sheet is not None:
        PIL.Image.fromarray(np.concatenate(rows)).save(sheet)
    return found


def fidelity_table(found: Sequence[dict[str, Any]]) -> list[list[str]]:
    header = ["picture", "rebuilt dB", "with adapter", "outside the mask dB", "with adapter"]
    rows = [
        [
            one["picture"],
            *(
                f"{one[which][what]:.1f}"
                for what in ("rebuilt_db", "outside_db")
                for which in ("without", "with")
            ),
        ]
        for one in found
    ]
    return [header, *rows]


def _psnr(one: Image, other: Image, where: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    error = (one.pixels[where].astype(float) - other.pixels[where]) ** 2
    return round(float(10 * np.log10(255**2 / max(float(error.mean()), 1e-9))), 2)
