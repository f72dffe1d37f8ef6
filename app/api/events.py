"""/api/v1/events: the journal."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from app.api.identity import Initiator, ServicesOf
from app.api.lines import NDJSON, ndjson
from app.api.problems import responses
from app.api.schemas import LARGEST_NUMBER, moment
from app.domain.event import Event, EventType
from app.services.bundle import Services

router = APIRouter(prefix="/events", tags=["events"])


class EventView(BaseModel):
    """An entry of the journal."""

    id: int
    type: EventType
    action: str
    actor_id: str
    actor_name: str
    time: datetime | None
    time_ns: int
    initiator: str
    attributes: dict[str, str]

    @classmethod
    def of(cls, event: Event) -> Self:
        """From the journal."""
        return cls(
            id=event.id,
            type=event.type,
            action=event.action,
            actor_id=event.actor_id,
            actor_name=event.actor_name,
            time=moment(event.time_ns),
            time_ns=event.time_ns,
            initiator=event.initiator,
            attributes=event.attributes,
        )


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
