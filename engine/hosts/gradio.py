"""Dragging in a gradio app: a component, and a demo made of it.

    from dragnoise.gradio import DragImage, demo
    demo().launch()

A person's canvas asks by the component's own server function: a plain request that waits in no
queue, so that a frame costs a few milliseconds more than it takes to make, and it works wherever
the app does (`launch`, mounted, behind a login or a proxy). What takes long, the drag after the
release, is an ordinary event of gradio's, with its queue, its progress and its errors.
"""

import secrets
import threading
from abc import ABCMeta
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.component_meta import updateable
from gradio.components.base import server

from ..diffusion.samples import samples
from ..editor import Editor
from ..errors import ConfigError
from ..inputs.image import Image, ImageLike
from ..inputs.preset import PRESETS
from ..session.result import Progress
from .bundle import bundle, glue
from .desk import REFUSED, Desk, address_of, embedded, file_of

__all__ = ["Desk", "DragImage", "demo", "told"]

_MOST_BYTES = 28 * 2**20
"""Of a picture as text: 20 MiB of a file."""

_DESKS = 32


class _Plainly(type(gr.HTML)):  # type: ignore[misc]
    """Makes the class, and no stub file beside its source, as gradio's own metaclass does."""

    def __new__(mcs, name: str, bases: tuple[type, ...], content: dict[str, Any]) -> Any:
        if "__init__" in content:
            content["__init__"] = updateable(content["__init__"])
        return ABCMeta.__new__(mcs, name, bases, content)


class DragImage(gr.HTML, metaclass=_Plainly):  # type: ignore[misc]
    """A picture to drag on.

    As an output it takes a picture (whatever `Image.of` takes), a `Desk`, or None; of a new
    `Desk(picture, prompt="...")` the prompt, too. As an input it gives a `Desk`: `image`, `drags`,
    `mask`, `grip`; and where the component has an editor, `drag()`, `undo()`, `redo()`,
    `describe()`.

    Events, beside gradio's: `upload` (a person has opened a picture), `grab`, `move` (the pointer;
    listen with `trigger_mode="always_last"`), `release`, `edit` (mask or grip is painted), `undo`
    (a person went back, or forward again).

    Args:
        value: The picture to begin with.
        editor: What makes live frames; None: the picture's own pixels are moved, in the browser.
        prompt: What pictures show that are opened, until `Desk.describe` says so.
        height: In pixels.
        opens: Whether a person may open a picture.
        desks: Pictures that are kept for their persons; of more, the one not used for longest is
            opened anew where its person goes on.
        options: gradio's: label, visible, elem_id, scale, ...
    """

    def __init__(
        self,
        value: ImageLike | Desk | None = None,
        *,
        editor: Editor | None = None,
        prompt: str = "",
        height: int = 480,
        opens: bool = True,
        desks: int = _DESKS,
        **options: Any,
    ) -> None:
        self._load = None if editor is None else (lambda: editor)
        self._told_prompt = prompt
        self._most = desks
        self._desks: OrderedDict[str, Desk] = OrderedDict()
        self._turn = threading.Lock()
        super().__init__(
            value=value,
            html_template='<div class="dragnoise"></div>',
            js_on_load=glue("gradio"),
            head=f"<script>globalThis.dragnoise ??= (async () => {{\n{bundle()}"
            "return { Board };})();</script>",
            apply_default_css=False,
            how={"height": height, "opens": opens, "drags": editor is not None},
            **options,
        )

    def preprocess(self, payload: Mapping[str, Any] | None) -> Desk | None:
        """Return the desk that a handler is given.

        Args:
            payload: What the canvas said: {"desk", "drags"}; or from a program, {"picture": an
                address with base64, "drags"}.
        """
        if not payload:
            return None
        try:
            desk = self._desk(payload.get("desk"))
            if desk is None and payload.get("picture"):
                desk = self._opened(payload)[1]
            if desk is not None and "drags" in payload:
                desk.place(payload["drags"])
        except REFUSED as refused:
            raise gr.Error(str(refused), print_exception=False) from refused
        if desk is None:
            raise gr.Error("the picture is no longer held here; open it again")
        return desk

    def postprocess(self, value: ImageLike | Desk | None) -> dict[str, Any] | None:
        """Return what the canvas is told: a picture to open, or its desk's new state."""
        if value is None:
            return None
        if not isinstance(value, Desk):
            return _sent_whole(Image.of(value))
        for id, desk in list(self._desks.items()):
            if desk is value:
                return {"desk": id, "version": desk.version, "drags": []}
        return _sent_whole(value.image) | {"prompt": value.prompt}

    def api_info(self) -> dict[str, Any]:
        """Return the schema of what programs send."""
        return {"type": "object", "properties": {"picture": {"type": "string"}, "drags": {}}}

    def example_payload(self) -> Any:
        """Return nothing: there is no picture."""
        return None

    def example_value(self) -> Any:
        """Return nothing: there is no picture."""
        return None

    @server  # type: ignore[untyped-decorator]
    def ask(self, asked: Any) -> dict[str, Any]:
        """Answer a canvas (page/board.js, page/gradio.js); in a thread of gradio's."""
        try:
            return self._answer(asked)
        except REFUSED as refused:
            return {"error": str(refused)}

    def _answer(self, asked: Any) -> dict[str, Any]:
        if not isinstance(asked, Mapping):
            raise ConfigError("a canvas asks by an object")
        if asked.get("do") == "open":
            id, desk = self._opened(asked)
            return {"desk": id, **desk.state()}
        found = self._desk(asked.get("desk"))
        if found is None:
            return {"gone": True}
        if asked.get("do") == "release":
            raise ConfigError("a release is an event of the component; listen to it")
        picture = _sent(asked) if asked.get("picture") else None
        about, made = found.answer(asked, picture)
        return about if made is None else about | {"picture": address_of(made)}

    def _opened(self, asked: Mapping[str, Any]) -> tuple[str, Desk]:
        """Hold a picture that was sent, under an id that nobody guesses."""
        prompt = asked.get("prompt")
        desk = Desk(
            _sent(asked), self._load, prompt if isinstance(prompt, str) else self._told_prompt
        )
        id = secrets.token_hex(16)
        with self._turn:
            self._desks[id] = desk
            old = [] if len(self._desks) <= self._most else [self._desks.popitem(last=False)[1]]
        for each in old:
            each.cancel()
        return id, desk

    def _desk(self, id: object) -> Desk | None:
        with self._turn:
            desk = self._desks.get(str(id))
            if desk is not None:
                self._desks.move_to_end(str(id))
            return desk


