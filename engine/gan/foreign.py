"""Read generators as others name their tensors, and say how large they are.

Two layouts of PyTorch's are known, both of StyleGAN2's skip architecture:

| ours                          | stylegan2-ada-pytorch     | rosinality's              |
|-------------------------------|---------------------------|---------------------------|
| mapping.layers.I              | mapping.fcI               | style.(I + 1)             |
| mean                          | mapping.w_avg             | latent_avg, beside g_ema  |
| synthesis.start               | synthesis.b4.const        | input.input               |
| synthesis.layers.0            | synthesis.b4.conv1        | conv1                     |
| synthesis.layers.(2 K - 1)    | synthesis.bR.conv0        | convs.(2 K - 2)           |
| synthesis.layers.(2 K)        | synthesis.bR.conv1        | convs.(2 K - 1)           |
| synthesis.colours.0           | synthesis.b4.torgb        | to_rgb1                   |
| synthesis.colours.K           | synthesis.bR.torgb        | to_rgbs.(K - 1)           |
| style of a layer              | affine                    | conv.modulation           |
| its weight, its bias          | weight, bias              | conv.weight, activate.bias|
| its strength                  | noise_strength            | noise.weight              |
| its noise                     | noise_const               | noises.noise_I            |

K counts resolutions from 8 x 8 on, R = 4 * 2^K. The numbers are the same in all three but for
axes of length one. Kernels of resampling are not read: they are [1, 3, 3, 1] in every published
generator.
"""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..errors import ModelError
from .architecture import Architecture
from .generator import Generator

__all__ = ["generator_of"]

_IGNORED = re.compile(
    r".*(resample_filter|blur\.kernel|upsample\.kernel|num_batches_tracked)$|"
    r"(D|G|d|g|g_optim|d_optim|discriminator|augment_pipe)\..*"
)

_PREFIXES = ("g_ema.", "G_ema.", "generator.", "module.")


def generator_of(tensors: Mapping[str, Tensor], mapping_rate: float = 0.01) -> Generator:
    """Return the generator that tensors of a known layout make.

    Args:
        tensors: By the names in the file.
        mapping_rate: What the mapping network's weights are multiplied by; no file says it, every
            published generator has 0.01.

    Raises:
        ModelError: For another layout, or where something is missing or left over.
    """
    named = _unprefixed(tensors)
    for mark, layout in _LAYOUTS.items():
        if mark in named:
            return _built(_renamed(named, layout), mapping_rate)
    first = ", ".join(sorted(named)[:3]) or "nothing"
    raise ModelError(
        f"these are not a StyleGAN2 generator's weights in a known layout ({first}, ...); give a "
        "state dict of stylegan2-ada-pytorch's G_ema, or of rosinality's g_ema"
    )


def _unprefixed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the average generator's tensors, where the file holds others beside it."""
    for prefix in _PREFIXES:
        inner = {
            name.removeprefix(prefix): value
            for name, value in tensors.items()
            if name.startswith(prefix)
        }
        if inner:
            beside = {name: tensors[name] for name in ("latent_avg",) if name in tensors}
            return _unprefixed(inner | beside)
    return dict(tensors)


def _renamed(
    tensors: Mapping[str, Tensor], layout: Callable[[str], str | None]
) -> dict[str, Tensor]:
    renamed = {}
    for name, value in tensors.items():
        ours = layout(name)
        if ours is not None:
            renamed[ours] = value
        elif not _IGNORED.fullmatch(name):
            raise ModelError(
                f"{name!r} is no part of an unconditional StyleGAN2 generator; convert one that "
                "was trained without classes, with the skip architecture"
            )
    return renamed


_PARTS = {
    "affine.weight": "style.weight",
    "affine.bias": "style.bias",
    "noise_strength": "strength",
    "noise_const": "noise",
    "weight": "weight",
    "bias": "bias",
    "conv.modulation.weight": "style.weight",
    "conv.modulation.bias": "style.bias",
    "conv.weight": "weight",
    "activate.bias": "bias",
    "noise.weight": "strength",
}
"""What belongs to a layer, by the end of its name."""


