"""The routes of sessions and pictures: what needs no device."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from fastapi.responses import FileResponse, Response

from ..errors import SessionError
from ..inputs.image import Image
from ..inputs.mask import Mask
from ..session.session import Session
from .documents import ErrorDocument, Info, State
from .held import Held
from .pictures import mask_of, mask_png, picture_of
from .refusals import Refusal
from .service import Service

__all__ = ["HeldHere", "ServiceHere", "refusals", "routes"]

routes = APIRouter(prefix="/api/v1")

_PICTURE: dict[str, Any] = {"image/png": {}, "image/webp": {}, "image/jpeg": {}}
_TYPES = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
_LONGEST_PROMPT = 2000

Format = Annotated[Literal["png", "webp", "jpeg"], Query()]
Text = Annotated[str, Form(max_length=_LONGEST_PROMPT)]


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route's description says of its errors, beside those that every route has."""
    return {status: {"model": ErrorDocument} for status in (401, 403, 413, 422, 500, *statuses)}


def _pictures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return refusals(*statuses) | {200: {"content": _PICTURE}}


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceHere = Annotated[Service, Depends(_service)]


async def _held(id: str, service: ServiceHere) -> Held:
    return await service.table.get(id)


HeldHere = Annotated[Held, Depends(_held)]


async def _body(request: Request) -> bytes:
    return await request.body()


BodyHere = Annotated[bytes, Depends(_body)]


@routes.get("/info", responses=refusals())
async def info(service: ServiceHere) -> Info:
    """What the service is, has and allows."""
    return service.info


@routes.get("/samples/{name}.png", response_class=Response, responses=_pictures(404))
async def sample(name: str, service: ServiceHere) -> Response:
    """A sample's picture."""
    return FileResponse(_sample(service, name), media_type="image/png")


@routes.get("/samples/{name}/mask.png", response_class=Response, responses=_pictures(404))
async def sample_mask(name: str, service: ServiceHere) -> Response:
    """A sample's mask."""
    _sample(service, name)
    mask = service.samples[name].mask
    if mask is None:
        raise Refusal("not_found", "this sample has no mask")
    return FileResponse(mask, media_type="image/png")


@routes.post("/sessions", status_code=201, responses=refusals(400, 415, 404, 429, 503))
async def open_session(
    service: ServiceHere,
    image: Annotated[UploadFile | None, File()] = None,
    sample: Annotated[str | None, Form(max_length=100)] = None,
    prompt: Text = "",
    negative_prompt: Text = "",
) -> State:
    """Open a session on a picture, or on a sample, whose prompt is used where none is given."""
    _check_serves(service)
    if (image is None) == (sample is None):
        raise Refusal("malformed", "give image or sample, one of them")
    if image is not None:
        opened = partial(_opened_of_file, service, image, prompt, negative_prompt)
    else:
        path = _sample(service, sample or "")
        text = prompt or service.samples[sample or ""].prompt
        opened = partial(_opened, service, path.read_bytes(), text, negative_prompt)
    return (await service.table.add(opened)).state()


@routes.post(
    "/sessions/restore",
    status_code=201,
    responses=refusals(400, 429, 503),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
)
async def restore_session(service: ServiceHere, body: BodyHere) -> State:
    """Open a session from a file that `/sessions/ID/file` gave; without its mask and grip."""
    _check_serves(service)
    return (await service.table.add(partial(_restored, service, body))).state()


@routes.get("/sessions/{id}", responses=refusals(404))
async def state(held: HeldHere) -> State:
    """A session."""
    return held.state()


@routes.delete("/sessions/{id}", status_code=204, responses=refusals(404))
async def delete_session(held: HeldHere, service: ServiceHere) -> None:
    """Forget a session; what it does is cancelled."""
    await service.table.remove(held)


@routes.get("/sessions/{id}/image", response_class=Response, responses=_pictures(404))
async def image(held: HeldHere, service: ServiceHere, format: Format = "png") -> Response:
    """The picture that is seen."""
    return await _answer(service, held.session.image, format)


@routes.get("/sessions/{id}/source", response_class=Response, responses=_pictures(404))
async def source(held: HeldHere, service: ServiceHere, format: Format = "png") -> Response:
    """The picture that it began with."""
    return await _answer(service, held.session.source, format)


@routes.get(
    "/sessions/{id}/file",
    response_class=Response,
    responses=refusals(404, 409) | {200: {"content": {"application/octet-stream": {}}}},
)
async def file(held: HeldHere, service: ServiceHere) -> Response:
    """The session, to restore."""
    async with held.used("being saved"):
        content = await service.threads.picture(partial(_saved, held.session))
    name = {"Content-Disposition": 'attachment; filename="session.safetensors"'}
    return Response(content, media_type="application/octet-stream", headers=name)


_LAYER: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@routes.put(
    "/sessions/{id}/mask",
    status_code=204,
    responses=refusals(400, 404, 415),
    openapi_extra=_LAYER,
)
async def put_mask(held: HeldHere, service: ServiceHere, body: BodyHere) -> None:
    """Set where the picture may change: white, in a picture of the session's size."""
    held.mask = await _layer(service, held, body)
    held.unsaved = True


