"""Commands beside editing: the cache's, and learning a picture."""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import OutputError

__all__ = ["add_cache", "add_personalise", "cache", "cache_said", "personalise", "store_of"]

_LEARNING = ("steps", "rank", "lr", "batch", "seed", "plateau")


def add_cache(command: argparse.ArgumentParser) -> None:
    """`dragnoise cache ls | verify | clear`."""
    command.add_argument(
        "act", choices=("ls", "verify", "clear"), help="list, check every file, or remove all"
    )
    command.add_argument(
        "--folder", metavar="FOLDER", help="default: DRAGNOISE_CACHE, else the user's cache folder"
    )
    command.add_argument("--json", action="store_true", help="print one JSON document")


def cache(asked: argparse.Namespace) -> int:
    """ls and clear: 0. verify: 1 if files had to be set aside, else 0. Raises OutputError where a file cannot be removed."""
    from ..cache import Disk

    disk = Disk(_folder(asked.folder), 2**62)
    said: dict[str, Any] = {"folder": str(disk.folder)}
    if asked.act == "ls":
        said["entries"] = [
            {
                "key": entry.path.stem,
                "stage": entry.about.get("stage", "?"),
                "bytes": entry.nbytes,
                "unused_s": round(time.time() - entry.used),
                "made_ms": round(entry.about.get("made_ms", 0.0), 1),
            }
            for entry in disk.entries()
        ]
        lines = [
            f"{one['key'][:12]}  {one['stage']:12}  {one['bytes']:>12,} bytes  took {one['made_ms']:>10,.1f} ms  unused for {one['unused_s']:,} s"
            for one in said["entries"]
        ]
        lines.append(
            f"{len(said['entries'])} entries, {sum(one['bytes'] for one in said['entries']):,} bytes in {disk.folder}"
        )
    elif asked.act == "verify":
        sound, broken = disk.verify()
        said |= {"sound": sound, "set_aside": [path.name for path in broken]}
        lines = [f"{sound} sound, {len(broken)} set aside in {disk.folder}"]
    else:
        try:
            said["removed"] = disk.clear()
        except OSError as refused:
            raise OutputError(
                f"the cache {str(disk.folder)!r} cannot be cleared ({refused})"
            ) from refused
        lines = [f"{said['removed']} files removed from {disk.folder}"]
    print(json.dumps(said) if asked.json else "\n".join(lines))
    return 1 if said.get("set_aside") else 0


def cache_said() -> dict[str, Any]:
    """The default folder, for `dragnoise info`."""
    from ..cache import Disk

    disk = Disk(_folder(None), 2**62)
    total, entries = disk.nbytes()
    return {"cache folder": str(disk.folder), "cache": f"{entries} entries, {total:,} bytes"}


def store_of(folder: str | None) -> Any:
    """The store that `--cache` asks for: None for none, "" for the default folder."""
    from ..cache import Store

    return None if folder is None else Store(folder=_folder(folder or None))


def _folder(told: str | None) -> Path:
    from ..cache import default_folder

    return default_folder() if told is None else Path(told)


def add_personalise(command: argparse.ArgumentParser) -> None:
    """`dragnoise personalise`."""
    command.add_argument("image", help="PNG, JPEG, WebP, BMP or TIFF")
    command.add_argument("--prompt", default="", metavar="TEXT", help="what the image shows")
    command.add_argument(
        "-o", "--output", metavar="FILE", help="where to write (default: IMAGE_adapter.safetensors)"
    )
    command.add_argument(
        "--state", metavar="FILE", help="where an interrupted training is kept, and gone on with"
    )
    settings = command.add_argument_group("settings")
    settings.add_argument("--steps", type=int, metavar="N", help="of the training (60)")
    settings.add_argument("--rank", type=int, metavar="N", help="of the matrices (16)")
    settings.add_argument("--lr", type=float, help="learning rate (0.0005)")
    settings.add_argument("--batch", type=int, metavar="N", help="noisy versions a step (4)")
    settings.add_argument("--seed", type=int, metavar="N", help="of noise and timesteps (0)")
    settings.add_argument(
        "--plateau",
        type=int,
        metavar="N",
        help="stop when the loss has not fallen for N steps (0: never)",
    )


def personalise(
    asked: argparse.Namespace,
    editor: Callable[[argparse.Namespace], Any],
    progress: Callable[[], Any],
) -> int:
    """Learn the image and write the adapter."""
    from ..config import PersonaliseConfig
    from ..inputs.image import Image
    from ..system.files import writable

    output = writable(
        asked.output or f"{Path(asked.image).with_suffix('')}_adapter.safetensors",
        (".safetensors",),
    )
    state = None if asked.state is None else writable(asked.state, (".safetensors",))
    image, config = (
        Image.of(asked.image),
        PersonaliseConfig().replace(**{name: getattr(asked, name) for name in _LEARNING}),
    )
    session = editor(asked).open(image, prompt=asked.prompt)
    if state is not None and state.exists():
        session.resume_learning(state)
    losses: list[float] = []
    started = time.perf_counter()
    try:
        with progress() as report:
            adapter = session.personalise(config, progress=report, on_loss=losses.append)
    except KeyboardInterrupt:
        if state is not None and session.save_learning(state) is not None:
            raise OutputError(f"interrupted; go on with --state {str(state)!r}") from None
        raise
    adapter.save(output)
    if state is not None:
        state.unlink(missing_ok=True)
    said = {
        "written": [str(output)],
        "seconds": round(time.perf_counter() - started, 3),
        "rank": adapter.rank,
    }
    said |= {"settings": dataclasses.asdict(config), "losses": losses}
    print(
        json.dumps(said)
        if asked.json
        else f"{len(losses)} steps in {said['seconds']} s\nwrote {output}"
    )
    return 0
