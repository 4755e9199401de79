"""Stable Diffusion 2.x in small: its structure, random weights, the golden model's tokenizer."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from golden_cases import MODEL


def sd2(folder: Path, prediction: str = "v_prediction") -> Path:
    """Write a small model of the 2.x family to a folder.

    It differs from 1.x in its linear projections, its heads by level, its text encoder's activation
    and the prediction of v.
    """
    torch.manual_seed(2)
    unet = UNet2DConditionModel.load_config(MODEL / "unet") | {
        "use_linear_projection": True,
        "attention_head_dim": [1, 2, 3, 4],
        "cross_attention_dim": 40,
        "upcast_attention": True,
    }
    text = json.loads((MODEL / "text_encoder" / "config.json").read_text())
    text |= {
        "hidden_act": "gelu",
        "hidden_size": 40,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
    }
    scheduler = DDIMScheduler.load_config(MODEL / "scheduler") | {"prediction_type": prediction}
    UNet2DConditionModel.from_config(unet).save_pretrained(folder / "unet")
    AutoencoderKL.from_config(AutoencoderKL.load_config(MODEL / "vae")).save_pretrained(
        folder / "vae"
    )
    CLIPTextModel(CLIPTextConfig(**text)).save_pretrained(folder / "text_encoder")
    DDIMScheduler.from_config(scheduler).save_pretrained(folder / "scheduler")
    shutil.copytree(MODEL / "tokenizer", folder / "tokenizer")
    return folder
