"""Pictures made of a prompt, and dragged without being encoded or inverted."""

import json
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor

from dragnoise.engine import (
    ConfigError,
    DragConfig,
    Editor,
    Generated,
    Image,
    ImageError,
    MaskError,
    PointError,
)
from dragnoise.engine.cache import Store
from dragnoise.engine.cli import main
from dragnoise.engine.stages import draw_noise
from golden_cases import MODEL
from small_models import sd2
from tolerances import assert_close

QUICK = DragConfig(steps=10, strength=0.5, iterations=3, guidance=7.5)
SIZE = (64, 88)
DRAG = "20,20:40,30"


@cache
def editor(backend: str = "eager", dtype: str = "float32") -> Editor:
    return Editor.from_pretrained(
        MODEL, device="cpu", check_pictures=False, backend=backend, dtype=dtype
    )


@cache
def made(
    backend: str = "eager", guidance: float = 7.5, dtype: str = "float32", seed: int = 3
) -> Generated:
    negative = "a disc" if guidance > 1 else ""
    config = QUICK.replace(guidance=guidance)
    return editor(backend, dtype).generate(
        "a ring", negative_prompt=negative, size=SIZE, seed=seed, config=config
    )


def diffusers_latent(folder: Path, guidance: float, prediction: str) -> Tensor:
    """What diffusers' own pipeline makes with the same seed: the clean latent."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        MODEL, local_files_only=True, low_cpu_mem_usage=False
    )
    if folder != MODEL:
        own = Editor.from_pretrained(folder, device="cpu", backend="eager").model
        pipeline.register_modules(unet=own.unet.network, text_encoder=own.text_encoder, vae=own.vae)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type=prediction,
    )
    latent: Tensor = pipeline(
        "a ring",
        negative_prompt="a disc",
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=10,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).images
    return latent


@pytest.mark.parametrize("guidance", [1.0, 7.5])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_it_is_diffusers_picture(prediction: str, guidance: float, tmp_path: Path) -> None:
    """Same seed, same settings, another program: the same latent, but for rounding that guidance
    and ten steps enlarge.
    """
    folder = MODEL if prediction == "epsilon" else sd2(tmp_path / "model")
    own = Editor.from_pretrained(folder, device="cpu", backend="eager")
    negative = "a disc" if guidance > 1 else ""
    found = own.generate(
        "a ring",
        negative_prompt=negative,
        size=SIZE,
        seed=3,
        config=QUICK.replace(guidance=guidance),
    )
    expected = diffusers_latent(folder, guidance, prediction)
    scale = expected.abs().max()
    assert_close(found.trajectory[0] / scale, expected / scale, torch.float16)


def test_the_picture_and_its_trajectory() -> None:
    found = made()
    assert (found.image.height, found.image.width) == SIZE
    assert len(found.trajectory) == QUICK.steps + 1
    factor = editor().model.factor
    for latent in found.trajectory:
        assert latent.dtype == torch.float32
        assert latent.shape == (1, 4, SIZE[0] // factor, SIZE[1] // factor)
    assert torch.equal(
        found.trajectory[-1], draw_noise(editor().model, (SIZE[0] // factor, SIZE[1] // factor), 3)
    )
    assert (found.prompt, found.negative_prompt, found.guidance, found.seed) == (
        "a ring",
        "a disc",
        7.5,
        3,
    )
    assert list(found.timings_ms) == [
        "embed",
        "condition",
        "draw_noise",
        "generate",
        "decode",
        "total",
    ]


def test_a_seed_is_a_picture() -> None:
    again = editor().generate("a ring", negative_prompt="a disc", size=SIZE, seed=3, config=QUICK)
    assert all(
        torch.equal(mine, yours)
        for mine, yours in zip(again.trajectory, made().trajectory, strict=True)
    )
    assert np.array_equal(again.image.pixels, made().image.pixels)
    assert not np.array_equal(made(seed=4).image.pixels, made().image.pixels)


def test_the_negative_prompt_and_guidance_matter() -> None:
    other = editor().generate("a ring", negative_prompt="a face", size=SIZE, seed=3, config=QUICK)
    assert not np.array_equal(other.image.pixels, made().image.pixels)
    assert not np.array_equal(made(guidance=1.0).image.pixels, made().image.pixels)


@pytest.mark.parametrize("guidance", [1.0, 7.5])
@pytest.mark.parametrize(
    ("backend", "dtype"), [("eager", "float32"), ("packed", "float32"), (None, "bfloat16")]
)
def test_left_alone_it_stays_what_it_is(guidance: float, backend: str, dtype: str) -> None:
    """Propagated from the drag's step without a bottleneck held in place, the same passes give the
    same bits.
    """
    source = made(backend, guidance, dtype)
    config = source.config.replace(iterations=0, end_step=QUICK.steps)
    found = editor(backend, dtype).edit(source, DRAG, config=config, record=True)
    assert found.record is not None
    assert torch.equal(found.record.final_latent, source.trajectory[0])
    assert np.array_equal(found.image.pixels, source.image.pixels)


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_it_is_dragged_without_encoding_and_inverting(guidance: float) -> None:
    found = editor().edit(made(guidance=guidance), DRAG, record=True)
    assert set(found.timings_ms) == {
        "embed",
        "condition",
        "start",
        "drag",
        "propagate",
        "decode",
        "total",
    }
    record = found.record
    assert record is not None
    assert len(record.trajectory) == QUICK.active_steps + 1
    assert record.inverted is made(guidance=guidance).trajectory[QUICK.active_steps]
    assert (
        record.scene.place.timestep
        == record.scene.place.schedule.timesteps[QUICK.steps - QUICK.active_steps]
    )
    assert found.settings["config"] == QUICK.replace(guidance=guidance)
    assert len(found.history.losses) == 3
    assert not np.array_equal(found.image.pixels, made(guidance=guidance).image.pixels)


def test_a_session_on_it() -> None:
    """From the source and on from the result it is never inverted; as a picture like any other it
    is, still away from the negative prompt.
    """
    session = editor().open(made())
    first = session.drag(DRAG)
    assert np.array_equal(first.image.pixels, editor().edit(made(), DRAG).image.pixels)
    on = session.drag("40,30:50,20", base="result", record=True)
    assert "invert" not in on.timings_ms
    with pytest.raises(ConfigError, match=r"with guidance 7\.5, not 1\.0"):
        session.drag(DRAG, config=QUICK.replace(guidance=1.0))
    assert np.array_equal(session.image.pixels, on.image.pixels)
    inverted = session.drag("40,30:50,20", base="inverted", record=True)
    assert {"encode", "invert"} <= set(inverted.timings_ms)
    assert on.record is not None
    assert inverted.record is not None
    assert torch.equal(on.record.text, inverted.record.text)


def test_a_drag_of_it_leaves_it_alone() -> None:
    before = [latent.clone() for latent in made().trajectory]
    first, second = (editor().edit(made(), DRAG) for _ in range(2))
    assert all(
        torch.equal(mine, yours) for mine, yours in zip(made().trajectory, before, strict=True)
    )
    assert np.array_equal(first.image.pixels, second.image.pixels)


def test_backends_agree() -> None:
    mine, yours = made("packed"), made("eager")
    scale = yours.trajectory[0].abs().max()
    for one, other in zip(mine.trajectory, yours.trajectory, strict=True):
        assert_close(one / scale, other / scale, torch.float16)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompt": "a face"}, "generated with another prompt than the one given"),
        ({"negative_prompt": "a face"}, "with another negative_prompt than the one given"),
        ({"config": QUICK.replace(steps=20)}, "with steps 10, not 20"),
        ({"config": QUICK.replace(guidance=2.0)}, r"with guidance 7\.5, not 2\.0"),
        ({"method": "baseline"}, "the method baseline has no guidance"),
    ],
)
def test_it_is_dragged_as_it_was_made(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        editor().edit(made(), DRAG, **changes)
    for text in (made().prompt, made().negative_prompt, "a face"):
        assert text not in str(refused.value)


def test_another_models_picture_is_refused() -> None:
    with pytest.raises(ConfigError, match="generated with another model than the one given"):
        editor().edit(replace(made(), model="elsewhere"), DRAG)


def test_the_baseline_drags_an_unguided_one() -> None:
    found = editor().edit(made(guidance=1.0), DRAG, method="baseline")
    assert "invert" not in found.timings_ms


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ((64, 89), "multiples of 8, got 89x64; take 88 or 96 wide, 64 high"),
        ((3, 64), "got 64x3; take 64 wide, 8 high"),
        ((0, 64), "got 64x0; take 64 wide, 8 high"),
        ((-8, 64), "take 64 wide, 8 high"),
    ],
)
def test_sizes(size: tuple[int, int], says: str) -> None:
    with pytest.raises(ImageError, match=says):
        editor().generate("a ring", size=size)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True, "1"])
def test_seeds(seed: Any) -> None:
    with pytest.raises(ConfigError, match=r"seed must be a whole number from 0 to 2\^63 - 1, got"):
        editor().generate("a ring", seed=seed)


def test_odd_latents_and_the_smallest_picture() -> None:
    """The U-Net takes any number of latent cells."""
    for size in ((8, 8), (72, 104)):
        found = editor().generate("a ring", size=size, config=QUICK.replace(steps=3))
        assert (found.image.height, found.image.width) == size


def test_the_size_is_the_models_own_where_none_is_given() -> None:
    found = editor().generate("a ring", config=QUICK.replace(steps=2))
    assert (found.image.height, found.image.width) == (256, 256)


def test_progress() -> None:
    seen: list[tuple[str, int, int]] = []
    editor().generate("a ring", size=SIZE, config=QUICK, progress=lambda *said: seen.append(said))
    assert seen == [("generate", done, 10) for done in range(1, 11)]


def test_the_embedded_model_draws_what_it_is_asked_for() -> None:
    """A sunset sky is redder and less blue than a day's, whatever else is in the picture; and the
    boat that it drew is dragged.
    """
    own = Editor.from_pretrained(device="cpu")
    config = own.defaults.replace(guidance=3.0)
    skies = {}
    for sky in ("sunset", "day"):
        prompt = f"a yellow boat with a orange sail at sea , sun , {sky} sky"
        skies[sky] = own.generate(prompt, seed=1, config=config)
    means = {sky: found.image.pixels[:10].mean((0, 1)) for sky, found in skies.items()}
    assert means["day"][2] > means["sunset"][2] + 40
    redness = {sky: mean[0] - mean[2] for sky, mean in means.items()}
    assert redness["sunset"] > redness["day"] + 40
    found = own.edit(skies["sunset"], "70,87:90,87")
    assert found.reached
    assert "invert" not in found.timings_ms


QUICK_WORDS = [
    "--model",
    str(MODEL),
    "--device",
    "cpu",
    "--steps",
    "10",
    "--strength",
    "0.3",
    "--iterations",
    "3",
]


def run(*words: Any) -> int:
    return main([str(word) for word in words])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ring.png"
    words = [
        "--prompt",
        "a ring",
        "--negative-prompt",
        "a disc",
        "--size",
        "88x64",
        "--seed",
        "3",
        "-o",
        out,
    ]
    assert run("generate", *words, *QUICK_WORDS, "--backend", "eager", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["size"] == [88, 64]
    assert said["config"]["guidance"] == 7.5
    assert said["written"] == [str(out)]
    assert np.array_equal(Image.of(out).pixels, made().image.pixels)


def test_the_command_drags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, dragged = tmp_path / "ring.png", tmp_path / "ring_dragged.png"
    words = ["--prompt", "a ring", "--size", "88x64", "--guidance", "2", "-o", out, "--drag", DRAG]
    assert run("generate", *words, *QUICK_WORDS) == 0
    said = capsys.readouterr().out
    assert f"wrote {out}\nwrote {dragged}\n" in said
    assert "drag (s)" in said
    assert not np.array_equal(Image.of(out).pixels, Image.of(dragged).pixels)
    assert run("generate", *words, *QUICK_WORDS, "--json") == 0
    assert json.loads(capsys.readouterr().out)["edit"]["iterations"] == 3


def test_the_edit_command_is_guided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = made().image.save(tmp_path / "ring.png")
    words = [
        "--drag",
        DRAG,
        *QUICK_WORDS,
        "--backend",
        "eager",
        "--prompt",
        "a ring",
        "-o",
        tmp_path / "out.png",
    ]
    assert (
        run("edit", picture, *words, "--guidance", "3", "--negative-prompt", "a disc", "--json")
        == 0
    )
    assert json.loads(capsys.readouterr().out)["settings"]["config"]["guidance"] == 3
    config = QUICK.replace(strength=0.3, guidance=3.0)
    expected = editor().edit(
        picture, DRAG, prompt="a ring", negative_prompt="a disc", config=config
    )
    assert np.array_equal(Image.of(tmp_path / "out.png").pixels, expected.image.pixels)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--size", "88x63"], "take 88 wide, 56 or 64 high"),
        (["--guidance", "0"], "guidance must be"),
        (["--seed", "-1"], "seed must be"),
        (["--drag", "1,1"], "is not a drag"),
        (["--drag", "1,1:90,2", "--size", "88x64"], "outside the 88x64 image"),
        (["--drag", "1,1:9,9", "--mask", "nowhere.png"], "no file at"),
        (["-o", "{folder}/none/out.png"], "does not exist"),
    ],
)
def test_bad_words_are_one_line_and_leave_no_file(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [word.format(folder=tmp_path) for word in words]
    assert run("generate", "--prompt", "x", "-o", tmp_path / "out.png", *QUICK_WORDS, *filled) == 2
    out = capsys.readouterr()
    assert out.err.startswith("dragnoise: error: ")
    assert says in out.err
    assert out.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_size_is_written_as_width_by_height(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("generate", "--prompt", "x", "--size", "64")
    assert ended.value.code == 2
    assert "'64' is not a size; write it as WxH" in capsys.readouterr().err


def test_points_and_masks_are_checked_as_ever() -> None:
    with pytest.raises(PointError, match="outside the 88x64 image"):
        editor().edit(made(), "1,1:90,2")
    with pytest.raises(MaskError, match="the image is 88x64"):
        editor().edit(made(), DRAG, mask=np.ones((64, 64)))


def test_no_warning_for_a_picture_made_without_guidance() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        editor().edit(made(guidance=1.0), DRAG)


def test_a_store_keeps_it(tmp_path: Path) -> None:
    """Another editor on the same folder does not generate it again, a second drag starts with what
    the first has made; all to the same bits.
    """
    model = editor().model
    words: dict[str, Any] = {"negative_prompt": "a disc", "size": SIZE, "seed": 3}
    for known in (False, True):
        own = Editor(model, backend="eager", cache=Store(folder=tmp_path))
        found = own.generate("a ring", **words, config=QUICK)
        assert ("generate" in found.timings_ms) is not known
        assert np.array_equal(found.image.pixels, made().image.pixels)
        first, again = own.edit(found, DRAG), own.edit(found, DRAG)
        assert "start" in first.timings_ms
        assert not {"embed", "condition", "start"} & set(again.timings_ms)
        for edited in (first, again):
            assert np.array_equal(edited.image.pixels, editor().edit(made(), DRAG).image.pixels)
    other = Editor(model, backend="eager", cache=Store(folder=tmp_path)).generate(
        "a ring", **words, config=QUICK.replace(guidance=2.0)
    )
    assert "generate" in other.timings_ms
