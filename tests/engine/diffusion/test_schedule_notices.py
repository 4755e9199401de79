"""A scheduler's configuration is read in silence, at every edit."""

import diffusers.configuration_utils
import pytest

from dragnoise.engine.diffusion.schedule import Schedule
from sessions import editor


@pytest.mark.parametrize(
    "others", [{"foo": 1}, {"skip_prk_steps": True}, {"solver_order": 2, "use_karras_sigmas": True}]
)
def test_settings_of_other_schedulers_are_not_spoken_of(
    others: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(diffusers.configuration_utils.logger, "warning", said.append)
    plain = dict(editor().model.scheduler)
    found, expected = Schedule.of(plain | others, 10), Schedule.of(plain, 10)
    assert said == []
    assert found.timesteps == expected.timesteps
    assert found.alphas.equal(expected.alphas)
