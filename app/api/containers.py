"""/api/v1/containers."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response, status
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from app.api.identity import Initiator, ServicesOf
from app.api.lines import NDJSON, ndjson
from app.api.problems import responses
from app.api.schemas import ContainerCreate, ContainerView, ExecCreate, Rename, SampleView
from app.core.errors import AlreadyInState, NotFound
from app.domain.exec import ExecConfig
from app.domain.log import LogStream
from app.services.bundle import Services
from app.services.exec import ExecEnd, ExecOutput

router = APIRouter(prefix="/containers", tags=["containers"])

Reference = Annotated[
    str, Path(description="Id, unique prefix of an id, or name.", examples=["ticker"])
]
TimeoutS = Annotated[
    int | None, Query(ge=0, le=86_400, description="Seconds before SIGKILL; default: its own.")
]


@router.get("", summary="List containers")
async def list_containers(
    services: ServicesOf,
    _: Initiator,
    all: Annotated[bool, Query(description="Also those that do not run.")] = True,
) -> list[ContainerView]:
    """Newest first."""
    return [ContainerView.of(each) for each in await services.containers.list(all=all)]


@router.post(
    "",
    summary="Create a container",
    status_code=status.HTTP_201_CREATED,
    responses=responses(404, 409, 422),
)
async def create_container(
    body: ContainerCreate,
    services: ServicesOf,
    initiator: Initiator,
    response: Response,
    start: Annotated[bool, Query(description="Start it as well.")] = False,
) -> ContainerView:
    """Record it; with `start` also run it, and answer once its process runs."""
    created = await services.containers.create(
        body.to_config(), name=body.name, initiator=initiator
    )
    response.headers["Location"] = f"/api/v1/containers/{created.id}"
    if start:
        await services.containers.start(created.id, initiator=initiator)
        created = await services.containers.get(created.id)
    return ContainerView.of(created)


@router.get("/{reference}", summary="Show a container", responses=responses(400, 404))
async def get_container(reference: Reference, services: ServicesOf, _: Initiator) -> ContainerView:
    """Its record now."""
    return ContainerView.of(await services.containers.get(reference))


@router.delete(
    "/{reference}",
    summary="Remove a container",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=responses(400, 404, 409),
)
async def delete_container(
    reference: Reference,
    services: ServicesOf,
    initiator: Initiator,
    force: Annotated[bool, Query(description="Kill it first if it runs.")] = False,
) -> None:
    """Remove it with its disk; its log stays until retention ends."""
    await services.containers.remove(reference, force=force, initiator=initiator)


@router.post(
    "/{reference}/start",
    summary="Start a container",
    responses=responses(400, 404, 409, 422),
)
async def start_container(
    reference: Reference, services: ServicesOf, initiator: Initiator
) -> ContainerView:
    """Answer once its process runs; one that runs already stays as it is."""
    container = await services.containers.get(reference)
    with suppress(AlreadyInState):
        await services.containers.start(container.id, initiator=initiator)
    return await _shown(services, container.id)


@router.post("/{reference}/stop", summary="Stop a container", responses=responses(400, 404, 409))
async def stop_container(
    reference: Reference, services: ServicesOf, initiator: Initiator, timeout_s: TimeoutS = None
) -> ContainerView:
    """Stop signal, then SIGKILL; answer once it has ended. One that is stopped stays as it is."""
    container = await services.containers.get(reference)
    with suppress(AlreadyInState):
        await services.containers.stop(container.id, timeout_s=timeout_s, initiator=initiator)
    return await _shown(services, container.id, gone=ContainerView.of(container))


@router.post(
    "/{reference}/kill", summary="Signal a container", responses=responses(400, 404, 409, 422)
)
async def kill_container(
    reference: Reference,
    services: ServicesOf,
    initiator: Initiator,
    signal: Annotated[str, Query(max_length=32, examples=["SIGUSR1"])] = "SIGKILL",
) -> ContainerView:
    """Send a signal to its first process."""
    container = await services.containers.get(reference)
    await services.containers.kill(container.id, signal=signal, initiator=initiator)
    return await _shown(services, container.id, gone=ContainerView.of(container))


@router.post(
    "/{reference}/restart", summary="Restart a container", responses=responses(400, 404, 409)
)
async def restart_container(
    reference: Reference, services: ServicesOf, initiator: Initiator, timeout_s: TimeoutS = None
) -> ContainerView:
    """Stop it if it runs, then start it."""
    container = await services.containers.get(reference)
    await services.containers.restart(container.id, timeout_s=timeout_s, initiator=initiator)
    return await _shown(services, container.id)


@router.post("/{reference}/pause", summary="Pause a container", responses=responses(400, 404, 409))
async def pause_container(
    reference: Reference, services: ServicesOf, initiator: Initiator
) -> ContainerView:
    """Freeze every process of it; the VM runs on."""
    container = await services.containers.get(reference)
    await services.containers.pause(container.id, initiator=initiator)
    return await _shown(services, container.id)


@router.post(
    "/{reference}/unpause", summary="Unpause a container", responses=responses(400, 404, 409)
)
async def unpause_container(
    reference: Reference, services: ServicesOf, initiator: Initiator
) -> ContainerView:
    """Let it go on."""
    container = await services.containers.get(reference)
    await services.containers.unpause(container.id, initiator=initiator)
    return await _shown(services, container.id)


@router.post(
    "/{reference}/rename", summary="Rename a container", responses=responses(400, 404, 409, 422)
)
async def rename_container(
    reference: Reference, body: Rename, services: ServicesOf, initiator: Initiator
) -> ContainerView:
    """Give it another name."""
    renamed = await services.containers.rename(reference, body.name, initiator=initiator)
    return ContainerView.of(renamed)


@router.post(
    "/{reference}/stdin",
    summary="Write to a container's standard input",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=responses(400, 404, 409),
    openapi_extra={
        "requestBody": {
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            }
        }
    },
)
async def write_stdin(
    reference: Reference,
    request: Request,
    services: ServicesOf,
    _: Initiator,
    close: Annotated[bool, Query(description="End the input after these bytes.")] = False,
) -> None:
    """The body's bytes, as they are; a process that does not read holds the request back."""
    container = await services.containers.get(reference)
    await services.containers.write_stdin(container, request.stream(), close=close)


