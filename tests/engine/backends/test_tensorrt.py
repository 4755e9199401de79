"""Our TensorRT runtime on a double: how it is called, and what is said when it says no.

The double (recording_tensorrt.py) is not TensorRT. It computes with onnxruntime on the memory that
it is handed, so that a whole edit through it also proves cut, placement and buffers. What TensorRT
itself computes is for the tests marked `gpu`.
"""

import dataclasses
import importlib.util
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dragnoise.engine import BackendError, DragConfig, Editor, PlanError
from dragnoise.engine.backends import BACKENDS
from dragnoise.engine.backends.artefacts import Artefacts
from dragnoise.engine.backends.tensorrt import Engine, Library, library, objections_to_tensorrt
from dragnoise.engine.backends.tensorrt import backend as plans_backend
from dragnoise.engine.backends.tensorrt.flavours import FLAVOURS
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.parts import PARTS, VAE_DECODER
from dragnoise.engine.exported import OF_AN_EDIT, Extent, Profile, signature
from exported_parts import (
    HEIGHT,
    WIDTH,
    assert_same_edit,
    at,
    by_pytorch,
    doubles,
    edited,
    golden,
    graphs,
    model,
    noise,
    plans,
)
from recording_tensorrt import Misuse, OnCpu, Recording, double

VAE = Extent(HEIGHT, WIDTH)


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Recording:
    """TensorRT is the double, and its device is the CPU."""
    module, found = double()
    monkeypatch.setattr(plans_backend, "library", lambda: Library("tensorrt", module, "10.13"))
    monkeypatch.setattr(plans_backend, "Cuda", lambda device: OnCpu())
    row = dataclasses.replace(BACKENDS["tensorrt"], objections=lambda model: [])
    monkeypatch.setitem(BACKENDS, "tensorrt", row)
    return found


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    doubles(exported, tmp_path, OF_AN_EDIT, at(HEIGHT, WIDTH))
    return tmp_path


def decoder(folder: Path) -> Any:
    """Runs the VAE's decoder by the double."""
    editor = Editor(model(), backend="drag=eager,vae=tensorrt", exported=folder)
    return editor.running.exported["tensorrt"].function(VAE_DECODER)


LATENT = noise(1, 4, HEIGHT // 8, WIDTH // 8)


# On the double.


def test_an_edit_through_the_runtime(folder: Path, recording: Recording) -> None:
    result = edited(Editor(model(), backend="tensorrt", exported=folder))
    assert_same_edit(result, by_pytorch())
    said = result.settings["exported"]["tensorrt"]
    assert sorted(one["file"].split(".")[0] for one in said) == sorted(OF_AN_EDIT)
    assert all(one["working_bytes"] == 1000 and one["weights_bytes"] > 0 for one in said)
    assert recording.contexts == len(OF_AN_EDIT)
    # 3 steps inverted, 1 drag begun, 3 steps denoised of which the first is the drag's own
    # decoder half; two halves of the VAE, and its decoder for how well it knows the picture
    assert recording.calls.count("execute_async_v3") == 3 * 3 + 2 + 1 + 2 * 2 + 3


def test_outputs_belong_to_the_caller(folder: Path, recording: Recording) -> None:
    run = decoder(folder)
    one = run(LATENT)
    kept = one.clone()
    run(LATENT + 1)
    assert torch.equal(one, kept)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            "deserialize_cuda_engine",
            "does not load the plan .* on Double 9000: Error Code 1: this plan is for another",
        ),
        ("create_execution_context", "gives no execution context: out of memory"),
        (
            "set_input_shape",
            r"does not take latent of \[1, 4, 8, 16\]: latent: no profile has this shape",
        ),
        ("set_tensor_address", "does not take latent"),
        ("execute_async_v3", "did not run: enqueue failed"),
    ],
)
def test_every_no_is_heard(folder: Path, recording: Recording, call: str, words: str) -> None:
    """TensorRT raises nothing: it returns None or False. And afterwards everything goes on."""
    run = decoder(folder)
    recording.refuse.append(call)
    with pytest.raises(PlanError, match=words):
        run(LATENT)
    assert run(LATENT).shape == (1, 3, HEIGHT, WIDTH)


