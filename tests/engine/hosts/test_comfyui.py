"""ComfyUI's nodes, on a double of what they see of ComfyUI; and the workflow files."""

import asyncio
import gc
import importlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

import comfy_double
from comfy_double import Interrupted, comfy
from documents import ROOT
from dragnoise.engine import DragnoiseError, Editor, Image
from golden_cases import MODEL
from sessions import MASK, PICTURE, POINTS

WORKFLOWS = ROOT / "examples" / "comfyui"
API = json.loads((WORKFLOWS / "drag-api.json").read_text(encoding="utf-8"))
DRAWN = json.loads((WORKFLOWS / "drag.json").read_text(encoding="utf-8"))
IMAGE = torch.tensor(PICTURE.pixels)[None] / 255
TEXT = "20,20:40,34"


@pytest.fixture(scope="module")
def pack() -> Iterator[Any]:
    """The nodes' module, imported as ComfyUI does: by the folder in custom_nodes."""
    with comfy_double.install():
        path = WORKFLOWS / "custom_nodes" / "dragnoise" / "__init__.py"
        spec = importlib.util.spec_from_file_location("dragnoise_nodes", path)
        assert spec is not None
        assert spec.loader is not None
        folder = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(folder)
        module = importlib.import_module("dragnoise.engine.hosts.comfyui")
        assert folder.comfy_entrypoint is module.comfy_entrypoint
        yield module


@pytest.fixture(autouse=True)
def quiet_room() -> Iterator[None]:
    comfy.stops = False
    comfy.bars.clear()
    comfy.pictures.clear()
    yield
    comfy.stops = False


def opened(pack: Any) -> tuple[Any, Any]:
    """An editor on the golden model, and a session on a small picture."""
    (editor,) = pack.Load.execute(str(MODEL), "float32", "cpu").args
    (session,) = pack.Open.execute(editor, IMAGE, "a face").args
    return editor, session


def test_schemas(pack: Any) -> None:
    schemas = [node.define_schema() for node in pack.NODES]
    assert len({schema.node_id for schema in schemas}) == 4
    for node, schema in zip(pack.NODES, schemas, strict=True):
        schema.validate()
        names = node.execute.__func__.__code__.co_varnames
        assert {each.id for each in schema.inputs} <= set(names)
    assert [schema.is_output_node for schema in schemas] == [False, False, False, True]


def test_the_workflow_runs(pack: Any, tmp_path: Path) -> None:
    """On the embedded model, as it lies in examples; the result is the engine's to the bit."""
    from dragnoise.engine.cli.demo import samples

    boat = Image.of(next(sample.image for sample in samples() if sample.name == "boat"))
    boat.save(tmp_path / "boat.png")
    made = comfy_double.run(API, pack.comfy_entrypoint, str(tmp_path))
    (saved,) = comfy.pictures
    points = API["4"]["inputs"]["points"]
    wanted = Editor.from_pretrained(device="cpu").edit(boat, points, prompt="a boat", preset="fast")
    assert np.array_equal((saved[0] * 255).round().numpy().astype(np.uint8), wanted.image.pixels)
    assert made["4"].args[1].endswith(":80,40")
    assert made["6"].ui.image is made["6"].args[0]
    assert made["5"].args[0].shape[1] >= 256  # drawn on, enlarged
    assert comfy.bars[-1][0] == comfy.bars[-1][1]


def test_workflow_files_fit_the_schemas_and_each_other(pack: Any) -> None:
    schemas = {node.define_schema().node_id: node.define_schema() for node in pack.NODES}
    drawn = {str(node["id"]): node for node in DRAWN["nodes"]}
    links = {link[0]: link for link in DRAWN["links"]}
    assert drawn.keys() == API.keys()
    for name, row in API.items():
        node = drawn[name]
        assert node["type"] == row["class_type"]
        slots = {slot["name"]: slot for slot in node["inputs"]}
        for key, value in row["inputs"].items():
            if isinstance(value, list):
                _, source, output, target, place, kind = links[slots[key]["link"]]
                assert [str(source), output] == value
                assert (str(target), node["inputs"][place]["name"]) == (name, key)
                given = drawn[str(source)]["outputs"][output]
                assert given["type"] == kind == slots[key]["type"]
                assert slots[key]["link"] in given["links"]
        schema = schemas.get(row["class_type"])
        if schema is None:
            continue
        known = {each.id: each for each in schema.inputs}
        assert row["inputs"].keys() <= known.keys()
        assert {key for key, each in known.items() if not each.optional} <= row["inputs"].keys()
        assert [each.io_type for each in schema.outputs] == [out["type"] for out in node["outputs"]]
        for key, slot in slots.items():
            assert slot["type"] == known[key].io_type
        widgets = [each for each in schema.inputs if each.io_type in ("STRING", "COMBO")]
        assert len(node["widgets_values"]) == len(widgets)
        for widget, value in zip(widgets, node["widgets_values"], strict=True):
            if not isinstance(row["inputs"][widget.id], list):
                assert value == row["inputs"][widget.id]
            if widget.io_type == "COMBO":
                assert value in widget.rest["options"]


