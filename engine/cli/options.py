"""The options of the commands, and what they mean.

The options of settings are made from the settings' dataclasses: the name and the type of a field,
and the line about it in the class's docstring. Nothing here loads PyTorch before the arguments
are known to be good.
"""

import argparse
import dataclasses
import inspect
import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import (
    DiffusionSettings,
    DragConfig,
    DragDiffusionConfig,
    DragGANConfig,
    FastConfig,
    FreeDragConfig,
    GoodDragConfig,
    PictureLimits,
    Settings,
    WarpConfig,
)
from ..errors import AdapterError, ConfigError, ImageError, MaskError
from ..inputs.mask import Mask
from ..inputs.points import Points
from ..inputs.preset import PRESETS
from ..system.incoming import open_regular

if TYPE_CHECKING:
    from ..cache import Store
    from ..editor import Editor

__all__ = [
    "DIFFUSION_METHODS",
    "GRIPPING_METHODS",
    "METHOD_SETTINGS",
    "add_cache_option",
    "add_grip_option",
    "add_json_option",
    "add_limit_options",
    "add_mask_option",
    "add_method_option",
    "add_method_options",
    "add_model_options",
    "add_settings",
    "beside",
    "check_adapter",
    "drag_settings",
    "given_settings",
    "grip_of",
    "limits_of",
    "load_editor",
    "mask_of",
    "model_inputs",
    "points_of",
    "set_threads",
    "size",
]

METHOD_SETTINGS: Mapping[str, type[Settings]] = {
    "dragnoise": DragConfig,
    "dragdiffusion": DragDiffusionConfig,
    "freedrag": FreeDragConfig,
    "gooddrag": GoodDragConfig,
    "fast": FastConfig,
    "warp": WarpConfig,
    "draggan": DragGANConfig,
    "baseline": DragConfig,
    "baseline-plain": DragConfig,
    "dragdiffusion-baseline": DragDiffusionConfig,
    "freedrag-baseline": FreeDragConfig,
    "dragdiffusion-baseline-plain": DragDiffusionConfig,
    "freedrag-baseline-plain": FreeDragConfig,
}
"""The settings of every method, by name: as in `METHODS`, which loads PyTorch. A test compares."""

DIFFUSION_METHODS = tuple(
    name for name, settings in METHOD_SETTINGS.items() if issubclass(settings, DiffusionSettings)
)
"""The methods on a diffusion model."""

GRIPPING_METHODS = ("fast", "warp")
"""The methods that take a grip: their rows say so. A test compares."""

_MOST_THREADS = 256
"""Of a machine with fewer processors: OpenMP ends the process where it cannot start as many."""

_METAVARS = {int: "N", float: "X", str: "TEXT"}


def size(text: str) -> tuple[int, int]:
    """Return (height, width) of "WxH", in pixels."""
    width, _, height = text.partition("x")
    if not all(side.isdecimal() and int(side) for side in (width, height)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size; write it as WxH, for example 512x768"
        )
    return int(height), int(width)


def beside(image: str, ending: str) -> str:
    """Return the usual name of what is made of an image. Raises ImageError if there is no image."""
    open_regular(image, ImageError).close()
    return f"{Path(image).with_suffix('')}{ending}"


def points_of(drags: Sequence[str]) -> Points:
    """Return the pairs of every `--drag`, in order. Raises PointError."""
    pairs = [Points.of(drag) for drag in drags]
    handles = tuple(handle for each in pairs for handle in each.handles)
    targets = tuple(target for each in pairs for target in each.targets)
    return Points(handles, targets)


def mask_of(path: str | None, width: int, height: int) -> Mask | None:
    """Return the mask of `--mask` for an image of this size. Raises MaskError."""
    if path is None:
        return None
    open_regular(path, MaskError).close()
    return Mask.of(path, width, height)


def grip_of(parsed: Namespace, width: int, height: int) -> Mask | None:
    """Return the grip of `--grip` for an image of this size. Raises ConfigError, MaskError."""
    if parsed.grip is not None and parsed.method not in GRIPPING_METHODS:
        raise ConfigError(
            f"the method {parsed.method!r} takes no --grip; leave it out, or choose --method "
            f"{' or '.join(GRIPPING_METHODS)}"
        )
    return mask_of(parsed.grip, width, height)


def check_adapter(path: str | None) -> None:
    """Check that there is a file or a folder, before a model is loaded. Raises AdapterError."""
    if path is not None and not (path and os.path.isdir(path)):
        open_regular(path, AdapterError).close()


# Settings: options from dataclasses.