def test_each_thread_has_a_context(folder: Path, recording: Recording) -> None:
    run, found = decoder(folder), []
    first = run(LATENT)
    threads = [threading.Thread(target=lambda: found.append(run(LATENT))) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    assert len(found) == 3
    assert all(torch.equal(one, first) for one in found)
    assert recording.contexts == 4


def test_a_dynamic_plan_is_loaded_once(
    exported: Path, tmp_path: Path, recording: Recording
) -> None:
    """Its weights are there once, whatever the sizes; a context is there for each.

    A context knows its shapes, and may have been captured with them.
    """
    doubles(
        exported,
        tmp_path,
        ("vae-decoder",),
        Profile(Extent(64, 64), Extent(64, 128), Extent(128, 128, 2)),
    )
    run = decoder(tmp_path)
    plain = Editor(model(), backend="eager").model.autoencoder
    for shape in ((1, 4, 8, 16), (1, 4, 16, 8), (1, 4, 8, 16), (2, 4, 8, 8)):
        latent = noise(*shape)
        torch.testing.assert_close(run(latent), plain.decode(latent), rtol=1e-4, atol=1e-4)
    assert recording.calls.count("deserialize_cuda_engine") == 1
    assert recording.contexts == 3


def test_tensors_are_made_what_the_plan_takes(folder: Path, recording: Recording) -> None:
    """Another precision and another memory order are converted; another size has no plan."""
    run = decoder(folder)
    odd = LATENT.double().contiguous(memory_format=torch.channels_last)
    assert torch.equal(run(odd), run(LATENT))
    with pytest.raises(
        PlanError, match=r"no plan of vae-decoder for 64x64-b1 lies in .* --flavour tensorrt"
    ):
        run(noise(1, 4, 8, 8))


def test_an_engine_takes_nothing_else(exported: Path) -> None:
    module, _ = double()
    names = signature(golden(), "vae-decoder", VAE)
    path = graphs(exported, ("vae-decoder",), at(HEIGHT, WIDTH))["vae-decoder"][0]
    plan = b'{"onnx": "%s"}' % str(path).encode()
    engine = Engine(Library("tensorrt", module, "10.13"), plan, names, OnCpu(), "a plan")
    for wrong in (
        LATENT.half(),
        LATENT.contiguous(memory_format=torch.channels_last),
        LATENT.to("meta"),
    ):
        with pytest.raises(
            PlanError, match=r"takes latent as a contiguous torch.float32 tensor on cpu, got"
        ):
            engine({"latent": wrong})
    with pytest.raises(PlanError, match="lacks latent"):
        engine({})
    with pytest.raises(
        PlanError, match="is of another part: it maps latent -> pixels; build it again"
    ):
        Engine(
            Library("tensorrt", module, "10.13"),
            plan,
            signature(golden(), "vae-encoder", VAE),
            OnCpu(),
            "a plan",
        )


def test_the_double_fails_where_tensorrt_would_be_misused(exported: Path) -> None:
    """A test of the double: without this it might let everything pass."""
    module, _ = double()
    path = graphs(exported, ("vae-decoder",), at(HEIGHT, WIDTH))["vae-decoder"][0]

    class Logger(module.ILogger):  # type: ignore[name-defined, misc]
        def log(self, severity: Any, text: str) -> None: ...

    context = (
        module.Runtime(Logger())
        .deserialize_cuda_engine(b'{"onnx": "%s"}' % str(path).encode())
        .create_execution_context()
    )
    with pytest.raises(Misuse, match="a shape is asked for before"):
        context.get_tensor_shape("pixels")
    context.set_input_shape("latent", (1, 4, 8, 16))
    with pytest.raises(Misuse, match="no address is set for latent, pixels"):
        context.execute_async_v3(7)
    pixels = torch.empty(1, 3, HEIGHT, WIDTH)
    for name, tensor in (("latent", LATENT), ("pixels", pixels)):
        context.set_tensor_address(name, tensor.data_ptr())
    with pytest.raises(Misuse, match="the default one"):
        context.execute_async_v3(0)
    assert context.execute_async_v3(7)
    with pytest.raises(Misuse, match="no address is set"):
        context.execute_async_v3(7)
    seen: list[Exception] = []

    def elsewhere() -> None:
        try:
            context.infer_shapes()
        except Misuse as misuse:
            seen.append(misuse)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "another thread" in str(seen[0])


def test_what_rtx_compiles_for_a_device_is_kept(exported: Path, tmp_path: Path) -> None:
    """Its runtime cache is read before a context is made and written after the first run, whole."""
    module, _ = double()
    names = signature(golden(), "vae-decoder", VAE)
    path = graphs(exported, ("vae-decoder",), at(HEIGHT, WIDTH))["vae-decoder"][0]
    seen: list[bytes] = []
    cache = SimpleNamespace(deserialize=seen.append, serialize=lambda: b"kernels")
    config = SimpleNamespace(
        create_runtime_cache=lambda: cache, set_runtime_cache=lambda given: seen.append(b"set")
    )
    kept = tmp_path / "a.compiled"
    for expected in ([b"set"], [b"kernels", b"set"]):
        engine = Engine(
            Library("tensorrt_rtx", module, "1.7"),
            b'{"onnx": "%s"}' % str(path).encode(),
            names,
            OnCpu(),
            "a plan",
            kept,
        )
        plain = engine._engine.create_execution_context
        engine._engine.create_runtime_config = lambda: config
        engine._engine.create_execution_context = lambda given, plain=plain: plain()
        engine({"latent": LATENT})
        engine({"latent": LATENT})
        assert seen == expected
        assert kept.read_bytes() == b"kernels"
        seen.clear()


# Which plan is read.


def test_plans_of_another_device_library_or_size_are_not_read(
    folder: Path, recording: Recording
) -> None:
    module, _ = double()
    artefacts = Artefacts(folder)
    trt = Library("tensorrt", module, "10.13")
    assert artefacts.plan(model(), "up", VAE, trt)[0].exists()
    for other in (Library("tensorrt", module, "11.0"), Library("tensorrt_rtx", module, "10.13")):
        with pytest.raises(
            PlanError,
            match=r"\(there is one for tensorrt-10.13.none, which cannot be used here\); make ",
        ):
            artefacts.plan(model(), "up", VAE, other)
    with pytest.raises(PlanError, match="no plan of up for 128x128-b1"):
        artefacts.plan(model(), "up", Extent(128, 128), trt)


def test_a_plan_that_was_renamed_is_told_from_its_header(
    folder: Path, recording: Recording
) -> None:
    wanted = Artefacts(folder).plan(
        model(), "vae-decoder", VAE, Library("tensorrt", None, "10.13")
    )[0]
    (folder / wanted.name.replace("10.13", "10.12")).write_bytes(b"other")
    other = next(folder.glob("vae-encoder*"))
    wanted.write_bytes(other.read_bytes())
    with pytest.raises(
        PlanError, match="is another's: part is 'vae-encoder', wanted is 'vae-decoder'"
    ):
        decoder(folder)(LATENT)
    wanted.write_bytes(b"garbage")
    with pytest.raises(PlanError, match="is no plan of ours"):
        decoder(folder)(LATENT)


# The real library of TensorRT for RTX, which loads and builds without a GPU, and runs nothing.


def test_the_library_is_the_one_that_is_here() -> None:
    rtx = library("tensorrt_rtx")
    assert rtx.flavour == "tensorrt_rtx"
    assert int(rtx.version.split(".")[0]) >= 1
    assert rtx.targets((8, 9)) == ("any", "sm89")
    assert Library("tensorrt", None, "10.13").targets((9, 0)) == ("sm90",)


@pytest.fixture
def importing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], None]]:
    """Says what is found, or raised, where a library is imported."""
    from dragnoise.engine.backends.tensorrt import flavours as module

    def now(found: Any) -> None:
        def load(name: str) -> Any:
            if isinstance(found, Exception):
                raise found
            return found

        module._load.cache_clear()
        monkeypatch.setattr(module, "importlib", SimpleNamespace(import_module=load))

    yield now
    module._load.cache_clear()


