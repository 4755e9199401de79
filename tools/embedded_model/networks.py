"""The embedded model's networks: Stable Diffusion's classes and block types, small; new, or read from a model folder."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from . import words

CHANNELS = (48, 96, 160, 192)
WIDTH = 128
OPEN_SKIPS = 2  # those at the latent's resolution: they reach only the last up block, after the supervision features


@dataclass(frozen=True, eq=False)
class Networks:
    """What is trained, and the head that reads a clean latent from the supervision features while it is."""

    unet: UNet2DConditionModel
    text: CLIPTextModel
    head: nn.Conv2d

    def weights(self) -> list[nn.Parameter]:
        return [*self.unet.parameters(), *self.text.parameters(), *self.head.parameters()]


def new_networks(vocabulary: int) -> Networks:
    unet = UNet2DConditionModel(
        sample_size=32, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=(1, 1, 2, 2), norm_num_groups=16,
    )  # fmt: skip
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=words.LENGTH, projection_dim=WIDTH, bos_token_id=0, eos_token_id=1, pad_token_id=1, attention_dropout=0.0,
    ))  # fmt: skip
    for part in unet.modules():
        if isinstance(part, (ResnetBlock2D, Transformer2DModel)):
            _silence(part.conv2 if isinstance(part, ResnetBlock2D) else part.proj_out)
    _silence(unet.conv_out)
    mask_deep_skips(unet)
    return Networks(unet, text, nn.Conv2d(CHANNELS[1], 4, 1))


def _silence(layer: nn.Module) -> None:
    for weight in layer.parameters():
        nn.init.zeros_(weight)


def warm_start(networks: Networks, folder: Path) -> None:
    """Copy the U-Net of a model folder, and its text encoder with the rows of the words that both know."""
    networks.unet.load_state_dict(
        UNet2DConditionModel.from_pretrained(
            folder, subfolder="unet", torch_dtype=torch.float32
        ).state_dict()
    )
    theirs = CLIPTextModel.from_pretrained(
        folder, subfolder="text_encoder", torch_dtype=torch.float32
    ).state_dict()
    known = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer").get_vocab()
    name = next(key for key in theirs if key.endswith("token_embedding.weight"))
    rows = networks.text.state_dict()[name].clone()
    for entry, number in words.tokenizer().get_vocab().items():
        if entry in known:
            rows[number] = theirs[name][known[entry]]
    networks.text.load_state_dict(theirs | {name: rows})


@torch.no_grad()
def mask_deep_skips(unet: UNet2DConditionModel) -> None:
    """Zero the weights that read a skip below the top level: what is in the picture then has to pass the bottleneck."""
    for weight, first in _deep_skip_columns(unet):
        weight[:, first:].zero_()


def _deep_skip_columns(unet: UNet2DConditionModel) -> list[tuple[Tensor, int]]:
    """Each weight that reads a deep skip, and the first column that does."""
    sizes = [CHANNELS[0], CHANNELS[0]] + [size for c in itertools.pairwise(CHANNELS) for size in c]
    found = []
    for resnet in (resnet for block in unet.up_blocks for resnet in block.resnets):
        size = sizes.pop()
        if len(sizes) >= OPEN_SKIPS:
            readers = [resnet.conv1] + (
                [resnet.conv_shortcut] if resnet.conv_shortcut is not None else []
            )
            found += [(reader.weight, reader.weight.shape[1] - size) for reader in readers]
    return found


def alphas_cumprod() -> Tensor:
    return torch.cumprod(
        1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0
    ).float()


def down(
    unet: UNet2DConditionModel, latents: Tensor, times: Tensor, text: Tensor
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Time embedding, skips and the middle block's output, for samples that each have their own time."""
    embedding = unet.time_embedding(unet.time_proj(times).to(latents.dtype))
    hidden = unet.conv_in(latents)
    skips: tuple[Tensor, ...] = (hidden,)
    for block in unet.down_blocks:
        hidden, more = block(hidden, embedding, **_text(block, text))
        skips += more
    return embedding, skips, unet.mid_block(hidden, embedding, encoder_hidden_states=text)


def up(
    unet: UNet2DConditionModel,
    embedding: Tensor,
    skips: Sequence[Tensor],
    bottleneck: Tensor,
    text: Tensor,
) -> tuple[Tensor, Tensor]:
    """The predicted noise and the supervision features (the third up block's output)."""
    hidden, features = bottleneck, bottleneck
    for index, block in enumerate(unet.up_blocks):
        count = len(block.resnets)
        mine, skips = tuple(skips[-count:]), skips[:-count]
        hidden = block(
            hidden_states=hidden, temb=embedding, res_hidden_states_tuple=mine, **_text(block, text)
        )
        features = hidden if index == 2 else features
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden))), features


def _text(block: nn.Module, text: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}


def read_vae(folder: Path) -> AutoencoderKL:
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(
        folder, subfolder="vae", torch_dtype=torch.float32
    )
    return vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)
