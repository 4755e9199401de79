"""Build the embedded model's networks: Stable Diffusion's classes and block types, small."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
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
# Skips at the latent's resolution: they reach only the last up block, after the supervision
# features.
OPEN_SKIPS = 2


@dataclass(frozen=True, eq=False)
class Networks:
    """A U-Net and a text encoder that are trained together.

    Attributes:
        unet: The U-Net.
        text: The text encoder.
        head: A convolution that reads a clean latent from the supervision features in training.
    """

    unet: UNet2DConditionModel
    text: CLIPTextModel
    head: nn.Conv2d

    def weights(self) -> list[nn.Parameter]:
        return [*self.unet.parameters(), *self.text.parameters(), *self.head.parameters()]


def new_networks(vocabulary: int) -> Networks:
    """Initialise networks for a vocabulary of so many entries; residual branches start at zero."""
    unet = UNet2DConditionModel(
        sample_size=32,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=CHANNELS,
        down_block_types=_levels("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=_levels("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=(1, 1, 2, 2),
        norm_num_groups=16,
    )
    text = CLIPTextModel(_text_config(vocabulary))
    for part in unet.modules():
        if isinstance(part, ResnetBlock2D):
            _silence(part.conv2)
        elif isinstance(part, Transformer2DModel):
            _silence(part.proj_out)
    _silence(unet.conv_out)
    close_deep_skips(unet)
    return Networks(unet, text, nn.Conv2d(CHANNELS[1], 4, 1))


def _levels(plain: str, crossed: str) -> tuple[str, str, str, str]:
    return (plain, crossed, crossed, plain)


def _text_config(vocabulary: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=words.LENGTH,
        projection_dim=WIDTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        attention_dropout=0.0,
    )


def _silence(layer: nn.Module) -> None:
    for weight in layer.parameters():
        nn.init.zeros_(weight)


def warm_start(networks: Networks, folder: Path) -> None:
    """Copy the weights of a model folder; of its text encoder, the rows of shared words only."""
    single = torch.float32
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=single)
    networks.unet.load_state_dict(unet.state_dict())
    text = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", torch_dtype=single)
    weights = text.state_dict()
    vocabulary = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer").get_vocab()
    name = next(key for key in weights if key.endswith("token_embedding.weight"))
    rows = networks.text.state_dict()[name].clone()
    for entry, number in words.tokenizer().get_vocab().items():
        if entry in vocabulary:
            rows[number] = weights[name][vocabulary[entry]]
    networks.text.load_state_dict(weights | {name: rows})


def state_of(part: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of one part, without its prefix `part.`."""
    prefix = f"{part}."
    own = {key: value for key, value in weights.items() if key.startswith(prefix)}
    return {key.removeprefix(prefix): value for key, value in own.items()}


@torch.no_grad()
def close_deep_skips(unet: UNet2DConditionModel) -> None:
    """Zero the weights that read a skip below the top level: the bottleneck carries the picture."""
    for layer, first in _deep_skip_readers(unet):
        layer.weight[:, first:].zero_()


def _deep_skip_readers(unet: UNet2DConditionModel) -> list[tuple[nn.Conv2d, int]]:
    """Return each convolution that reads a deep skip, and the first channel that is the skip's."""
    sizes = [CHANNELS[0], CHANNELS[0]] + [size for c in itertools.pairwise(CHANNELS) for size in c]
    found = []
    for resnet in (resnet for block in unet.up_blocks for resnet in block.resnets):
        size = sizes.pop()
        if len(sizes) >= OPEN_SKIPS:
            readers = (resnet.conv1, resnet.conv_shortcut)
            found += [
                (reader, reader.weight.shape[1] - size) for reader in readers if reader is not None
            ]
    return found


def alphas_cumprod() -> Tensor:
    """Return the schedule's cumulative products of alpha, float32 [1000]."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def down(
    unet: UNet2DConditionModel, latents: Tensor, times: Tensor, text: Tensor
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Run the encoder half and the middle block; every sample has its own time.

    Returns:
        The time embedding, the skips and the bottleneck.
    """
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
    openness: Tensor,
) -> tuple[Tensor, Tensor]:
    """Run the decoder half.

    Args:
        openness: 1 where a sample's deep skips are read, 0 where they are closed, [B, 1, 1, 1].

    Returns:
        The predicted noise, and the supervision features (the third up block's output).
    """
    hidden = bottleneck
    features = bottleneck
    with _deep_skips(unet, openness):
        for index, block in enumerate(unet.up_blocks):
            count = len(block.resnets)
            hidden = block(
                hidden_states=hidden,
                temb=embedding,
                res_hidden_states_tuple=tuple(skips[-count:]),
                **_text(block, text),
            )
            skips = skips[:-count]
            if index == 2:
                features = hidden
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden))), features


@contextlib.contextmanager
def _deep_skips(unet: UNet2DConditionModel, openness: Tensor) -> Iterator[None]:
    """Scale what is read of deep skips, sample by sample: 0 is as if their weights were zero."""

    def scale(first: int) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
        def hook(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            (value,) = inputs
            own, skip = value[:, :first], value[:, first:]
            return (torch.cat([own, skip * openness.to(skip.dtype)], 1),)

        return hook

    readers = _deep_skip_readers(unet)
    hooks = [layer.register_forward_pre_hook(scale(first)) for layer, first in readers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _text(block: nn.Module, text: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}


def read_vae(folder: Path) -> AutoencoderKL:
    """Read a model folder's VAE in float32, frozen."""
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(
        folder, subfolder="vae", torch_dtype=torch.float32
    )
    return vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)