def test_a_library_that_is_missing_or_too_old_says_so(importing: Callable[[Any], None]) -> None:
    with pytest.raises(
        BackendError, match="no TensorRT flavour 'fast'; known: tensorrt, tensorrt_rtx"
    ):
        library("fast")
    importing(ImportError("No module named 'tensorrt'"))
    missing = (
        r"tensorrt cannot be imported \(No module named 'tensorrt'\); "
        r"pip install 'dragnoise\[tensorrt\]'"
    )
    with pytest.raises(BackendError, match=missing):
        library("tensorrt")
    assert "tensorrt_rtx cannot be imported" in objections_to_tensorrt()[0]
    importing(SimpleNamespace(__version__="10.9.0", Builder=object))
    with pytest.raises(
        BackendError, match=r"tensorrt 10\.9\.0 is too old; 10\.12 or newer is needed"
    ):
        library("tensorrt")
    importing(SimpleNamespace(__version__="10.13.0"))
    with pytest.raises(BackendError, match="has no Builder"):
        library("tensorrt")


@pytest.mark.parametrize(
    ("flavour", "capability", "runs"),
    [
        ("tensorrt", (9, 0), True),
        ("tensorrt_rtx", (7, 0), False),
        ("tensorrt_rtx", (8, 9), True),
        ("tensorrt_rtx", (9, 0), False),  # seen on an H100
        ("tensorrt_rtx", (10, 0), False),
        ("tensorrt_rtx", (12, 1), True),
        ("tensorrt_rtx", (13, 0), True),
    ],
)
def test_a_card_that_a_flavour_does_not_take(
    flavour: str, capability: tuple[int, int], runs: bool
) -> None:
    said = Library(flavour, None, "1.7.1").objections_to(capability)
    assert (said == []) == runs
    if said:
        assert f"this card has {capability[0]}.{capability[1]}; pip install" in said[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device to load it on")
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda plan: plan, "CUDA driver version is insufficient|CUDA"),
        (lambda plan: plan[: len(plan) // 2], "header.size == blobSize"),
        (lambda plan: b"", "empty memory buffer"),
        (lambda plan: b"garbage" * 100, "magicTag"),
    ],
    ids=["no driver", "truncated", "empty", "garbage"],
)
def test_a_plan_that_does_not_load_says_why(exported: Path, damage: Any, words: str) -> None:
    """The real library: it returns None, and the reason is in its log."""
    path, built = plans(exported, ("vae-decoder",), at(HEIGHT, WIDTH))["vae-decoder"]
    from dragnoise.engine.exported import read_plan

    names = signature(golden(), "vae-decoder", VAE)
    with pytest.raises(
        PlanError, match=f"tensorrt_rtx .* does not load the plan it on Double 9000: .*({words})"
    ):
        Engine(library("tensorrt_rtx"), damage(read_plan(path, built)), names, OnCpu(), "it")


