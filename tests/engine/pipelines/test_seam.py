"""A method of one's own is a row: nothing in the engine knows it, and all of the engine serves it.

Proved with two methods that only tests have (`toy_methods`): one optimises the latent, with the
encoder half in the loop; one knows no diffusion at all.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dragnoise.engine import ConfigError, DragConfig, Editor, EditResult, Image, Session, Store
from dragnoise.engine.diffusion.parts import Part
from dragnoise.engine.drag.method import AnyMethod
from dragnoise.engine.methods import METHODS
from dragnoise.engine.run import Run
from dragnoise.engine.stages import decode, invert
from golden_cases import GOLDEN, MODEL
from toy_methods import LATENT, PIXELS, LatentSettings, PixelSettings

PICTURE = Image.of(GOLDEN / "images" / "discs_256x256.png")
SMALL = Image(PICTURE.pixels[64:160, 64:160])
POINTS = "40,44:60,52"
FURTHER = "40,44:64,54"
OTHERS = "40,44:60,52 20,70:30,60"
SETTINGS: dict[str, Any] = {
    LATENT.name: LatentSettings(steps=6, strength=0.5, iterations=4, lr=0.02, lam=0.1),
    PIXELS.name: PixelSettings(),
}
MASK = np.zeros((96, 96), np.bool_)
MASK[:30] = True

both = pytest.mark.parametrize("method", [LATENT, PIXELS], ids=lambda method: method.name)


@cache
def editor() -> Editor:
    return Editor.from_pretrained(MODEL, device="cpu", check_pictures=False)


def edit(method: AnyMethod, points: str = POINTS, **how: Any) -> EditResult:
    how = {"config": SETTINGS[method.name], **how}
    return editor().edit(SMALL, points, method=method, **how)


def opened(method: AnyMethod, one: Editor | None = None) -> Session:
    return (one or editor()).open(SMALL, config=SETTINGS[method.name])


def same(one: EditResult, other: EditResult) -> bool:
    return (
        np.array_equal(one.image.pixels, other.image.pixels)
        and np.array_equal(one.history.losses, other.history.losses)
        and np.array_equal(one.history.handles, other.history.handles)
    )


@both
def test_it_edits(method: AnyMethod) -> None:
    plain = edit(method)
    assert plain.settings["method"] == method.name
    assert plain.image.pixels.shape == SMALL.pixels.shape
    assert len(plain.history.losses) == SETTINGS[method.name].iterations
    assert np.isfinite(plain.history.losses).all()
    assert not np.array_equal(plain.image.pixels, edit(method, "10,10:30,30").image.pixels)
    assert same(plain, edit(method))
    held = edit(method, mask=MASK)
    assert not np.array_equal(plain.image.pixels, held.image.pixels)


@both
def test_its_sessions_are_edits_and_go_on(method: AnyMethod) -> None:
    session = opened(method)
    first = session.drag(POINTS, method=method)
    assert same(first, edit(method))
    stopped = session.drag(POINTS, method=method, base="result", config=_still(method))
    assert np.array_equal(stopped.image.pixels, first.image.pixels)
    session.undo()
    onward = session.drag(FURTHER, method=method, base="last")
    assert np.array_equal(onward.history.handles[0][0], first.history.handles[-1][0]) or (
        np.abs(onward.history.handles[0][0] - first.history.handles[-1][0]).max() <= 8
    )
    again = session.drag(OTHERS, method=method)
    assert same(again, edit(method, OTHERS))
    assert np.array_equal(session.undo().pixels, onward.image.pixels)
    assert np.array_equal(session.undo().pixels, first.image.pixels)
    assert np.array_equal(session.redo().pixels, onward.image.pixels)


def _still(method: AnyMethod) -> Any:
    return SETTINGS[method.name].replace(iterations=0)


@both
def test_its_streams_show_previews_and_end_alike(method: AnyMethod) -> None:
    *events, last = opened(method).drag_stream(POINTS, method=method, previews=1)
    assert last.result is not None
    assert same(last.result, edit(method))
    previews = [event.preview for event in events]
    assert len(previews) == SETTINGS[method.name].iterations
    assert all(preview is not None for preview in previews)
    pictures = {preview.pixels.tobytes() for preview in previews if preview is not None}
    assert len(pictures) == len(previews), "the preview does not follow the variable"


@both
def test_a_store_serves_it(method: AnyMethod, tmp_path: Path) -> None:
    stored = Editor.from_pretrained(
        MODEL, device="cpu", check_pictures=False, cache=Store(folder=tmp_path)
    )
    results = [
        stored.edit(SMALL, POINTS, method=method, config=SETTINGS[method.name]) for _ in range(2)
    ]
    assert same(results[0], edit(method))
    assert same(results[1], results[0])


def test_what_cannot_be_kept_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A method of one's own has no digest: a store cannot know that its code is the same."""
    stored = Editor.from_pretrained(
        MODEL, device="cpu", check_pictures=False, cache=Store(folder=tmp_path)
    )
    session = opened(LATENT, stored)
    for points in (POINTS, OTHERS):
        session.drag(points, method=LATENT)
        session.drag(points, method=LATENT, config=SETTINGS[LATENT.name].replace(steps=8))
    said = [record.message for record in caplog.records if "start are not kept" in record.message]
    assert len(said) == 1