def _sent_whole(image: Image) -> dict[str, Any]:
    """Return a picture as a canvas is told to open it."""
    return {"picture": address_of(image.to_bytes("png")), "drags": []}


def _sent(asked: Mapping[str, Any]) -> bytes:
    """Return the picture's file that was sent. Raises ImageError."""
    address = asked.get("picture")
    if isinstance(address, str) and len(address) > _MOST_BYTES:
        raise ConfigError(f"a picture may have {_MOST_BYTES * 3 // 4} bytes; send a smaller one")
    return file_of(address)


def told(progress: gr.Progress) -> Progress:
    """Return what tells gradio's progress of an engine's."""

    def report(stage: str, done: int, of: int) -> None:
        progress(done / max(1, of), desc=stage)

    return report


def demo(editor: Editor | None = None) -> gr.Blocks:
    """Return an app to drag in; launch it.

    Args:
        editor: None: on the embedded model.
    """
    editor = embedded() if editor is None else editor
    kept = {sample.name: sample for sample in samples()}

    with gr.Blocks(title="dragnoise") as app:
        with gr.Row():
            prompt = gr.Textbox(label="What the picture shows", scale=3)
            preset = gr.Dropdown(sorted(PRESETS), value="fast", label="How it is refined")
            sample = gr.Dropdown(sorted(kept), value=None, label="Open a sample")
        picture = DragImage(editor=editor)
        about = gr.Markdown()

        def open_sample(name: str) -> tuple[Desk, str]:
            return Desk(kept[name].image, prompt=kept[name].prompt), kept[name].prompt

        def refine(
            desk: Desk,
            prompt: str,
            preset: str,
            progress: Any = gr.Progress(),  # noqa: B008
        ) -> tuple[Desk, str]:
            return desk, _refined(desk, prompt, preset, told(progress))

        sample.input(open_sample, sample, [picture, prompt])
        gr.on([prompt.submit, prompt.blur], _described, [picture, prompt], picture)
        picture.release(refine, [picture, prompt, preset], [picture, about], show_progress_on=about)
    return app


def _described(desk: Desk | None, prompt: str) -> Desk | None:
    """Say what the picture shows, where that is another text."""
    if desk is not None and prompt != desk.prompt:
        desk.describe(prompt)
    return desk


def _refined(desk: Desk, prompt: str, preset: str, progress: Progress) -> str:
    """Drag what is placed on a desk, and say what came of it."""
    try:
        _described(desk, prompt)
        result = desk.drag(preset=preset, progress=progress)
    except REFUSED as refused:
        raise gr.Error(str(refused), print_exception=False) from refused
    reached = "reached" if result.reached else "did not quite reach"
    return (
        f"{preset}: {result.timings_ms['total'] / 1e3:.1f} s; the points {reached} their targets."
    )