def test_drags_of_a_session_do_not_depend_on_each_other(pack: Any) -> None:
    editor, session = opened(pack)
    marks = torch.tensor(MASK)[None].float()
    first = pack.Drag.execute(session, TEXT, "fast", mask=marks)
    pack.Drag.execute(session, "40,44:12,30", "live")
    again = pack.Drag.execute(session, TEXT, "fast", mask=marks[0])
    assert torch.equal(first.args[0], again.args[0])
    assert first.args[1] == again.args[1]
    wanted = editor.edit(PICTURE, POINTS, mask=MASK, prompt="a face", preset="fast")
    assert np.array_equal((first.args[0][0] * 255).round().numpy(), wanted.image.pixels)


def test_an_editor_is_found_again_and_goes_when_it_is_let_go(pack: Any) -> None:
    (one,) = pack.Load.execute(str(MODEL), "float32", "cpu").args
    assert pack.Load.execute(f" {MODEL} ", "float32", "cpu").args == (one,)
    other = pack.Load.execute(str(MODEL), "bfloat16", "cpu").args[0]
    assert other is not one
    held = len(pack._editors)
    del one, other
    gc.collect()
    assert len(pack._editors) <= held - 2


def test_a_changed_model_is_another(pack: Any, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    before = pack.Load.fingerprint_inputs(str(file), "float32", "cpu")
    assert before == pack.Load.fingerprint_inputs(str(file), "float32", "cpu")
    file.write_bytes(b"other")
    assert before != pack.Load.fingerprint_inputs(str(file), "float32", "cpu")
    assert pack.Load.fingerprint_inputs("", "float32", "cpu")[0]  # the embedded model's files


def test_interrupted_it_ends_and_the_session_goes_on(pack: Any) -> None:
    _, session = opened(pack)
    comfy.stops = True
    with pytest.raises(Interrupted):
        pack.Drag.execute(session, TEXT, "fast")
    comfy.stops = False
    assert pack.Drag.execute(session, TEXT, "fast").args[0].shape == IMAGE.shape


@pytest.mark.parametrize(
    ("node", "given", "words"),
    [
        ("Open", {"image": torch.zeros(2, 8, 8, 3)}, "one picture, got a batch of 2"),
        ("Open", {"image": torch.zeros(8, 8, 3)}, r"must be \[1, height, width, 3\], got"),
        ("Drag", {"mask": torch.zeros(2, 64, 64)}, r"mask must be \[1, height, width\], got"),
        ("Drag", {"grip": torch.zeros(1, 8, 9)}, "9x8"),
        ("Drag", {"points": "200,20:40,34"}, "outside the 64x64 image"),
        ("Preview", {"points": "200,20:40,34"}, "outside the 64x64 image"),
    ],
)
def test_what_does_not_fit(pack: Any, node: str, given: dict[str, Any], words: str) -> None:
    editor, session = opened(pack)
    usual: dict[str, dict[str, Any]] = {
        "Open": {"editor": editor, "image": IMAGE, "prompt": ""},
        "Drag": {"session": session, "points": TEXT, "preset": "fast"},
        "Preview": {"image": IMAGE, "points": TEXT},
    }
    with pytest.raises(DragnoiseError, match=words):
        getattr(pack, node).execute(**(usual[node] | given))


def test_points_and_models_are_judged_before_anything_runs(pack: Any) -> None:
    assert pack.Drag.validate_inputs(points="60,40:80,40 1,2:3,4") is True
    assert pack.Drag.validate_inputs() is True  # another node gives them
    assert "is not a drag" in pack.Drag.validate_inputs(points="60,40")
    with pytest.raises(DragnoiseError, match="no model at 'nowhere'"):
        pack.Load.fingerprint_inputs("nowhere", "float32", "cpu")


def test_every_node_is_in_the_extension(pack: Any) -> None:
    async def listed() -> list[Any]:
        extension = await pack.comfy_entrypoint()
        nodes: list[Any] = await extension.get_node_list()
        return nodes

    assert asyncio.run(listed()) == list(pack.NODES)


def test_previews_are_the_engines_drawings(pack: Any) -> None:
    from dragnoise.engine import Points
    from dragnoise.engine.cli.drawing import with_points

    (drawn,) = pack.Preview.execute(IMAGE, TEXT).args
    wanted = np.asarray(with_points(PICTURE, Points.of(TEXT)))
    assert isinstance(with_points(PICTURE, Points.of(TEXT)), PIL.Image.Image)
    assert np.array_equal((drawn[0] * 255).round().numpy(), wanted)
