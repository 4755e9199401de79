"""The one list of packages, and their versions."""

import numpy as np
import torch

from dragnoise.engine.system.packages import COMPUTING, EXPORTING, PACKAGES, version_of, versions


def test_every_use_of_the_list_is_a_part_of_it() -> None:
    assert set(COMPUTING) < set(PACKAGES)
    assert set(EXPORTING) < set(PACKAGES)
    assert len(set(PACKAGES)) == len(PACKAGES)
    assert "torch" in COMPUTING
    assert "torch" in EXPORTING
    assert "dragnoise" not in COMPUTING  # its code is digested itself


def test_versions() -> None:
    assert version_of("no-such-package") == "-"
    assert versions(("torch", "numpy")) == {"torch": torch.__version__, "numpy": np.__version__}
    assert list(versions()) == list(PACKAGES)
