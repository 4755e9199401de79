"""Draw the pictures of training data; a process that does that needs no PyTorch."""

import numpy as np

from dragnoise.bench.world import painting
from dragnoise.bench.world import scenes as world


def draw(seed: int, pairs: int) -> tuple[list[painting.Pixels], list[str]]:
    """Return the pictures of pairs of scenes, all the first ones before their partners.

    And the captions, one a pair.
    """
    rng = np.random.default_rng((20264, seed))
    scenes = [world.draw_scene(rng) for _ in range(pairs)]
    partners = [world.partner(scene, rng) for scene in scenes]
    pictures = [painting.render(scene)[0] for scene in (*scenes, *partners)]
    return pictures, [world.caption(scene) for scene in scenes]