def add_settings(
    parser: ArgumentParser,
    title: str,
    *classes: type,
    only: Sequence[str] | None = None,
    **defaults: float | None,
) -> None:
    """Add an option for every field of the classes; what is not given on the command line is None.

    Args:
        parser: of the command.
        title: of the group of options.
        classes: dataclasses of settings; a field that several have becomes one option.
        only: the fields to add; None: all.
        defaults: values of options that are not given, by field, instead of None.
    """
    group = parser.add_argument_group(title)
    fields = {
        field.name: (cls, field)
        for cls in reversed(classes)
        for field in dataclasses.fields(cls)
        if only is None or field.name in only
    }
    for name, (cls, field) in fields.items():
        default = defaults.get(name)
        about = _about_field(cls, name)
        if default is not None:
            about += f" (default: {default})"
        option = f"--{name.replace('_', '-')}"
        if field.type is bool:
            group.add_argument(option, action="store_true", default=default, help=about)
        else:
            kind: Any = field.type
            group.add_argument(
                option, type=kind, default=default, metavar=_METAVARS[kind], help=about
            )


def given_settings(parsed: Namespace, *classes: type) -> dict[str, Any]:
    """Return the settings that were given, by field."""
    names = {field.name for cls in classes for field in dataclasses.fields(cls)}
    values = vars(parsed)
    return {name: values[name] for name in sorted(names) if values.get(name) is not None}


def _about_field(cls: type, name: str) -> str:
    """Return the first sentence about a field in a docstring of its class, as argparse takes it."""
    line = rf"^ *{name}: (.+?)(?=\.\s|\.?\n *\w+: |\.?\n\n|\.?\Z)"
    for each in cls.__mro__:
        found = re.search(line, inspect.cleandoc(each.__doc__ or ""), re.DOTALL | re.MULTILINE)
        if found is not None:
            return " ".join(found[1].split()).replace("%", "%%")
    return ""


# A drag: the method and its settings.


class _PresetAction(argparse.Action):
    """Take a preset: its method is the one that was chosen."""

    def __call__(
        self, parser: ArgumentParser, parsed: Namespace, name: Any, option: str | None = None
    ) -> None:
        parsed.preset = name
        parsed.method = PRESETS[name].method


def add_method_option(parser: ArgumentParser) -> None:
    """Add `--method` and `--preset`, of which one can be given."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--method",
        default="dragnoise",
        choices=METHOD_SETTINGS,
        metavar="NAME",
        help=f"how to drag: {', '.join(METHOD_SETTINGS)} (default: %(default)s)",
    )
    either.add_argument(
        "--preset",
        action=_PresetAction,
        choices=PRESETS,
        metavar="NAME",
        help=f"a method with settings: {', '.join(PRESETS)}",
    )


def add_method_options(parser: ArgumentParser, **defaults: float | None) -> None:
    """Add `--method`, `--preset` and the settings of all methods; defaults: by field."""
    add_method_option(parser)
    for methods, names in _shared_settings().items():
        title = "settings of all methods"
        if len(methods) < len(METHOD_SETTINGS):
            title = f"settings of {', '.join(methods)}"
        classes = dict.fromkeys(METHOD_SETTINGS[method] for method in methods)
        given = {name: value for name, value in defaults.items() if name in names}
        add_settings(parser, title, *classes, only=names, **given)


def _shared_settings() -> dict[tuple[str, ...], list[str]]:
    """Return settings by the methods that have them, those that most have first."""
    owners: dict[str, list[str]] = {}
    for method, cls in METHOD_SETTINGS.items():
        for field in dataclasses.fields(cls):
            owners.setdefault(field.name, []).append(method)
    shared: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(owners, key=lambda name: -len(owners[name])):
        shared.setdefault(tuple(owners[name]), []).append(name)
    return shared


def drag_settings(parsed: Namespace, defaults: Settings | None = None) -> Any:
    """Return the settings of the method or preset that was chosen, with those that were given.

    Args:
        parsed: the command's arguments.
        defaults: the model's own settings; None to check the arguments before a model is loaded.

    Raises:
        ConfigError: a value is out of its range, or the method has no such setting.
    """
    cls = METHOD_SETTINGS[parsed.method]
    given = given_settings(parsed, *METHOD_SETTINGS.values())
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := [name for name in given if name not in known]:
        raise ConfigError(f"the method {parsed.method!r} has no setting {_whose(unknown)}")
    base = defaults if isinstance(defaults, cls) else cls()
    preset = getattr(parsed, "preset", None)
    changes = {} if preset is None else dict(PRESETS[preset].changes)
    return base.replace(**changes | given)


def _whose(names: Sequence[str]) -> str:
    """Return what to do about settings that are other methods'."""
    options = ", ".join(f"--{name.replace('_', '-')}" for name in names)
    owners = [
        method
        for method, cls in METHOD_SETTINGS.items()
        if {field.name for field in dataclasses.fields(cls)}.issuperset(names)
    ]
    if not owners:
        return f"{options}; leave it out"
    return f"{options}; leave it out, or choose --method {' or '.join(owners)}, which has it"


