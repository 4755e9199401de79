"""Check prompts: text that a tokenizer can read."""

from typing import Any

from ..errors import ConfigError

__all__ = ["check_prompts"]


def check_prompts(**prompts: Any) -> None:
    """Refuse prompts that are no text, without repeating what they say.

    Args:
        prompts: By the name of their argument.

    Raises:
        ConfigError: For another type, or text that has no UTF-8: undecodable bytes of a command
            line, halves of surrogate pairs.
    """
    for name, prompt in prompts.items():
        if not isinstance(prompt, str):
            raise ConfigError(
                f"{name} must be text (str), got {type(prompt).__name__}; "
                + ("decode it" if isinstance(prompt, bytes) else 'give "" for none')
            )
        try:
            prompt.encode()
        except UnicodeEncodeError as broken:
            raise ConfigError(
                f"{name} has a half of a character at position {broken.start}, as bytes that are "
                "no UTF-8 leave; write it in UTF-8"
            ) from broken
