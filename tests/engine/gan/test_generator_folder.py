"""A generator's folder: read as it was written, and refused in one line where it is broken."""

import json
from pathlib import Path

import pytest
import torch

from dragnoise.engine.errors import ConfigError, ModelError
from dragnoise.engine.gan.folder import load_generator
from dragnoise.engine.gan.writing import write_folder
from generators import generator_model
from host_modes import MODES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path, generator_model().network)
    return tmp_path


def test_it_is_read_as_it_was_written(folder: Path) -> None:
    model = load_generator(folder)
    assert model.digest == generator_model().digest
    assert not any(weight.requires_grad for weight in model.network.parameters())


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    write_folder(tmp_path, generator_model().network, torch.float16)
    model = load_generator(tmp_path)
    assert {weight.dtype for weight in model.network.parameters()} == {torch.float32}
    wanted = generator_model().network.mean.half().float()
    torch.testing.assert_close(model.network.mean, wanted, rtol=0, atol=0)


def test_it_brings_its_settings(folder: Path) -> None:
    (folder / "drag.json").write_text('{"lr": 0.02, "block": 4}')
    assert load_generator(folder).defaults.lr == 0.02
    (folder / "drag.json").write_text('{"steps": 4}')
    with pytest.raises(ConfigError, match="steps: no such setting"):
        load_generator(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"_class_name": "UNet"}, "is not of a StyleGAN2Generator"),
        ({"channels": [8, 8]}, "have, unlike the configuration"),
        ({"w": 12}, "have another shape for"),
        ({"w": 0}, "cannot be used"),
        ({"w": "x"}, "cannot be used"),
        ({"channels": 7}, "channels must be"),
        ({"size": 7}, "has other names than these: size"),
    ],
)
def test_a_configuration_of_something_else_is_refused(
    folder: Path, changes: dict[str, object], said: str
) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelError, match=said) as raised:
        load_generator(folder)
    assert "\n" not in str(raised.value)


def test_broken_files_are_refused(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-9])
    with pytest.raises(ModelError, match="could not be loaded"):
        load_generator(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no file at"):
        load_generator(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="no JSON"):
        load_generator(folder)
    with pytest.raises(ModelError, match="there is no folder"):
        load_generator(folder / "nowhere")


@pytest.mark.parametrize("mode", ["default float64", "default float16"])
def test_the_process_has_another_default_dtype_as_a_generator_is_loaded(
    mode: str, folder: Path
) -> None:
    expected = load_generator(folder).network.state_dict()
    with MODES[mode]():
        found = load_generator(folder).network.state_dict()
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        name: tensor.dtype for name, tensor in expected.items()
    }
    assert all(torch.equal(found[name], expected[name]) for name in expected)