# The model and what runs it.


def add_mask_option(parser: ArgumentParser) -> None:
    """Add `--mask`."""
    parser.add_argument(
        "--mask", metavar="FILE", help="white where the picture may change (default: everywhere)"
    )


def add_grip_option(parser: ArgumentParser) -> None:
    """Add `--grip`."""
    about = f"white where the picture moves as one piece ({', '.join(GRIPPING_METHODS)})"
    parser.add_argument("--grip", metavar="FILE", help=f"{about} (default: about each handle)")


def add_json_option(parser: ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def add_limit_options(parser: ArgumentParser) -> None:
    """Add the options that `limits_of` and `load_editor` read: how large a picture may be."""
    limits = PictureLimits()
    add_settings(parser, "how large a picture may be", PictureLimits, **limits.to_dict())
    parser.add_argument(
        "--no-check",
        action="store_true",
        help="do not look whether the model knows such pictures",
    )


def limits_of(parsed: Namespace) -> PictureLimits:
    """Return how large a picture may be. Raises ConfigError."""
    return PictureLimits().replace(**given_settings(parsed, PictureLimits))


def add_cache_option(parser: ArgumentParser) -> None:
    """Add `--cache`."""
    parser.add_argument(
        "--cache",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="keep inversions and adapters on disk, and use them",
    )


def add_model_options(parser: ArgumentParser) -> None:
    """Add the options that `load_editor` reads."""
    group = parser.add_argument_group("model")
    backends = "packed, compiled, eager, tensorrt, onnxruntime, part=NAME,part=NAME, or auto"
    for name, metavar, about in (
        ("--model", "PATH", "diffusers folder or .safetensors file (default: the embedded model)"),
        ("--model-config", "FOLDER", "for a checkpoint: a diffusers folder like it"),
        ("--variant", "NAME", 'of the weights\' files, as in diffusers ("fp16")'),
        ("--backend", "NAME", f"what runs the network: {backends} (measured once)"),
        ("--generator", "FOLDER", "what draggan edits with (default: the embedded generator)"),
        ("--exported", "FOLDER", "where exported parts lie (default: in the cache folder)"),
    ):
        group.add_argument(name, metavar=metavar, help=about)
    for name, default, about in (
        ("--device", "auto", "auto, cpu, cuda, cuda:1"),
        ("--dtype", "auto", "auto (CUDA: float16), float32, bfloat16 or (CUDA) float16"),
        ("--attention", "sdpa", "sdpa, deterministic (CUDA) or xformers"),
    ):
        group.add_argument(name, default=default, help=f"{about} (default: %(default)s)")
    group.add_argument(
        "--build-missing", action="store_true", help="export the parts that are missing"
    )
    group.add_argument(
        "--allow-pickle",
        action="store_true",
        help="also read .bin and .ckpt, which can run code: files you trust",
    )
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: PyTorch's)")


def model_inputs(parsed: Namespace) -> dict[str, str | None]:
    """Return the files and folders that make the model, by what they are."""
    return {
        "model": parsed.model,
        "model's configuration": parsed.model_config,
        "generator": parsed.generator,
    }


def set_threads(number: int | None) -> None:
    """Let PyTorch compute with so many threads; None: with as many as it likes.

    Raises ConfigError for a number that no machine of this kind can start.
    """
    import torch

    most = max(_MOST_THREADS, os.cpu_count() or 1)
    if number is None:
        return
    if not 1 <= number <= most:
        raise ConfigError(f"--threads must be from 1 to {most}, got {number}")
    torch.set_num_threads(number)


def _store_of(folder: str | None) -> "Store | None":
    """Return the store that `--cache` asks for. folder: None: no store; "": the default folder."""
    from ..cache import Store, default_folder

    return None if folder is None else Store(folder=folder or default_folder())


def load_editor(parsed: Namespace) -> "Editor":
    """Return an editor on the model that was asked for; loading PyTorch takes seconds.

    Raises ConfigError, ModelError, DeviceError, BackendError, PlanError.
    """
    from ..editor import Editor

    set_threads(parsed.threads)
    return Editor.from_pretrained(
        parsed.model,
        device=parsed.device,
        dtype=parsed.dtype,
        config=parsed.model_config,
        variant=parsed.variant,
        allow_pickle=parsed.allow_pickle,
        backend=parsed.backend,
        exported=parsed.exported,
        build_missing=parsed.build_missing,
        attention=parsed.attention,
        cache=_store_of(getattr(parsed, "cache", None)),
        limits=limits_of(parsed),
        check_pictures=not getattr(parsed, "no_check", False),
        generator=parsed.generator,
    )
