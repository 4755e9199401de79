"""Every error has a code that programs tell it by, and that never changes."""

import inspect

import pytest

from dragnoise.engine import errors

CODES = {
    "AdapterError": "adapter",
    "BackendError": "backend",
    "CancelledError": "cancelled",
    "ConfigError": "config",
    "DeadlineError": "deadline",
    "DeviceError": "device",
    "DragnoiseError": "input",
    "ExportError": "export",
    "ForkError": "fork",
    "ImageError": "image",
    "MaskError": "mask",
    "ModelError": "model",
    "NumbersError": "numbers",
    "OutputError": "output",
    "PlanError": "plan",
    "PointError": "points",
    "SessionError": "session",
}


def test_every_error_has_a_code_of_its_own() -> None:
    found = {
        name: getattr(errors, name)
        for name in errors.__all__
        if not issubclass(getattr(errors, name), Warning)
    }
    assert {name: error.code for name, error in found.items()} == CODES
    assert len(set(CODES.values())) == len(CODES)


def test_every_error_is_public() -> None:
    classes = {
        name
        for name, one in vars(errors).items()
        if inspect.isclass(one) and one.__module__ == errors.__name__
    }
    assert classes == set(errors.__all__)


@pytest.mark.parametrize("name", sorted(CODES))
def test_an_error_keeps_its_code_and_its_text(name: str) -> None:
    error = getattr(errors, name)("seen 3, give 4")
    assert (error.code, str(error)) == (CODES[name], "seen 3, give 4")
