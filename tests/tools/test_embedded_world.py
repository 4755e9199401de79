"""Read the embedded model's words, and draw the demo's samples."""

import numpy as np
import pytest

from dragnoise.bench.world import scenes
from embedded_model import samples, words


@pytest.mark.parametrize("seed", [0, 1])
def test_every_word_is_one_token(seed: int) -> None:
    tokenizer = words.tokenizer()
    rng = np.random.default_rng(seed)
    for word in words.WORDS:
        assert len(tokenizer(word).input_ids) == 3, word
    for _ in range(100):
        caption = scenes.caption(scenes.draw_scene(rng))
        assert len(tokenizer(caption).input_ids) == len(caption.split()) + 2 <= words.LENGTH


def test_a_word_it_never_saw_is_spelled() -> None:
    tokenizer = words.tokenizer()
    assert tokenizer.decode(tokenizer("zebra é").input_ids, skip_special_tokens=True) == "zebra é"


def test_the_demo_ships_a_sample_of_each_simple_kind() -> None:
    assert [drag.kind for drag in samples.demo_drags()] == list(samples.KINDS)
