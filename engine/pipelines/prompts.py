"""Notices of what a model does not read of its prompts."""

import warnings

from ..diffusion.model import Model
from ..errors import InputWarning
from ..stages import prompt_notices

__all__ = ["notice_prompts"]


def notice_prompts(
    model: Model, prompt: str, negative_prompt: str, guidance: float
) -> tuple[str, ...]:
    """Warn (InputWarning) of what the model does not read, and return the warnings' texts.

    A prompt that is longer than the model reads; a negative prompt without guidance.
    """
    prompts = (negative_prompt, prompt) if guidance > 1 else (prompt,)
    notices = prompt_notices(model, *prompts)
    if negative_prompt and guidance == 1:
        useless = "a negative prompt does nothing without guidance; set guidance above 1"
        notices = (*notices, useless)
    for notice in notices:
        warnings.warn(notice, InputWarning, stacklevel=2)
    return notices
