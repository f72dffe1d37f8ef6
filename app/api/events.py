"""/api/v1/events: the journal."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from app.api.identity import Initiator, ServicesOf
from app.api.lines import NDJSON, ndjson
from app.api.problems import responses
from app.api.schemas import LARGEST_NUMBER, EventView
from app.services.bundle import Services

router = APIRouter(prefix="/events", tags=["events"])


@router.get("", summary="List events", responses=responses(422))
async def list_events(
    services: ServicesOf,
    _: Initiator,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before_id: Annotated[int | None, Query(ge=0, le=LARGEST_NUMBER)] = None,
    actor_id: Annotated[str | None, Query(max_length=256)] = None,
) -> list[EventView]:
    """Newest first; page backwards by `before_id`."""
    events = await services.events.list(limit=limit, before_id=before_id, actor_id=actor_id)
    return [EventView.of(event) for event in events]


@router.get(
    "/stream",
    summary="Follow events",
    response_class=StreamingResponse,
    responses={200: {"content": {NDJSON: {}}}, **responses(422)},
)
async def stream_events(
    services: ServicesOf,
    _: Initiator,
    after_id: Annotated[int, Query(ge=0, le=LARGEST_NUMBER)] = 0,
) -> StreamingResponse:
    """Everything after `after_id` as JSON lines, then what comes, until the caller hangs up."""
    return StreamingResponse(_follow(services, after_id), media_type=NDJSON)


async def _follow(services: Services, after_id: int) -> AsyncIterator[bytes]:
    async with services.events.follow(after_id=after_id) as follower:
        yield b""
        while True:
            yield ndjson(EventView.of(await follower.next()))
