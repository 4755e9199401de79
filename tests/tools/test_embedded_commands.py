"""Read the embedded model's command line."""

import json

import pytest

from dragnoise.engine import DragConfig
from embedded_model import __main__ as commands
from embedded_model import accept


@pytest.mark.parametrize("command", ["train", "decoder", "pack", "tune", "accept"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.main([command, "--help"])
    assert ended.value.code == 0
    assert "usage: python -m embedded_model " + command in capsys.readouterr().out


def test_the_best_settings_are_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[DragConfig] = []

    def tune(editor: object, count: int, configs: list[DragConfig], report: object) -> DragConfig:
        swept.extend(configs)
        return configs[-1]

    monkeypatch.setattr(accept, "tune", tune)
    commands.main(["tune", "--each", "1"])
    assert len(set(swept)) == 12
    best = json.loads(capsys.readouterr().out)
    assert best == {"lr": 0.8, "lam": 0.1, "end_step": 10, "iterations": swept[-1].iterations}
