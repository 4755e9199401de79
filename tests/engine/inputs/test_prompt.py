"""A prompt is text, and is never repeated in an error."""

from typing import Any

import pytest

from dragnoise.engine.errors import ConfigError
from dragnoise.engine.inputs.prompt import check_prompts


@pytest.mark.parametrize(
    "prompt", [b"canary", None, 3, 1.5, ["canary"], {}, "canary\udcff", "\ud83d"]
)
def test_what_is_no_text(prompt: Any) -> None:
    with pytest.raises(ConfigError, match=r"negative_prompt (must be text|has a half)") as refused:
        check_prompts(prompt="a boat", negative_prompt=prompt)
    said = str(refused.value)
    assert "canary" not in said
    assert said.isascii()
    assert "\n" not in said


def test_text() -> None:
    check_prompts(prompt="", negative_prompt="ein Boot, \N{SAILBOAT}\0\n")