class WindowSize(BaseModel):
    """Size of a terminal, in characters."""

    rows: int = Field(ge=1, le=65_535)
    columns: int = Field(ge=1, le=65_535)


@router.post(
    "/{reference}/resize",
    summary="Resize a container's terminal",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=responses(400, 404, 409),
)
async def resize_container(
    reference: Reference, body: WindowSize, services: ServicesOf, _: Initiator
) -> None:
    """For one that was created with `tty`."""
    container = await services.containers.get(reference)
    await services.containers.resize(container, rows=body.rows, columns=body.columns)


class WaitResult(BaseModel):
    """How a container ended."""

    exit_code: int = Field(examples=[0])


@router.post(
    "/{reference}/wait", summary="Wait for a container's end", responses=responses(400, 404)
)
async def wait_container(reference: Reference, services: ServicesOf, _: Initiator) -> WaitResult:
    """Answer when it does not run; at once if it does not."""
    return WaitResult(exit_code=await services.containers.wait(reference))


@router.get("/{reference}/stats", summary="A container's numbers", responses=responses(400, 404))
async def container_stats(
    reference: Reference, services: ServicesOf, _: Initiator
) -> list[SampleView]:
    """At most the last five minutes, oldest first; empty if it does not run."""
    container = await services.containers.get(reference)
    return [SampleView.of(sample) for sample in services.stats.history(container.id)]


@router.get(
    "/{reference}/console",
    summary="The guest's boot console",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **responses(400, 404)},
)
async def container_console(reference: Reference, services: ServicesOf, _: Initiator) -> Response:
    """Of the present VM, or of the last one; the newest 256 KiB."""
    container = await services.containers.get(reference)
    text = await services.containers.console(container.id)
    return Response(text, media_type="text/plain; charset=utf-8")


@router.post(
    "/{reference}/exec",
    summary="Run a command in a container",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {
                NDJSON: {"example": '{"stream":"stdout","text":"hi\\n"}\n{"exit_code":0}\n'}
            }
        },
        **responses(400, 404, 409, 422),
    },
)
async def exec_container(
    reference: Reference, body: ExecCreate, services: ServicesOf, _: Initiator
) -> StreamingResponse:
    """Output as JSON lines while it comes, then the exit code; hanging up kills the command."""
    config = ExecConfig(
        command=tuple(body.command),
        env=tuple(body.env),
        user=body.user,
        working_dir=body.working_dir,
        tty=body.tty,
    )
    session = services.exec.exec(reference, config)
    output = await session.__aenter__()

    async def lines() -> AsyncIterator[bytes]:
        try:
            async for piece in output:
                yield _exec_line(piece)
        finally:
            await session.__aexit__(None, None, None)

    return StreamingResponse(lines(), media_type=NDJSON)


class ExecPiece(BaseModel):
    """A piece of a command's output."""

    stream: Literal["stdout", "stderr"]
    text: str


def _exec_line(piece: ExecOutput | ExecEnd) -> bytes:
    if isinstance(piece, ExecEnd):
        return ndjson(WaitResult(exit_code=piece.exit_code))
    stream: Literal["stdout", "stderr"] = "stderr" if piece.stream is LogStream.STDERR else "stdout"
    return ndjson(ExecPiece(stream=stream, text=piece.data.decode("utf-8", "replace")))


async def _shown(
    services: Services, container_id: str, *, gone: ContainerView | None = None
) -> ContainerView:
    """The record after a command; one with `auto_remove` may be gone, then as it was before."""
    try:
        return ContainerView.of(await services.containers.get(container_id))
    except NotFound:
        if gone is None:
            raise
        return gone
