"""Check a configuration that somebody else wrote: what its fields may be, as data.

What the networks are built of is checked before they are built, so that no field is of another
type, and none makes a network that takes minutes to build. How large the tensors are needs no
limit here: they are compared with the weights' before there is memory for any.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ...errors import ModelError
from ...system.incoming import read_json

__all__ = [
    "SCHEDULER",
    "TEXT_ENCODER",
    "TOKENIZER",
    "UNET",
    "VAE",
    "Schema",
    "checked",
    "read_settings",
]


@dataclass(frozen=True)
class Kind:
    """A kind of value: in words, and as a test."""

    what: str
    holds: Callable[[Any], bool]


Schema: TypeAlias = Mapping[str, Kind]
"""The fields of a configuration that count, by name; the others are let lie."""


def _whole(low: int, high: int) -> Kind:
    def holds(value: Any) -> bool:
        return type(value) is int and low <= value <= high

    return Kind(f"a whole number from {low} to {high}", holds)


def _real(low: float, high: float) -> Kind:
    def holds(value: Any) -> bool:
        return type(value) in (int, float) and low <= value <= high

    return Kind(f"a number from {low} to {high}", holds)


def _one_of(*names: str) -> Kind:
    return Kind(f"one of {', '.join(names)}", lambda value: value in names)


def _none_or(kind: Kind) -> Kind:
    return Kind(f"null or {kind.what}", lambda value: value is None or kind.holds(value))


def _list(kind: Kind, low: int, high: int) -> Kind:
    def holds(value: Any) -> bool:
        return isinstance(value, list) and low <= len(value) <= high and all(map(kind.holds, value))

    return Kind(f"a list of {low} to {high}, each {kind.what}", holds)


def _or_list(kind: Kind) -> Kind:
    several = _list(kind, 1, _BLOCKS)
    return Kind(f"{kind.what}, or {several.what}", lambda a: kind.holds(a) or several.holds(a))


_BLOCKS = 8
_LAYERS = 8
"""Most blocks of a network and layers of a block: Stable Diffusion has 4 and 3, SDXL 10 of the
transformer's. With these a network of the largest counts is built in seconds."""

_FLAG = Kind("true or false", lambda value: isinstance(value, bool))
_TEXT = Kind("text", lambda value: isinstance(value, str))
_NOTHING = Kind("null: this engine does not know it", lambda value: value is None)
_SIZE = _whole(1, 2**20)
_SHARE = _real(0, 1)
_FACTOR = _real(1e-3, 1e3)
_EPSILON = _real(1e-12, 0.1)
_STABLE_3 = Kind("3, as Stable Diffusion's", lambda value: value == 3)
_STABLE_4 = Kind("4, as Stable Diffusion's", lambda value: value == 4)
_CHANNELS = _list(_SIZE, 1, _BLOCKS)
_SIDE = _none_or(_or_list(_whole(1, 2048)))
_TOKEN = _none_or(_or_list(_whole(-1, 2**31 - 1)))
_UNQUANTISED = Kind("null: give the weights that are not quantised", lambda value: value is None)

UNET: Schema = {
    "_class_name": _one_of("UNet2DConditionModel"),
    "quantization_config": _UNQUANTISED,
    "sample_size": _SIDE,
    "in_channels": _SIZE,
    "out_channels": _SIZE,
    "flip_sin_to_cos": _FLAG,
    "freq_shift": _real(0, 1),
    "down_block_types": _list(_TEXT, 1, _BLOCKS),
    "mid_block_type": _none_or(_TEXT),
    "up_block_types": _list(_TEXT, 1, _BLOCKS),
    "block_out_channels": _CHANNELS,
    "layers_per_block": _or_list(_whole(1, _LAYERS)),
    "mid_block_scale_factor": _FACTOR,
    "dropout": _SHARE,
    "norm_num_groups": _SIZE,
    "norm_eps": _EPSILON,
    "cross_attention_dim": _or_list(_SIZE),
    "transformer_layers_per_block": _or_list(_whole(1, 2 * _LAYERS)),
    "attention_head_dim": _or_list(_SIZE),
    "num_attention_heads": _none_or(_or_list(_SIZE)),
    "use_linear_projection": _FLAG,
    "upcast_attention": _none_or(_FLAG),
    "resnet_out_scale_factor": _FACTOR,
    "time_embedding_dim": _none_or(_SIZE),
}
"""What a U-Net's configuration may say. `objections_to` tells which of these can be dragged."""

