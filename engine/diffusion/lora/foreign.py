"""Tell by a tensor's name what kind of file it comes from, where it is no plain LoRA of a U-Net."""

import re
from collections.abc import Iterable

__all__ = ["foreign_kind", "is_of_text_encoder", "trained_for"]

_KINDS = (
    (r"dora_scale$|lora_magnitude_vector", "DoRA, which also scales the weights"),
    (r"lora_mid(\.weight)?$", "LoCon with a core of its own (Tucker)"),
    (r"\.hada_[wt]\d", "LoHa"),
    (r"\.lokr_[wt]\d", "LoKr"),
    (r"\.(boft_|oft_blocks$|oft_diag$|oft_[rRs])", "OFT or BOFT"),
    (r"\.(on_input$|ia3_l)", "IA3"),
    (r"\.[ab][12]\.weight$", "GLoRA"),
    (r"\.(vera_lambda|randlora_|fourierft_|hra_u|vblora_)", "an adapter of PEFT's that is no LoRA"),
    (r"\.(diff|diff_b|set_weight|w_norm|b_norm)$", "whole differences of the weights"),
    (r"\.(lora_B|lora_up|lora\.up)(\.\w+)?\.bias$", "a LoRA that also changes biases"),
    (r"lora_embedding_[AB]", "a LoRA of an embedding"),
    (r"^(emb_params|string_to_param|clip_[lg]$|<.*>$)", "a textual inversion"),
    (r"^(lora_controlnet|control_model\.|controlnet|input_hint|zero_convs)", "a ControlNet"),
    (r"^(cond_stage_model|first_stage_model|model\.diffusion_model\.\w+\.\d.*[^AB]\.weight$)",
     "a whole model"),
)  # fmt: skip
"""Names' patterns, and what they say."""

_TEXT_ENCODER = re.compile(
    r"(lora_te\d?_|text_encoder(_\d)?\.|te\d?\.|(base_model\.model\.)?text_model\.)"
)
_SECOND_TEXT_ENCODER = re.compile(r"lora_te2_|text_encoder_2\.|te2\.")
_TRANSFORMER = re.compile(
    r"(base_model\.model\.|diffusion_model\.|lora_unet_|lora_transformer_|unet\.)?"
    r"(transformer|double_blocks|single_blocks|joint_blocks|single_transformer_blocks)[._]"
)


def foreign_kind(name: str) -> str:
    """Return what kind of adapter has a tensor of that name; "" for none that is known."""
    return next((kind for pattern, kind in _KINDS if re.search(pattern, name)), "")


def is_of_text_encoder(name: str) -> bool:
    """Whether a tensor of that name belongs to a text encoder."""
    return _TEXT_ENCODER.match(name) is not None


def trained_for(names: Iterable[str]) -> str:
    """Return what other family of models the names tell of; "" where they tell of none."""
    for name in names:
        if _SECOND_TEXT_ENCODER.match(name):
            return "Stable Diffusion XL"
        if _TRANSFORMER.match(name):
            return "a transformer (Flux, Stable Diffusion 3 or later)"
    return ""
