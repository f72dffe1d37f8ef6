"""/events: the journal in Docker's words, history and what comes, without a gap."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.core.errors import InvalidArgument
from app.docker_api.access import ServicesOf
from app.docker_api.event_filters import FILTERS, is_wanted
from app.docker_api.parameters import Filters, parse_filters
from app.docker_api.times import NS_PER_S, parse_time_ns
from app.domain.event import Event, EventType
from app.services.bundle import Services
from app.services.events import EventFollower

router = APIRouter()

TYPES = {EventType.CONTAINER: "container", EventType.IMAGE: "image"}
ENGINE = "engine"
# Ours -> Docker's. A stop is a signal, an end, and then the stop.
_CONTAINER_ACTIONS = {"stop": "kill", "stopped": "stop", "restarted": "restart"}
_OURS_ALONE = frozenset({"start-requested", "log-fault", "restart"})
_IMAGE_ACTIONS = {"import": "load"}


@router.get("/events")
async def follow_events(
    services: ServicesOf,
    since: str = "",
    until: str = "",
    filters: Annotated[str, Query()] = "",
) -> StreamingResponse:
    """One JSON object a line; without `until` for ever."""
    wanted = parse_filters(filters, FILTERS)
    since_ns, until_ns = parse_time_ns("since", since), parse_time_ns("until", until)
    if since_ns is not None and until_ns is not None and since_ns > until_ns:
        raise InvalidArgument(f"`since` time ({since}) cannot be after `until` time ({until})")
    return _EventStream(services, wanted, since_ns, until_ns)


class _EventStream(StreamingResponse):
    """Takes part in the journal before the headers go out."""

    def __init__(
        self, services: Services, wanted: Filters, since_ns: int | None, until_ns: int | None
    ) -> None:
        self._services = services
        self._wanted = wanted
        self._since_ns = since_ns
        self._until_ns = until_ns
        super().__init__(self._lines(), media_type="application/json")
        self._follower: EventFollower | None = None
        self._last_id = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the connection."""
        async with AsyncExitStack() as stack:
            self._last_id = await self._services.events.last_id()
            self._follower = await stack.enter_async_context(
                self._services.events.follow(after_id=self._last_id, moments=True)
            )
            await super().__call__(scope, receive, send)

    async def _lines(self) -> AsyncIterator[bytes]:
        yield b""
        async for event in self._events():
            shown = docker_event(event)
            if shown is not None and is_wanted(shown, self._wanted):
                yield json.dumps(shown, separators=(",", ":")).encode() + b"\n"

    async def _events(self) -> AsyncIterator[Event]:
        assert self._follower is not None  # noqa: S101 - set before the body is asked for
        if self._since_ns is not None:
            history = self._services.events.history(
                self._since_ns, up_to_id=self._last_id, moments=self._follower.past_moments
            )
            async for event in history:
                if self._until_ns is None or event.time_ns <= self._until_ns:
                    yield event
        while (left_s := self._left_s()) is None or left_s > 0:
            try:
                async with asyncio.timeout(left_s):
                    event = await self._follower.next()
            except TimeoutError:
                return
            yield event

    def _left_s(self) -> float | None:
        if self._until_ns is None:
            return None
        return (self._until_ns - time.time_ns()) / NS_PER_S


def docker_event(event: Event) -> dict[str, Any] | None:
    """The event as Docker tells it; None if Docker has nothing like it."""
    kind = TYPES.get(event.type)
    action = _action(event)
    if kind is None or action is None:
        return None
    attributes = {**event.subject, "name": event.actor_name, **_attributes(event)}
    head: dict[str, Any] = {}
    if event.actor_id:
        head = {"status": action, "id": event.actor_id}
        if "image" in event.subject:
            head["from"] = event.subject["image"]
    return {
        **head,
        "Type": kind,
        "Action": action,
        "Actor": {"ID": event.actor_id, "Attributes": attributes},
        "scope": "local",
        "time": event.time_ns // NS_PER_S,
        "timeNano": event.time_ns,
    }


def _action(event: Event) -> str | None:
    if event.type is EventType.IMAGE:
        return _IMAGE_ACTIONS.get(event.action, event.action)
    # Given up waiting for a restart: nothing ran that could stop.
    if event.action in _OURS_ALONE or (event.action == "stop" and event.initiator == ENGINE):
        return None
    return _CONTAINER_ACTIONS.get(event.action, event.action)


def _attributes(event: Event) -> dict[str, str]:
    ours = event.attributes
    if event.action == "die":
        began_ns = int(ours.get("startedNs", event.time_ns))
        duration_s = max(event.time_ns - began_ns, 0) // NS_PER_S
        return {"exitCode": ours.get("exitCode", "0"), "execDuration": str(duration_s)}
    if event.action == "rename":
        return {"oldName": f"/{ours.get('oldName', '')}"}
    if event.action == "start":
        return {}
    return ours