VAE: Schema = {
    "_class_name": _one_of("AutoencoderKL"),
    "quantization_config": _UNQUANTISED,
    "in_channels": _STABLE_3,
    "out_channels": _STABLE_3,
    "down_block_types": _list(_one_of("DownEncoderBlock2D", "AttnDownEncoderBlock2D"), 1, _BLOCKS),
    "up_block_types": _list(_one_of("UpDecoderBlock2D", "AttnUpDecoderBlock2D"), 1, _BLOCKS),
    "block_out_channels": _CHANNELS,
    "layers_per_block": _whole(1, _LAYERS),
    "act_fn": _one_of("silu", "swish", "mish", "gelu", "relu"),
    "latent_channels": _STABLE_4,
    "norm_num_groups": _SIZE,
    "sample_size": _SIDE,
    "scaling_factor": _FACTOR,
    "shift_factor": _none_or(_real(0, 0)),
    "latents_mean": _NOTHING,
    "latents_std": _NOTHING,
    "force_upcast": _FLAG,
    "use_quant_conv": _FLAG,
    "use_post_quant_conv": _FLAG,
    "mid_block_add_attention": _FLAG,
}
"""What a VAE's configuration may say."""

TEXT_ENCODER: Schema = {
    "model_type": _one_of("clip_text_model", "clip"),
    "quantization_config": _UNQUANTISED,
    "vocab_size": _SIZE,
    "hidden_size": _SIZE,
    "intermediate_size": _SIZE,
    "projection_dim": _none_or(_whole(0, 2**20)),
    "num_hidden_layers": _whole(1, 64),
    "num_attention_heads": _SIZE,
    "max_position_embeddings": _whole(2, 2**16),
    "hidden_act": _one_of("quick_gelu", "gelu", "gelu_new", "silu", "relu"),
    "layer_norm_eps": _EPSILON,
    "attention_dropout": _SHARE,
    "pad_token_id": _TOKEN,
    "bos_token_id": _TOKEN,
    "eos_token_id": _TOKEN,
}
"""What a text encoder's configuration may say."""

_FAMILY = (
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
"""Schedulers whose betas are those of the noise that the model was trained on, as DDIM has them."""

_FLOW = "models of flow matching and EDM cannot be inverted here"
_DDIM_KIN = Kind(f"DDIM's, or of its family (PNDM, Euler, ...): {_FLOW}", lambda a: a in _FAMILY)
_NO_FLOW = Kind(f"false: {_FLOW}", lambda value: value in (None, False))
_NO_SIGMA = Kind(f"null: {_FLOW}", lambda value: value is None)

SCHEDULER: Schema = {
    "_class_name": _DDIM_KIN,
    "use_flow_sigmas": _NO_FLOW,
    "timestep_type": Kind(f"discrete: {_FLOW}", lambda value: value == "discrete"),
    "sigma_data": _NO_SIGMA,
    "sigma_schedule": _NO_SIGMA,
    "shift": _NO_SIGMA,
    "base_shift": _NO_SIGMA,
    "num_train_timesteps": _whole(2, 100_000),
    "beta_start": _real(1e-9, 0.999),
    "beta_end": _real(1e-9, 0.999),
    "beta_schedule": _one_of("linear", "scaled_linear", "squaredcos_cap_v2"),
    "trained_betas": _none_or(_list(_real(0, 0.9999), 2, 100_000)),
    "prediction_type": _TEXT,
    "rescale_betas_zero_snr": _FLAG,
}
"""What a scheduler's configuration may say that says how the model was trained."""

_ADDED = Kind("text or a token", lambda value: value is None or isinstance(value, (str, Mapping)))
TOKENIZER: Schema = {
    "model_max_length": _none_or(_real(2, math.inf)),
    "bos_token": _ADDED,
    "eos_token": _ADDED,
    "unk_token": _ADDED,
    "pad_token": _ADDED,
    "padding_side": _one_of("left", "right"),
    "truncation_side": _one_of("left", "right"),
    "errors": _one_of("replace", "strict", "ignore"),
    "do_lower_case": _FLAG,
    "added_tokens_decoder": Kind("an object of tokens", lambda value: isinstance(value, Mapping)),
    "additional_special_tokens": _list(_ADDED, 0, 2**16),
}
"""What a tokenizer's configuration may say."""


def read_settings(file: Path, schema: Schema) -> dict[str, Any]:
    """Return the settings in a configuration that count, each of its kind.

    Raises:
        ModelError: For a file that is no JSON object, or a field of another kind.
    """
    return checked(read_json(file, ModelError), schema, str(file))


def checked(said: Any, schema: Schema, where: str) -> dict[str, Any]:
    """Return the settings of a configuration that count.

    Raises:
        ModelError: Naming the field.
    """
    if not isinstance(said, Mapping):
        raise ModelError(f"{where!r} holds no JSON object; is the folder whole?")
    for name, kind in schema.items():
        if name in said and not kind.holds(said[name]):
            raise ModelError(f"{where!r}: {name} must be {kind.what}, got {_shown(said[name])}")
    return {name: said[name] for name in schema if name in said}


def _shown(value: Any) -> str:
    """Return a value as it is written in JSON, cut short."""
    return json.dumps(value)[:80]
