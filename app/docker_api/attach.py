"""/containers/{id}/attach: a container's own streams, on a raw connection or a websocket."""

import contextlib
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response, WebSocket, WebSocketDisconnect

from app.core.errors import Conflict, SlipwayError
from app.docker_api.access import ServicesOf
from app.docker_api.detach_keys import DetachScanner, parse_keys
from app.docker_api.errors import respond
from app.docker_api.hijack import HijackResponse, TakeOver
from app.docker_api.parameters import Flag
from app.docker_api.streams import (
    content_type,
    converse,
    send_output,
    take_input,
    wanted_streams,
)
from app.docker_api.versions import AskedVersion
from app.domain.container import Container, ContainerState
from app.services.bundle import Services

router = APIRouter(prefix="/containers")


@router.post("/{reference}/attach")
async def attach(
    reference: str,
    services: ServicesOf,
    version: AskedVersion,
    stream: Flag = False,
    logs: Flag = False,
    stdin: Flag = False,
    stdout: Flag = False,
    stderr: Flag = False,
    detach_keys: Annotated[str, Query(alias="detachKeys")] = "",
) -> Response:
    """Attach, before a start or while it runs; leaving lets it run on."""
    keys = parse_keys(detach_keys)
    container = await _attachable(services, reference)
    config = container.config
    wanted = wanted_streams(stdout=stdout, stderr=stderr)

    async def serve(take_over: TakeOver) -> None:
        # Who is attached misses nothing: the client starts the container when it has the head.
        async with services.attach.attach(container, history=logs, live=stream) as output:
            connection = await take_over(content_type(version, tty=config.tty))
            closes = config.stdin_once and not config.tty
            taking = None
            if stdin and stream and config.stdin_open:
                open_input = partial(services.attach.input_of, container)
                scanner = DetachScanner(keys) if config.tty else None
                taking = take_input(connection.read, open_input, closes=closes, keys=scanner)
            sending = send_output(connection.write, output, tty=config.tty, wanted=wanted)
            gone = connection.closed
            await converse(sending, taking, input_ends_it=not closes, gone=gone)

    return HijackResponse(serve)


@router.websocket("/{reference}/attach/ws")
async def attach_websocket(
    websocket: WebSocket,
    reference: str,
    services: ServicesOf,
    stream: Flag = False,
    logs: Flag = False,
    stdin: Flag = False,
    stdout: Flag = False,
    stderr: Flag = False,
) -> None:
    """The same as binary messages: raw, whatever the container is."""
    try:
        container = await _attachable(services, reference)
    except SlipwayError as error:
        await websocket.send_denial_response(respond(error))
        return
    config = container.config
    async with services.attach.attach(container, history=logs, live=stream) as output:
        await websocket.accept()
        open_input = partial(services.attach.input_of, container)
        closes = config.stdin_once and not config.tty
        is_input_wanted = stdin and stream and config.stdin_open
        taking = take_input(
            partial(_receive, websocket), open_input if is_input_wanted else None, closes=closes
        )
        sending = send_output(
            websocket.send_bytes,
            output,
            tty=True,
            wanted=wanted_streams(stdout=stdout, stderr=stderr),
        )
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, ConnectionError):
            await converse(sending, taking, input_ends_it=True)
            await websocket.close()


async def _receive(websocket: WebSocket) -> bytes:
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        return b""
    text: str | None = message.get("text")
    return message.get("bytes") or (text or "").encode() or b""


async def _attachable(services: Services, reference: str) -> Container:
    container = await services.containers.get(reference)
    if container.state is ContainerState.PAUSED:
        raise Conflict(f"container {container.id} is paused, unpause the container before attach")
    if container.state is ContainerState.RESTARTING:
        raise Conflict(
            f"container {container.id} is restarting, wait until the container is running"
        )
    return container
