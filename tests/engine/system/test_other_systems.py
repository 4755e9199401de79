"""Without what only Unix has (Windows): files are read, edits made and saved; no disk tier."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os
import sys

import diffusers.utils
import numpy as np
import PIL.Image
import safetensors.torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOFOLLOW", "O_DIRECTORY", "geteuid", "getuid"):
    delattr(os, name)
os.supports_dir_fd = set()
sys.platform = "win32"
sys.modules["fcntl"] = None

from dragnoise.engine import DragConfig, Editor, Store

folder = sys.argv[1]
picture = np.linspace(0, 1, 64 * 64 * 3, dtype=np.float32).reshape(64, 64, 3)
store = Store(folder=os.path.join(folder, "cache"))
editor = Editor.from_pretrained(device="cpu", cache=store)
session = editor.open(picture, config=DragConfig(iterations=1, steps=4, strength=0.5))
result = session.drag([((20, 20), (30, 30))])
image = result.image
image.save(os.path.join(folder, "edited.png"))
session.save(os.path.join(folder, "session.safetensors"))
editor.restore(os.path.join(folder, "session.safetensors"))
editor.open(os.path.join(folder, "edited.png"))
print(store.to_dict()["tiers"]["disk"]["state"])
"""


def test_an_edit_without_unix(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "edited.png").exists()
    assert "win32 opens no names inside a folder" in done.stdout