def test_the_encoder_half_is_in_the_loop() -> None:
    """What a method cannot reuse follows from its functions: the work is what they run."""
    ran: dict[str, list[str]] = {}
    for method in (LATENT, METHODS["dragnoise"]):
        names = ran[method.name] = []
        one = Editor.from_pretrained(MODEL, device="cpu", check_pictures=False, backend="eager")
        unet = one.model.unet
        run_part = unet.run

        def watched(part: Part, run: Any = run_part, names: list[str] = names) -> Any:
            names.append(part.name)
            return run(part)

        unet.run = watched  # type: ignore[method-assign]
        config = DragConfig(steps=6, strength=0.5, iterations=4, lr=0.02, lam=0.1)
        own = SETTINGS[method.name] if method is LATENT else config
        one.edit(SMALL, POINTS, method=method, config=own)
    assert ran["toy-latent"].count("down") == 4
    assert ran["dragnoise"].count("down") == 1
    assert ran["toy-latent"].count("unet") == 3 + 3  # to invert, and to denoise
    assert "unet-replaced" not in ran["toy-latent"]


def test_denoising_starts_where_the_method_says() -> None:
    """Without an update from the inverted latent; with updates from the optimum itself."""
    record = edit(LATENT, record=True).record
    assert record is not None
    place = record.scene.place
    model = place.model
    latent = record.optimum.variable
    assert not torch.equal(latent, record.inverted)
    with torch.no_grad():
        for _, timestep in place.schedule.active(place.active_steps):
            output = model.unet(latent, place.conditioning.at(timestep))
            noise = place.schedule.noise(output, latent, timestep)
            latent = place.schedule.denoise(noise, latent, timestep)
    assert torch.equal(record.final_latent, latent)
    assert torch.equal(record.pixels, Run()(decode, model, latent))


def test_one_inversion_serves_two_methods(tmp_path: Path) -> None:
    """What they share is known by what it is made of, not by whose it is."""
    stored = Editor.from_pretrained(
        MODEL, device="cpu", check_pictures=False, cache=Store(folder=tmp_path)
    )
    ours = DragConfig(steps=6, strength=0.5, iterations=1)
    assert invert.__name__ in stored.edit(SMALL, POINTS, config=ours).timings_ms
    theirs = stored.edit(SMALL, POINTS, method=LATENT, config=SETTINGS[LATENT.name])
    assert invert.__name__ not in theirs.timings_ms


def test_without_diffusion_no_network_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Editor.from_pretrained(MODEL, device="cpu", check_pictures=False)
    monkeypatch.setattr(one.model.unet, "run", lambda part: pytest.fail(f"{part} was run"))
    monkeypatch.setattr(one.model.vae, "encode", lambda *_: pytest.fail("the VAE was run"))
    monkeypatch.setattr(one.model.vae, "decode", lambda *_: pytest.fail("the VAE was run"))
    result = one.edit(SMALL, POINTS, method=PIXELS)
    assert set(result.timings_ms) == {"start", "drag", "total"}
    assert same(result, edit(PIXELS))
    untouched = result.image.pixels[80:, :20]
    assert np.abs(untouched.astype(int) - SMALL.pixels[80:, :20]).max() <= 1


def test_settings_are_the_methods_own() -> None:
    assert edit(PIXELS, config=None).settings["config"] == PixelSettings()
    with pytest.raises(ConfigError, match="toy-pixels takes a PixelSettings as config"):
        edit(PIXELS, config=DragConfig())
    with pytest.raises(ConfigError, match="dragnoise takes a DragConfig as config"):
        editor().edit(SMALL, POINTS, config=SETTINGS[LATENT.name])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_guidance_is_the_networks_affair(guidance: float) -> None:
    config = SETTINGS[LATENT.name].replace(guidance=guidance)
    result = editor().edit(SMALL, POINTS, method=LATENT, config=config, prompt="a ring")
    assert np.isfinite(result.history.losses).all()