@routes.get("/sessions/{id}/mask", response_class=Response, responses=_pictures(404))
async def mask(held: HeldHere, service: ServiceHere) -> Response:
    """Where the picture may change, as PNG; 404 where it may everywhere."""
    return await _layer_answer(service, held.mask)


@routes.delete("/sessions/{id}/mask", status_code=204, responses=refusals(404))
async def delete_mask(held: HeldHere) -> None:
    """Let the picture change everywhere."""
    held.mask = None
    held.unsaved = True


@routes.put(
    "/sessions/{id}/grip",
    status_code=204,
    responses=refusals(400, 404, 415),
    openapi_extra=_LAYER,
)
async def put_grip(held: HeldHere, service: ServiceHere, body: BodyHere) -> None:
    """Set what moves as one piece: white, in a picture of the session's size."""
    grip = await _layer(service, held, body)
    if not grip.editable.any():
        raise Refusal("mask", "the grip marks nothing (white); delete it to grip a disc")
    held.grip = grip
    held.unsaved = True


@routes.get("/sessions/{id}/grip", response_class=Response, responses=_pictures(404))
async def grip(held: HeldHere, service: ServiceHere) -> Response:
    """What moves as one piece, as PNG; 404 where a disc does."""
    return await _layer_answer(service, held.grip)


@routes.delete("/sessions/{id}/grip", status_code=204, responses=refusals(404))
async def delete_grip(held: HeldHere) -> None:
    """Let a disc about each handle move."""
    held.grip = None
    held.unsaved = True


@routes.post("/sessions/{id}/undo", responses=refusals(400, 404, 409))
async def undo(held: HeldHere) -> State:
    """Show the picture before the last drag."""
    async with held.used("undo"):
        held.session.undo()
        held.changed()
        return held.state()


@routes.post("/sessions/{id}/redo", responses=refusals(400, 404, 409))
async def redo(held: HeldHere) -> State:
    """Show the picture that was undone last."""
    async with held.used("redo"):
        held.session.redo()
        held.changed()
        return held.state()


@routes.post("/sessions/{id}/cancel", responses=refusals(404))
async def cancel(held: HeldHere) -> State:
    """End what runs, and wait until it has; the session is then as it was before it."""
    work = held.work
    if work is not None:
        work.cancel(Refusal("cancelled", "it was cancelled; the session is as it was"))
        await work.wait()
    return held.state()


def _check_serves(service: Service) -> None:
    if service.queue.is_draining:
        service.queue.check_room()


def _sample(service: Service, name: str) -> Path:
    """Return a sample's file. Raises Refusal."""
    if name not in service.samples:
        raise Refusal("not_found", "there is no such sample; /info names them")
    return service.samples[name].image


async def _layer(service: Service, held: Held, body: bytes) -> Mask:
    image = held.session.source
    return await service.threads.picture(partial(mask_of, body, image.width, image.height))


async def _layer_answer(service: Service, layer: Mask | None) -> Response:
    if layer is None:
        raise Refusal("not_found", "there is none")
    content = await service.threads.quick(partial(mask_png, layer))
    return Response(content, media_type="image/png", headers={"Cache-Control": "no-store"})


async def _answer(service: Service, image: Image, format: str) -> Response:
    content = await service.threads.picture(partial(image.to_bytes, format))
    headers = {"Cache-Control": "no-store"}
    return Response(content, media_type=_TYPES[format], headers=headers)


# In threads.


def _opened_of_file(
    service: Service, upload: UploadFile, prompt: str, negative_prompt: str, tenant: str
) -> Session:
    return _opened(service, upload.file.read(), prompt, negative_prompt, tenant)


def _opened(
    service: Service, data: bytes, prompt: str, negative_prompt: str, tenant: str
) -> Session:
    picture = picture_of(data, service.limits)
    return service.editor.open(
        picture,
        prompt=prompt,
        negative_prompt=negative_prompt,
        undo_bytes=service.settings.undo_bytes,
        tenant=tenant,
    )


def _restored(service: Service, data: bytes, tenant: str) -> Session:
    """Return the session in a file's content. Raises SessionError, which names no path."""
    with tempfile.TemporaryDirectory(prefix="dragnoise-") as folder:
        path = Path(folder) / "session.safetensors"
        path.write_bytes(data)
        try:
            undo_bytes = service.settings.undo_bytes
            session = service.editor.restore(path, undo_bytes=undo_bytes, tenant=tenant)
        except SessionError as refused:
            raise SessionError(str(refused).replace(repr(str(path)), "the file")) from None
        image = session.source
        service.limits.check_edit(image.width, image.height)
        return session


def _saved(session: Session) -> bytes:
    """Return the content of a session's file."""
    with tempfile.TemporaryDirectory(prefix="dragnoise-") as folder:
        return session.save(Path(folder) / "session.safetensors").read_bytes()
