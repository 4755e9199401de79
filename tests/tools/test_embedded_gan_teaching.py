"""The generator that is taught by regression: its lessons, its updates, going on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dragnoise.bench.world.landmarks import RANGES
from dragnoise.engine.gan.folder import load_generator
from embedded_gan import lessons, school
from embedded_gan.__main__ import main
from embedded_gan.teach import PLACING, Plan, Teacher, difference, held_out, synthesised

SMALL = Plan((8, 8, 8, 8), z=10, w=8, mapping=2, pictures=64, batch=4, growth=(0.0, 0.5))


def new_teacher(plan: Plan = SMALL) -> Teacher:
    torch.manual_seed(0)
    return Teacher(plan)


def test_a_vector_stands_for_one_scene() -> None:
    middle = lessons.scene(np.zeros(10), np.zeros(10))
    assert middle.peak_x == sum(RANGES["peak_x"]) / 2
    assert (middle.sky, middle.ground, middle.roof) == ("sunset", "snowy", "green")
    places = np.zeros(10)
    places[lessons.FACTORS.index("house_x")] = 9.0
    colours = np.zeros(10)
    colours[lessons.FACTORS.index("sky")] = -9.0
    moved = lessons.scene(places, colours)
    assert moved == replace(middle, house_x=RANGES["house_x"][1], sky="day")


def test_scenes_fill_their_ranges_evenly() -> None:
    z = lessons.normalised(np.random.default_rng(0).standard_normal((4000, 16)))
    np.testing.assert_allclose(np.square(z).mean(1), 1)
    scenes = [lessons.scene(one, one) for one in z]
    low, high = RANGES["sun_x"]
    shares = (np.array([scene.sun_x for scene in scenes]) - low) / (high - low)
    np.testing.assert_allclose(np.quantile(shares, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.04)
    for name, values in lessons.COLOURS.items():
        found = [getattr(scene, name) for scene in scenes]
        assert min(found.count(value) for value in values) > 0.8 * 4000 / len(values)


def test_small_things_count_more() -> None:
    scene = lessons.scene(np.zeros(10), np.zeros(10))
    pictures, weights = lessons.drawn([scene])
    assert pictures.shape == (1, 3, 128, 128)
    plain = weights[0, 0, 4, 4]
    assert weights[0, 0, round(scene.sun_y), round(scene.sun_x)] > plain
    assert weights[0, 0, 101, round(scene.house_x)] > weights[0, 0, 101, 4]


def test_all_resolutions_make_the_generators_picture() -> None:
    teacher = new_teacher()
    rows = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(1))
    network = teacher.generator.synthesis
    made = synthesised(network, rows, 4, torch.float32)
    torch.testing.assert_close(made, teacher.generator(rows), rtol=0, atol=0)
    assert synthesised(network, rows, 2, torch.float32).shape == (2, 3, 8, 8)


def test_differences_are_zero_for_what_was_drawn_and_weighted() -> None:
    drawn = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    ones = torch.ones(2, 1, 16, 16)
    assert difference(drawn, drawn, ones) == 0
    assert difference(drawn + 0.1, drawn, 2 * ones) > difference(drawn + 0.1, drawn, ones)


def test_resolutions_join_and_the_rate_falls() -> None:
    teacher = new_teacher()
    blocks, rates = [], []
    for seen in (0, 31, 32, 63):
        teacher.seen = seen
        blocks.append(teacher.blocks)
        rates.append(teacher._rate())
    assert blocks == [3, 3, 4, 4]
    assert rates[0] < rates[1]
    teacher.plan = replace(SMALL, pictures=60_000)
    rates = []
    for seen in (30_000, 50_000, 59_999):
        teacher.seen = seen
        rates.append(teacher._rate())
    assert rates == pytest.approx([SMALL.rate, SMALL.rate / 2, SMALL.rate / 100])


def test_places_and_colours_have_rows_of_their_own() -> None:
    teacher = new_teacher(replace(SMALL, disturbance=0.0))
    z = torch.randn(2, 10, generator=torch.Generator().manual_seed(3))
    rows = teacher._rows(z, torch.ones(1), np.random.default_rng(0))
    assert rows.shape == (1, 8, 8)
    styles = teacher.generator.mapping(z)
    torch.testing.assert_close(rows[0, :PLACING], styles[0].expand(PLACING, -1))
    torch.testing.assert_close(rows[0, PLACING:], styles[1].expand(2, -1))


def test_teaching_brings_the_pictures_nearer() -> None:
    teacher = new_teacher(replace(SMALL, pictures=4000, growth=(0.0, 0.0)))
    before = held_out(teacher.settle(), teacher.blocks)[2]
    for _ in range(60):
        teacher.update()
    assert held_out(teacher.settle(), teacher.blocks)[2] > before + 1.5


def test_what_stands_for_nothing_does_nothing() -> None:
    teacher = new_teacher()
    teacher.update()
    weight = teacher.generator.get_parameter("mapping.layers.0.weight")
    assert (weight[:, len(lessons.FACTORS) :] == 0).all()
    assert (weight[:, : len(lessons.FACTORS)] != 0).all()


def test_going_on_is_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    (tmp_path / "generator").mkdir()
    through = new_teacher()
    through.update()
    line = json.loads(school.write(tmp_path, through, 1.0))
    assert line["seen"] == 4
    torch.manual_seed(9)
    again = Teacher(SMALL)
    school.resume(tmp_path, again)
    assert [through.update() for _ in range(2)] == [again.update() for _ in range(2)]
    for name, value in through.average.state_dict().items():
        torch.testing.assert_close(value, again.average.state_dict()[name], rtol=0, atol=0)


def test_the_command_teaches_and_leaves_what_the_engine_reads(tmp_path: Path) -> None:
    given = ["teach", "--out", str(tmp_path), "--batch", "2", "--growth", "1", "1"]
    assert main([*given, "--pictures", "4"]) == 0
    assert main([*given, "--pictures", "6"]) == 0
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["seen"] for line in lines] == [4, 6]
    model = load_generator(tmp_path / "generator")
    assert model.architecture == Plan().architecture
    weights = load_file(tmp_path / "generator" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 128, 8 * 128)
