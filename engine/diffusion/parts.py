"""List the parts of a model that a backend can run, one row a part.

    part           inputs                                          outputs
    down           latent, times, text_kv                          skip_0 .. skip_N, bottom
    middle         bottom, times, text_kv                          bottleneck
    up             bottleneck, skip_0 .. skip_N, times, text_kv    eps (or features, eps)
    unet           latent, times, text_kv                          eps
    unet-replaced  latent, times, text_kv, bottleneck              eps
    folded         bottleneck, constants, text_kv                  features, eps
    unet-features  latent, times, text_kv                          features, eps
    unet-showing   latent, times, text_kv                          eps, shown
    unet-reading   latent, times, text_kv, shown                   eps
    vae-encoder    pixels                                          latent
    vae-decoder    latent                                          pixels

Names of parts and of tensors stand in files and commands: they are stable.

    latent      [B, 4, h, w], h = H / 8. The VAE's is unscaled: the U-Net's times 1 / 0.18215 (the
                VAE's `scaling_factor`)
    times       [S]: every residual block's projection of the time embedding, with its
                convolution's bias (`UNet.condition(...).times`)
    text_kv     [B, L, P]: every cross attention's keys and values of the text, side by side
                (`UNet.condition(...).text`)
    skip_i      [B, C_i, h_i, w_i]: what the encoder half hands the decoder half, from high to low
                resolution (12 in Stable Diffusion)
    bottom      [B, C, h/8, w/8]: the middle block's input (the last skip, where the last level has
                no downsampling)
    bottleneck  as bottom: the middle block's output, or what a drag has put in its place
    features    [B, C, h', w']: the map after an up block, which drags supervise
    eps         [B, 4, h, w]: what the network predicts: noise, or v in models that predict v
    shown       keys and values of the last self-attentions (`unet/mutual.py`)
    constants   per residual block: what the skips and the step contribute (`unet/folded.py`)
    pixels      [B, 3, H, W], -1..1

All have the part's own precision. B is 1, or 2 with guidance (the negative text first).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "DOWN",
    "FOLDED",
    "MIDDLE",
    "PARTS",
    "SKIPS",
    "UNET",
    "UNET_FEATURES",
    "UNET_READING",
    "UNET_REPLACED",
    "UNET_SHOWING",
    "UP",
    "VAE_DECODER",
    "VAE_ENCODER",
    "Part",
    "PartFunction",
    "PartWrapper",
]

SKIPS = "skips"
"""In inputs and outputs: stands for skip_0 .. skip_N, as many as the network has."""


@dataclass(frozen=True, eq=False)
class Part:
    """A row of the table of parts.

    Attributes:
        name: As files, commands and results have it.
        network: Whose weights it reads.
        inputs: Names of its tensors in order; `SKIPS` for all skips.
        outputs: Names of its results in order; several of them, or skips, come as a tuple.
        placed_by: The field of `Placement` that says who runs it.
        sized_by: The input whose height and width say how large the picture is.
        exported: Whether it can be exported; then no gradient goes through it.
        in_edit: Whether the usual edit runs it; whole passes run down, middle and up in a row.
        whole: Whether it is a whole pass through the U-Net.
        has_features: Whether it can give the feature map of an up block too.
    """

    name: str
    network: Literal["unet", "vae"]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    placed_by: str
    sized_by: str
    exported: bool = True
    in_edit: bool = True
    whole: bool = False
    has_features: bool = False

    def input_names(self, skips: int) -> tuple[str, ...]:
        """Return the inputs' names, with the names of that many skips in place of `SKIPS`."""
        return tuple(_spelled_out(self.inputs, skips))

    def output_names(self, skips: int, features: bool = False) -> tuple[str, ...]:
        """Return the outputs' names in the same way, with the feature map's first if wanted."""
        names = ("features", *self.outputs) if features else self.outputs
        return tuple(_spelled_out(names, skips))


def _spelled_out(names: tuple[str, ...], skips: int) -> Iterator[str]:
    for name in names:
        if name == SKIPS:
            yield from (f"skip_{number}" for number in range(skips))
        else:
            yield name


PartFunction = Callable[..., Any]
"""A part, as a function of tensors and nests of tensors."""

PartWrapper = Callable[[Part, PartFunction], PartFunction]
"""(a part, its function) -> what is run in its place: compiled, captured, a plan."""

DOWN = Part(
    name="down",
    network="unet",
    inputs=("latent", "times", "text_kv"),
    outputs=(SKIPS, "bottom"),
    placed_by="down",
    sized_by="latent",
)

MIDDLE = Part(
    name="middle",
    network="unet",
    inputs=("bottom", "times", "text_kv"),
    outputs=("bottleneck",),
    placed_by="middle",
    sized_by="bottom",
)

UP = Part(
    name="up",
    network="unet",
    inputs=("bottleneck", SKIPS, "times", "text_kv"),
    outputs=("eps",),
    placed_by="up",
    sized_by="skip_0",
    has_features=True,
)

UNET = Part(
    name="unet",
    network="unet",
    inputs=("latent", "times", "text_kv"),
    outputs=("eps",),
    placed_by="unet",
    sized_by="latent",
    in_edit=False,
    whole=True,
)

UNET_REPLACED = Part(
    name="unet-replaced",
    network="unet",
    inputs=("latent", "times", "text_kv", "bottleneck"),
    outputs=("eps",),
    placed_by="unet",
    sized_by="latent",
    in_edit=False,
    whole=True,
)

FOLDED = Part(
    name="folded",
    network="unet",
    inputs=("bottleneck", "constants", "text_kv"),
    outputs=("features", "eps"),
    placed_by="drag",
    sized_by="bottleneck",
    exported=False,
)

UNET_FEATURES = Part(
    name="unet-features",
    network="unet",
    inputs=("latent", "times", "text_kv"),
    outputs=("features", "eps"),
    placed_by="drag",
    sized_by="latent",
    exported=False,
    in_edit=False,
)

UNET_SHOWING = Part(
    name="unet-showing",
    network="unet",
    inputs=("latent", "times", "text_kv"),
    outputs=("eps", "shown"),
    placed_by="drag",
    sized_by="latent",
    exported=False,
    in_edit=False,
    whole=True,
)

UNET_READING = Part(
    name="unet-reading",
    network="unet",
    inputs=("latent", "times", "text_kv", "shown"),
    outputs=("eps",),
    placed_by="drag",
    sized_by="latent",
    exported=False,
    in_edit=False,
    whole=True,
)

VAE_ENCODER = Part(
    name="vae-encoder",
    network="vae",
    inputs=("pixels",),
    outputs=("latent",),
    placed_by="vae",
    sized_by="pixels",
)

VAE_DECODER = Part(
    name="vae-decoder",
    network="vae",
    inputs=("latent",),
    outputs=("pixels",),
    placed_by="vae",
    sized_by="latent",
)

PARTS: Mapping[str, Part] = {
    part.name: part
    for part in (
        DOWN,
        MIDDLE,
        UP,
        UNET,
        UNET_REPLACED,
        FOLDED,
        UNET_FEATURES,
        UNET_SHOWING,
        UNET_READING,
        VAE_ENCODER,
        VAE_DECODER,
    )
}
"""Every part by its name."""
