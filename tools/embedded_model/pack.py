"""Write a trained model as the folder that the engine reads.

It holds a diffusers pipeline in float16, drag settings, the model card and sample pictures.
"""

import os
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from . import networks, words
from .train import CHECKPOINT

LIMIT_BYTES = 27_000_000


def averaged(work: Path, is_open: bool = False) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Read the running averages of a work folder's checkpoint, in evaluation mode.

    The deep skips are closed unless `is_open`.
    """
    averages = torch.load(work / CHECKPOINT, weights_only=True)["average"]
    trained = networks.new_networks(len(words.tokenizer()))
    trained.unet.load_state_dict(networks.state_of("unet", averages))
    trained.text.load_state_dict(networks.state_of("text", averages))
    if not is_open:
        networks.close_deep_skips(trained.unet)
    return trained.unet.eval(), trained.text.eval()


def pipeline(work: Path, vae: AutoencoderKL, is_open: bool = False) -> StableDiffusionPipeline:
    """Return a stock pipeline in float16 around the trained networks."""
    unet, text = averaged(work, is_open)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    parts = StableDiffusionPipeline(
        vae,
        text,
        words.tokenizer(),
        unet,
        scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return parts.to(torch.float16)


def size_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def pack(
    work: Path,
    vae: AutoencoderKL,
    target: Path,
    extras: Path | None = None,
    is_open: bool = False,
) -> int:
    """Write the model folder, whole or not at all.

    Args:
        work: The work folder with the checkpoint.
        vae: The VAE to pack.
        target: The model folder; what is there is replaced.
        extras: A folder whose drag.json, MODEL_CARD.md and samples/ go in as they are; None keeps
            those of `target`.
        is_open: Leave the deep skips open.

    Returns:
        The bytes of the folder.

    Raises:
        ValueError: The folder would be larger than 27 MB.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    part.chmod(0o755)
    try:
        pipeline(work, vae, is_open).save_pretrained(part, safe_serialization=True)
        words.save_tokenizer(part / "tokenizer")
        _bring(extras if extras is not None else target, part)
        total = size_bytes(part)
        if total > LIMIT_BYTES:
            raise ValueError(f"the model folder would have {total} bytes, more than {LIMIT_BYTES}")
        _exchange(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return total


def _bring(source: Path, target: Path) -> None:
    for name in ("drag.json", "MODEL_CARD.md", "samples"):
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        elif (source / name).exists():
            shutil.copy(source / name, target / name)


def _exchange(part: Path, target: Path) -> None:
    """Put `part` in the place of `target`; the old folder goes once the new one is complete."""
    if not target.exists():
        os.replace(part, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    os.replace(target, old)
    os.replace(part, target)
    shutil.rmtree(old)
