"""The picture that the commands are given."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from dragnoise.engine import Image
from golden_cases import GOLDEN


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A part of a golden picture, 91 x 96 pixels, alone in its folder."""
    whole = PIL.Image.open(GOLDEN / "images" / "face_256x256.png").convert("RGB")
    return Image(np.asarray(whole)[64:160, 64:155]).save(tmp_path / "face.png")
