"""A file of an exported part is right if its identity is; what is wrong with one is said."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dragnoise.engine import ExportError, PlanError
from dragnoise.engine.diffusion.load import load
from dragnoise.engine.diffusion.lora.adapter import Adapter, AdapterUse
from dragnoise.engine.diffusion.lora.merge import Adapters
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.exported import (
    EXPORTABLE,
    Extent,
    GraphId,
    PlanId,
    Profile,
    about_plan,
    code,
    graph_id,
    part_of,
    read_graph_id,
    read_plan,
    signature,
    write_plan,
)
from dragnoise.export.inputs import example
from golden_cases import MODEL
from small_models import sd2

AT = Profile.at(Extent(128, 192))


@pytest.fixture(scope="module")
def model() -> Model:
    return load(MODEL, device="cpu")


def built(model: Model, **changes: Any) -> PlanId:
    return dataclasses.replace(
        PlanId(graph_id(model, "down", AT), "tensorrt", "10.13.0", "sm90"), **changes
    )


# What goes in and out.


@pytest.mark.parametrize("extent", [Extent(128, 192), Extent(64, 64, 2), Extent(136, 72)])
@pytest.mark.parametrize("part", EXPORTABLE)
def test_a_signature_is_what_the_part_takes_and_gives(
    model: Model, part: str, extent: Extent
) -> None:
    names = signature(model, part, extent)
    given = example(model, part, extent)
    assert {name: tuple(tensor.shape) for name, tensor in given.items()} == dict(names.inputs)
    with torch.no_grad():
        found = part_of(model, model.unet, part)(*given.values())
    outputs = (found,) if isinstance(found, Tensor) else found
    assert [tuple(output.shape) for output in outputs] == list(names.outputs.values())


@pytest.mark.parametrize("block", [0, 1, 2, 3])
@pytest.mark.parametrize("extent", [Extent(128, 192), Extent(32, 32), Extent(136, 72)])
def test_features_beside_the_prediction(model: Model, block: int, extent: Extent) -> None:
    names = signature(model, "up", extent, block)
    with torch.no_grad():
        features, eps = part_of(model, model.unet, "up", block)(
            *example(model, "up", extent).values()
        )
    assert list(names.outputs) == ["features", "eps"]
    assert (tuple(features.shape), tuple(eps.shape)) == tuple(names.outputs.values())


def test_2x_has_other_widths(tmp_path: Path) -> None:
    two = load(sd2(tmp_path), device="cpu")
    for part in EXPORTABLE:
        given = example(two, part, Extent(64, 128))
        assert {name: tuple(tensor.shape) for name, tensor in given.items()} == dict(
            signature(two, part, Extent(64, 128)).inputs
        )


# Identities.


def test_everything_that_matters_is_in_the_name(model: Model, tmp_path: Path) -> None:
    graph = graph_id(model, "up", AT)
    others = [
        graph_id(model, "middle", AT),
        graph_id(model, "up", AT, features=2),
        graph_id(model, "up", Profile.at(Extent(192, 128))),
        graph_id(model, "up", Profile.at(Extent(128, 192, 2))),
        graph_id(model, "up", Profile(Extent(128, 192), Extent(128, 192), Extent(256, 192))),
        graph_id(load(MODEL, device="cpu", dtype="bfloat16"), "up", AT),
        graph_id(load(sd2(tmp_path), device="cpu"), "up", AT),
        dataclasses.replace(graph, code="0" * 64),
    ]
    names = {one.file for one in (graph, *others)}
    assert len(names) == len(others) + 1
    plan = built(model)
    variants: list[dict[str, object]] = [
        {"flavour": "tensorrt_rtx"},
        {"version": "11.0.0"},
        {"target": "sm89"},
        {"refittable": True},
    ]
    assert len({plan.file, *(built(model, **change).file for change in variants)}) == 5


def test_an_adapter_makes_another_graph_of_the_unet_alone(model: Model) -> None:
    weights = load(MODEL, device="cpu")
    name = next(
        name for name, _ in weights.unet.network.named_modules() if name.endswith("attn1.to_q")
    )
    width = weights.unet.network.get_submodule(name).in_features
    adapter = Adapter(((name, torch.ones(1, width), torch.ones(width, 1)),))
    plain = {part: graph_id(weights, part, AT) for part in ("down", "vae-encoder")}
    adapters = Adapters(weights)
    names: set[str] = set()
    for scale in (1.0, 0.5):
        with adapters.active(AdapterUse(adapter, scale)):
            assert graph_id(weights, "down", AT).file != plain["down"].file
            assert graph_id(weights, "vae-encoder", AT) == plain["vae-encoder"]
            assert graph_id(weights, "down", AT).model == plain["down"].model
            names.add(graph_id(weights, "down", AT).adapter)
    assert len(names) == 2
    with adapters.active(AdapterUse()):
        assert graph_id(weights, "down", AT) == plain["down"]


def test_the_middle_block_sees_no_more_than_its_own_map(model: Model) -> None:
    ragged, full = (
        graph_id(model, "middle", Profile.at(extent))
        for extent in (Extent(72, 120), Extent(128, 128))
    )
    assert ragged == full
    assert graph_id(model, "down", Profile.at(Extent(72, 120))) != graph_id(
        model, "down", Profile.at(Extent(128, 128))
    )


def test_there_and_back(model: Model) -> None:
    for profile in (AT, Profile(Extent(64, 64), Extent(128, 192), Extent(256, 256, 2))):
        graph = graph_id(model, "up", profile, features=2)
        assert read_graph_id(json.loads(json.dumps(graph.to_dict()))) == graph
        ends = Profile.read(str(profile))
        assert (ends.least, ends.most) == (profile.least, profile.most)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (("unet2", AT), "no part 'unet2'; use down, middle"),
        (("down", AT, 2), "only up has them"),
        (("up", AT, 4), "blocks 0 to 3"),
        (("down", Profile.at(Extent(100, 128))), "multiples of 8 pixels, got 128x100"),
        (("down", Profile.at(Extent(0, 128))), "multiples of 8 pixels, got 128x0"),
        (("down", Profile.at(Extent(64, 64, 0))), "batch must be 1 or more, got 0"),
        (("down", Profile(Extent(64, 64), Extent(72, 64), Extent(128, 128))), "dynamic sizes .*64"),
        (("down", Profile(Extent(64, 64), Extent(256, 64), Extent(128, 128))), "does not lie b"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported(model: Model, ask: tuple[object, ...], words: str) -> None:
    with pytest.raises(ExportError, match=words):
        graph_id(model, *ask)  # type: ignore[arg-type]


def test_the_code_that_makes_a_graph_is_part_of_it() -> None:
    assert len(code()) == 64


# Plan files.


def test_a_plan_comes_back_as_it_was(model: Model, tmp_path: Path) -> None:
    path = write_plan(tmp_path, built(model), b"a plan's bytes", {"seconds": 1.5})
    assert path.name == built(model).file
    assert about_plan(path) == (built(model), {"seconds": 1.5})
    assert read_plan(path, built(model)) == b"a plan's bytes"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_dynamic_plan_comes_back_too(model: Model, tmp_path: Path) -> None:
    graph = graph_id(
        model, "up", Profile(Extent(64, 64), Extent(128, 128), Extent(256, 256, 2)), features=1
    )
    path = write_plan(tmp_path, PlanId(graph, "tensorrt_rtx", "1.7", "any", True), b"bytes", {})
    assert about_plan(path)[0].graph == graph


@pytest.mark.parametrize("length", [0, 1, 10, 17, 18, 20, 25, 26, 200, -1, -5, -10, -11])
def test_every_way_to_be_cut_off(model: Model, tmp_path: Path, length: int) -> None:
    path = write_plan(tmp_path, built(model), b"0123456789", {})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(PlanError, match=r"cut off|is no plan of ours \(it begins with b''\)"):
        read_plan(path, built(model))


def test_corrupt_and_foreign_files(model: Model, tmp_path: Path) -> None:
    path = write_plan(tmp_path, built(model), b"0123456789", {})
    raw = path.read_bytes()
    path.write_bytes(raw[:-3] + b"!" + raw[-2:])
    with pytest.raises(PlanError, match="is corrupt: its digest does not match"):
        read_plan(path, built(model))
    path.write_bytes(raw + b"more")
    with pytest.raises(PlanError, match="is corrupt"):
        read_plan(path, built(model))
    path.write_bytes(b"ftrt" + raw)
    with pytest.raises(PlanError, match="is no plan of ours"):
        read_plan(path, built(model))
    path.write_bytes(raw.replace(b'"part"', b'"trap"', 1))
    with pytest.raises(PlanError, match="header that cannot be read"):
        read_plan(path, built(model))
    with pytest.raises(PlanError, match="no file at"):
        read_plan(tmp_path / "none.plan", built(model))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"flavour": "tensorrt_rtx"}, "flavour is 'tensorrt', wanted is 'tensorrt_rtx'"),
        ({"version": "11.0.0"}, "version is '10.13.0', wanted is '11.0.0'"),
        ({"target": "sm80"}, "target is 'sm90', wanted is 'sm80'"),
    ],
)
def test_another_plan_under_this_name(
    model: Model, tmp_path: Path, wanted: dict[str, str], words: str
) -> None:
    """A file that was renamed, or carried to another machine."""
    path = write_plan(tmp_path, built(model), b"0123456789", {})
    with pytest.raises(PlanError, match=words):
        read_plan(path, built(model, **wanted))
    graph = dataclasses.replace(built(model).graph, adapter="a" * 64, model="b" * 64)
    with pytest.raises(PlanError, match=r"model is .* wanted is .*; adapter is '', wanted"):
        read_plan(path, built(model, graph=graph))


def test_random_damage_is_never_taken_for_a_plan(model: Model, tmp_path: Path) -> None:
    """Every third byte changed, one at a time: an error, or the same plan.

    The same plan where only figures of the build have changed.
    """
    path = write_plan(tmp_path, built(model), bytes(range(64)), {"seconds": 1.25})
    raw = path.read_bytes()
    for place in range(0, len(raw), 3):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        try:
            assert read_plan(path, built(model)) == bytes(range(64)), place
        except PlanError:
            continue


def test_nothing_is_left_of_a_plan_that_does_not_fit_the_disk(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dragnoise.engine.errors import OutputError

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_plan(tmp_path, built(model), b"0123456789", {})
    assert not list(tmp_path.iterdir())


def test_a_graph_is_hashable(model: Model) -> None:
    graph: GraphId = graph_id(model, "down", AT)
    assert len({graph, graph_id(model, "down", AT)}) == 1
