"""Bring a drag method of your own: DragNoise with another loss and a setting more.

    python examples/own_method.py picture.png 60,40:80,40 edited.png

A method is a row of functions (`engine/drag/method.py`). This one is made of DragNoise's, adds a
term to the loss that draws every handle's features towards what they were at the start, and a
setting that weighs the term. Nothing in the engine is changed: `edit` takes the row itself.
"""

import argparse
from dataclasses import dataclass

from torch import Tensor

from dragnoise.engine import DragConfig, Editor, EditResult
from dragnoise.engine.diffusion.place import Place
from dragnoise.engine.drag.method import Method
from dragnoise.engine.drag.scene import Scene
from dragnoise.engine.drag.supervision import TrackedState
from dragnoise.engine.methods.dragnoise import DRAGNOISE
from dragnoise.engine.methods.prediction import Prediction, motion_and_mask
from dragnoise.kernels.patch_motion import patches


@dataclass(frozen=True)
class FaithfulConfig(DragConfig):
    """A set of DragNoise's settings, and one more.

    Attributes:
        faith: Weight of the features' distance from those at the start, 0 or more.
    """

    faith: float = 0.1

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        self._check_real("faith", "0 or more", lambda value: value >= 0)


def supervise(
    scene: Scene[Place, FaithfulConfig],
    reference: Prediction,
    forward: Prediction,
    state: TrackedState,
) -> Tensor:
    """Return DragNoise's loss plus the mean distance of the handles' features from the start's."""
    here = patches(forward.features[0], state.handles, scene.resolution, 0)[:, :, 0, 0]
    distance = (here - state.origins).abs().mean()
    return motion_and_mask(scene, reference, forward, state) + scene.settings.faith * distance


FAITHFUL = Method(
    name="faithful",
    source="examples/own_method.py",
    pipeline=DRAGNOISE.pipeline,
    settings=FaithfulConfig,
    start=DRAGNOISE.start,
    features=DRAGNOISE.features,
    begin=DRAGNOISE.begin,
    follow=DRAGNOISE.follow,
    finished=DRAGNOISE.finished,
    supervise=supervise,
    finish=DRAGNOISE.finish,
    preview=DRAGNOISE.preview,
)


def main(image: str, drags: str, output: str, iterations: int | None = None) -> EditResult:
    """Edit one picture by this method and write the result."""
    editor = Editor.from_pretrained()
    settings = FaithfulConfig(lr=editor.defaults.lr, lam=editor.defaults.lam, faith=0.2)
    result = editor.edit(
        image, drags, config=settings.replace(iterations=iterations), method=FAITHFUL
    )
    result.image.save(output)
    print(
        result.settings["method"], "reached" if result.reached else "did not reach", "its targets"
    )
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    parser.add_argument("drags", help="x,y:x,y, several separated by spaces")
    parser.add_argument("output")
    parser.add_argument("--iterations", type=int)
    main(**vars(parser.parse_args()))
