"""POST /containers/{id}/wait: the headers go out at once, the answer when it has ended."""

import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.core.errors import InvalidArgument
from app.docker_api.access import ServicesOf
from app.services.bundle import Services
from app.services.exits import WaitCondition

router = APIRouter(prefix="/containers")


@router.post("/{reference}/wait")
async def wait_for_container(
    reference: str, services: ServicesOf, condition: str = ""
) -> StreamingResponse:
    """Its exit code, once the condition is met."""
    try:
        chosen = WaitCondition(condition or WaitCondition.NOT_RUNNING)
    except ValueError as error:
        raise InvalidArgument(f"invalid condition: {json.dumps(condition)}") from error
    stack = AsyncExitStack()
    # From here on no end is missed: a client starts the container once it has the headers.
    container = await services.containers.get(reference)
    exit_code = await stack.enter_async_context(services.containers.waiting(container.id, chosen))
    return _Waiting(stack, _answer(services, container.id, exit_code))


class _Waiting(StreamingResponse):
    """Ends the wait with the connection, whatever ends that."""

    def __init__(self, stack: AsyncExitStack, answer: AsyncIterator[bytes]) -> None:
        super().__init__(answer, media_type="application/json")
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the connection."""
        async with self._stack:
            await super().__call__(scope, receive, send)


async def _answer(
    services: Services, container_id: str, exit_code: Awaitable[int]
) -> AsyncIterator[bytes]:
    yield b""
    code = await exit_code
    await services.attach.delivered(container_id)  # some clients stop reading at our answer
    yield json.dumps({"StatusCode": code}).encode() + b"\n"