def _of_nvidia(name: str) -> str | None:
    if name == "mapping.w_avg":
        return "mean"
    if name == "synthesis.b4.const":
        return "synthesis.start"
    if found := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", name):
        return f"mapping.layers.{found[1]}.{found[2]}"
    found = re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)", name)
    if found is None or found[3] not in _PARTS:
        return None
    index = int(found[1]).bit_length() - 3
    part = _PARTS[found[3]]
    if found[2] == "torgb":
        return f"synthesis.colours.{index}.{part}"
    return f"synthesis.layers.{2 * index - (found[2] == 'conv0')}.{part}"


def _of_rosinality(name: str) -> str | None:
    if name == "latent_avg":
        return "mean"
    if name == "input.input":
        return "synthesis.start"
    if found := re.fullmatch(r"noises\.noise_(\d+)", name):
        return f"synthesis.layers.{found[1]}.noise"
    if found := re.fullmatch(r"style\.(\d+)\.(weight|bias)", name):
        return f"mapping.layers.{int(found[1]) - 1}.{found[2]}"
    found = re.fullmatch(r"(conv1|to_rgb1|convs\.(\d+)|to_rgbs\.(\d+))\.(.+)", name)
    if found is None or found[4] not in _PARTS:
        return None
    part = _PARTS[found[4]]
    if found[1].startswith("to_rgb"):
        return f"synthesis.colours.{0 if found[3] is None else int(found[3]) + 1}.{part}"
    return f"synthesis.layers.{0 if found[2] is None else int(found[2]) + 1}.{part}"


_LAYOUTS: Mapping[str, Callable[[str], str | None]] = {
    "synthesis.b4.const": _of_nvidia,
    "input.input": _of_rosinality,
}
"""Layouts, by a name that only they have."""


def _built(tensors: dict[str, Tensor], mapping_rate: float) -> Generator:
    """Build the generator that tensors by our names fit, and give it to them."""
    architecture = _architecture(tensors, mapping_rate)
    with torch.device("meta"):
        generator = Generator(architecture)
    wanted = generator.state_dict()
    says_mean = "mean" in tensors
    tensors.setdefault("mean", torch.zeros(architecture.w, dtype=torch.float32))
    missing, odd = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or odd:
        which = f"lack {missing[0]}" if missing else f"have {odd[0]} too many"
        raise ModelError(f"the weights {which}, in our names; is the file whole?")
    shaped = {}
    for name, value in wanted.items():
        if tensors[name].numel() != value.numel():
            raise ModelError(
                f"{name}, in our names, has shape {list(tensors[name].shape)}, not "
                f"{list(value.shape)}; such a generator is not known here"
            )
        shaped[name] = tensors[name].float().reshape(value.shape)
    generator.load_state_dict(shaped, assign=True)
    if not says_mean:
        _measure_mean(generator)
    return generator


@torch.no_grad()
def _measure_mean(generator: Generator) -> None:
    """Measure the mean style vector, where no file says it."""
    z = torch.randn(
        10_000,
        generator.architecture.z,
        generator=torch.Generator().manual_seed(0),
        dtype=torch.float32,
    )
    generator.mean.copy_(generator.mapping(z).mean(0))


def _architecture(tensors: Mapping[str, Tensor], mapping_rate: float) -> Architecture:
    """Tell from the tensors' shapes how large the generator is."""
    pattern = re.compile(r"synthesis\.colours\.(\d+)\.weight")
    colours = {
        int(found[1]): value
        for name, value in tensors.items()
        if (found := pattern.fullmatch(name))
    }
    depth = sum(bool(re.fullmatch(r"mapping\.layers\.\d+\.weight", name)) for name in tensors)
    first = tensors.get("mapping.layers.0.weight")
    if first is None or first.ndim != 2 or sorted(colours) != list(range(len(colours))):
        raise ModelError("the weights lack the mapping network, or the colours of a resolution")
    channels = tuple(value.numel() // 3 for _, value in sorted(colours.items()))
    noise = "synthesis.layers.0.strength" in tensors
    return Architecture(channels, first.shape[1], first.shape[0], depth, mapping_rate, noise)
