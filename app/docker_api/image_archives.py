"""Images as archives: load, save and import, streamed both ways."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.core.errors import InvalidArgument, SlipwayError, Unsupported
from app.docker_api.access import Initiator, ServicesOf
from app.docker_api.errors import text_of
from app.docker_api.parameters import Flag
from app.docker_api.progress import error_line, line, step
from app.docker_api.pulling import TransferResponse, draw_pull, reference_of, wants_all_tags
from app.docker_api.registry_auth import RegistryCredentials
from app.domain.image import Image, ImageConfig, ImportProgress, ImportStage
from app.domain.image_changes import apply_changes
from app.services.bundle import Services

router = APIRouter(prefix="/images")

Write: TypeAlias = Callable[[bytes], Awaitable[None]]

TAR = "application/x-tar"
FROM_BODY = "-"
_STAGES = {
    ImportStage.RECEIVING: "Receiving archive",
    ImportStage.VERIFYING: "Loading layer",
    ImportStage.CONVERTING: "Preparing layer",
}
_QUEUED_LINES = 64


class BodyFirstResponse(Response):
    """Writes lines while the request's body is still being read.

    Starlette's streaming response would take pieces of the body while it looks whether the client
    has gone; here whoever reads the body notices that.

    Args:
        work: Is given a function that sends bytes, and does all of the work.
    """

    def __init__(self, work: Callable[[Write], Awaitable[None]]) -> None:
        super().__init__(media_type="application/json")
        del self.headers["content-length"]
        self._work = work

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Serve the connection."""

        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(head)
        await self._work(write)
        await send({"type": "http.response.body", "body": b""})


@router.post("/load")
async def load_images(
    request: Request, services: ServicesOf, initiator: Initiator, quiet: Flag = False
) -> Response:
    """Take in a `docker save` or OCI archive, of several images perhaps."""

    async def work(write: Write) -> None:
        await _load(request, services, initiator, write, quiet=quiet)

    return BodyFirstResponse(work)


async def _load(
    request: Request, services: Services, initiator: str, write: Write, *, quiet: bool
) -> None:
    lines: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUED_LINES)

    def report(progress: ImportProgress) -> None:
        if not quiet and progress.subject and not lines.full():
            lines.put_nowait(_progress_line(progress))

    async def tell() -> None:
        while (piece := await lines.get()) is not None:
            await write(piece)

    async with asyncio.TaskGroup() as group:
        group.create_task(tell())
        outcome = await _outcome(
            services.images.import_stream(
                _chunks(request),
                reference=None,
                initiator=initiator,
                progress=report,
                action="load",
            )
        )
        await lines.put(None)
    await write(outcome)


def _progress_line(progress: ImportProgress) -> bytes:
    return step(
        _STAGES[progress.stage], progress.subject, progress.done_bytes, progress.total_bytes
    )


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk


async def _outcome(loading: Coroutine[None, None, Sequence[Image]]) -> bytes:
    """The stream's last lines; an error is one of them."""
    try:
        images = await loading
    except (SlipwayError, ClientDisconnect) as error:
        text = text_of(error) if isinstance(error, SlipwayError) else "the client has gone"
        return error_line(text)
    return b"".join(_loaded(image) for image in images)


def _loaded(image: Image) -> bytes:
    if not image.tags:
        return line(stream=f"Loaded image ID: {image.id}\n")
    return b"".join(line(stream=f"Loaded image: {name.familiar}\n") for name in image.tags)


@router.get("/get")
async def save_images(
    services: ServicesOf, names: Annotated[list[str] | None, Query()] = None
) -> Response:
    """An archive of several images."""
    return await _saved(services, [part for name in names or () for part in name.split(",")])


@router.get("/{reference:path}/get")
async def save_image(reference: str, services: ServicesOf) -> Response:
    """An archive of one image, or of all tags of a repository."""
    return await _saved(services, [reference])


async def _saved(services: Services, names: list[str]) -> Response:
    if not names:
        raise InvalidArgument("no images to save: names is empty")
    wanted = services.images.chosen_by(names)

    async def archive() -> AsyncIterator[bytes]:
        async with services.images.saving(wanted) as pieces:
            async for piece in pieces:
                yield piece

    return StreamingResponse(archive(), media_type=TAR)


@router.post("/create")
async def create_image(
    request: Request,
    services: ServicesOf,
    initiator: Initiator,
    credentials: RegistryCredentials,
    from_image: Annotated[str, Query(alias="fromImage")] = "",
    from_src: Annotated[str, Query(alias="fromSrc")] = "",
    repo: str = "",
    tag: str = "",
    message: str = "",
    platform: str = "",
    changes: Annotated[list[str] | None, Query()] = None,
) -> Response:
    """Pull from a registry, or import a root filesystem."""
    if not from_src:
        transfer = await services.registries.pull(
            reference_of(from_image, tag),
            credentials=credentials,
            initiator=initiator,
            platform=platform,
            all_tags=wants_all_tags(from_image, tag),
        )
        return TransferResponse(transfer, draw_pull)
    if from_src != FROM_BODY:
        raise Unsupported(
            f"importing from {from_src} is not supported: this engine fetches no files",
            advice="Download it, then import the file",
        )
    config = apply_changes(ImageConfig(), changes or ())
    image = await services.images.import_rootfs(
        _chunks(request),
        reference=(f"{repo}:{tag}" if tag else repo) or None,
        config=config,
        comment=message or "Imported from -",
        initiator=initiator,
    )
    return Response(line(status=image.id), media_type="application/json")
