"""Settings on a command line: of their kinds, known and in range."""

import pytest

from dragnoise.bench.jobs.settings import settings_of
from dragnoise.engine import ConfigError


def test_settings_have_their_kinds() -> None:
    given = settings_of("dragnoise", "iterations=10,lr=0.5,parity=true,strength=1")
    assert given == {"iterations": 10, "lr": 0.5, "parity": True, "strength": 1.0}
    assert settings_of("gooddrag", None) == settings_of("gooddrag", "") == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("speed=3", "'speed=3' is no setting of dragnoise; write NAME=VALUE,... of steps"),
        ("lr", "'lr' is no setting"),
        ("lr=fast", "lr must be a number, got 'fast'"),
        ("iterations=1.5", "iterations must be a whole number, got '1.5'"),
        ("parity=perhaps", "parity must be true or false, got 'perhaps'"),
        ("lr=-1", "lr must be a number above 0"),
    ],
)
def test_others_are_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings_of("dragnoise", text)
    assert told in str(refused.value)