# On a GPU.


@pytest.mark.gpu
@pytest.mark.skipif(
    not any(importlib.util.find_spec(name) for names in FLAVOURS.values() for name in names),
    reason="no TensorRT is installed",
)
@pytest.mark.skipif(
    torch.cuda.is_available()
    and bool(
        objections_to_tensorrt() or library().objections_to(torch.cuda.get_device_capability())
    ),
    reason="no TensorRT that is installed takes this card",
)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_plan_computes_what_pytorch_computes(tmp_path: Path, dtype: str) -> None:
    """Each part beside eager PyTorch on the device, on the same inputs; then whole edits."""
    from dragnoise.engine.diffusion.load import load
    from dragnoise.engine.exported import DTYPES, EXPORTABLE, part_of, precision_of
    from dragnoise.export.__main__ import main
    from dragnoise.export.inputs import example
    from golden_cases import MODEL

    short = {str(value).removeprefix("torch."): name for name, value in DTYPES.items()}[dtype]
    parts = [word for part in EXPORTABLE for word in ("--part", part)]
    assert (
        main(
            [
                "plan",
                str(MODEL),
                *parts,
                "--size",
                f"{WIDTH}x{HEIGHT}",
                "--dtype",
                short,
                "-o",
                str(tmp_path),
            ]
        )
        == 0
    )
    on_device: Model = load(MODEL, device="cuda", dtype=dtype)
    editor = Editor(
        on_device,
        backend="drag=eager,down=tensorrt,middle=tensorrt,up=tensorrt,vae=tensorrt",
        exported=tmp_path,
    )
    served = editor.running.exported["tensorrt"]
    tolerance = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 8e-2}[dtype]
    for part in EXPORTABLE:
        given = {name: tensor.cuda() for name, tensor in example(golden(), part, VAE).items()}
        precision = precision_of(on_device, part)
        with torch.no_grad():
            expected = part_of(on_device, on_device.unet, part)(
                *(tensor.to(precision) for tensor in given.values())
            )
        found = served.run(PARTS[part], *given.values())
        for mine, theirs in zip(
            found, (expected,) if isinstance(expected, torch.Tensor) else expected, strict=True
        ):
            assert (
                float((mine.float() - theirs.float()).norm() / theirs.float().norm()) < tolerance
            ), part
    quick = DragConfig(steps=10, strength=0.3, iterations=3, lr=0.02)
    placed, plain = (
        edited(editor, quick).record,
        edited(Editor(on_device, backend="eager"), quick).record,
    )
    assert placed is not None
    assert plain is not None
    error = (placed.final_latent - plain.final_latent).norm() / plain.final_latent.norm()
    assert float(error) < 5 * tolerance
    again = edited(editor, quick)  # by captured passes
    assert again.record is not None
    assert torch.equal(again.record.final_latent, placed.final_latent)
