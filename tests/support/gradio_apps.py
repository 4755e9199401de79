"""Two gradio apps in one process, as a product mounts them: the demo, and one of its own."""

import socket

import gradio as gr
import uvicorn
from fastapi import FastAPI

from dragnoise.engine.diffusion.samples import samples
from dragnoise.engine.hosts.desk import Desk, embedded
from dragnoise.engine.hosts.gradio import DragImage, demo

NOTED = ("upload", "grab", "edit", "undo", "refused")


def own() -> gr.Blocks:
    """Return an app with a picture, and with every event of it written down."""
    boat = next(sample for sample in samples() if sample.name == "boat")
    with gr.Blocks() as app:
        picture = DragImage(boat.image, editor=embedded(), prompt=boat.prompt, desks=1)
        at = gr.Textbox("", label="pointer")
        with gr.Row():
            counts = {name: gr.Number(0, label=name) for name in NOTED}
        for name in NOTED[:-1]:
            getattr(picture, name)(more, counts[name], counts[name])
        picture.move(place, picture, at, trigger_mode="always_last", show_progress="hidden")
        done = picture.release(drag, picture, picture)
        done.failure(more, counts["refused"], counts["refused"])
    return app


def more(count: int) -> int:
    """Count an event."""
    return count + 1


def place(desk: Desk) -> str:
    """Return where the pointer is."""
    return " ".join(f"{each:g}" for each in desk.drags[-1])


def drag(desk: Desk) -> Desk:
    """Drag; what leads to the left is refused."""
    handle, _, target, _ = desk.drags[-1]
    if target < handle:
        raise gr.Error("only to the right")
    desk.drag(preset="live")
    return desk


def main() -> None:
    """Serve both, and print where."""
    app = FastAPI()
    gr.mount_gradio_app(app, demo(embedded()), path="/demo")
    gr.mount_gradio_app(app, own(), path="/own")
    with socket.create_server(("127.0.0.1", 0)) as place:
        place.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else answers wait for 40 ms
        print(f"http://127.0.0.1:{place.getsockname()[1]}", flush=True)  # noqa: T201
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[place])


if __name__ == "__main__":
    main()
