"""Record the studio: a thing is dragged in a browser, and what is seen becomes a GIF.

PYTHONPATH=tests/support python tools/recording.py docs/images/studio.gif
"""

import io
import math
import sys
from pathlib import Path

import PIL.Image

import studio

XY = tuple[float, float]

SIZE = (760, 560)
SAMPLE = "sun"
HANDLE: XY = (22.6, 37.3)
TARGET: XY = (40.0, 26.0)
MOVES = 22
FRAME_MS = 80
LAST_MS = 2200
COLOURS = 160


def main(path: Path) -> None:
    """Write the recording, an endless GIF."""
    with studio.service() as address, studio.browser() as browser:
        context = browser.new_context(
            viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="dark"
        )
        context.set_default_timeout(120_000)
        page = studio.Studio(context.new_page(), address)
        page.open_sample(SAMPLE)
        frames, durations = shots(page)
        context.close()
    write(path, frames, durations)
    print(f"{path}: {len(frames)} frames, {path.stat().st_size / 1e6:.2f} MB")


def shots(page: studio.Studio) -> tuple[list[PIL.Image.Image], list[int]]:
    """Drag, and return what was seen, with how long to show each."""
    frames: list[PIL.Image.Image] = []
    durations: list[int] = []

    def shot(duration_ms: int) -> None:
        frames.append(PIL.Image.open(io.BytesIO(page.page.screenshot())).convert("RGB"))
        durations.append(duration_ms)

    shot(900)
    page.press(HANDLE)
    for move in range(1, MOVES + 1):
        share = (1 - math.cos(math.pi * move / MOVES)) / 2
        across, down = (
            start + share * (end - start) for start, end in zip(HANDLE, TARGET, strict=True)
        )
        page.pull([(across, down)], FRAME_MS)
        shot(FRAME_MS)
    page.shown("model")
    shot(700)
    page.page.mouse.up()
    while page.steps < 2:
        shot(FRAME_MS * 2)
        page.page.wait_for_timeout(250)
    page.refined(steps=2)
    page.page.wait_for_timeout(500)
    shot(LAST_MS)
    return frames, durations


def write(path: Path, frames: list[PIL.Image.Image], durations: list[int]) -> None:
    """Write frames in one palette without dithering, so that colours do not flicker."""
    strip = PIL.Image.new("RGB", (SIZE[0], 3 * SIZE[1]))
    for place, frame in enumerate((frames[0], frames[len(frames) // 2], frames[-1])):
        strip.paste(frame, (0, place * SIZE[1]))
    palette = strip.quantize(COLOURS, PIL.Image.Quantize.MEDIANCUT, kmeans=1)
    drawn = [frame.quantize(palette=palette, dither=PIL.Image.Dither.NONE) for frame in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn[0].save(
        path,
        save_all=True,
        append_images=drawn[1:],
        duration=durations,
        loop=0,
        optimize=True,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/studio.gif"))
