"""The journal, newest first, page by page."""

import re
from dataclasses import dataclass
from typing import ClassVar

from fastapi import APIRouter, Request, Response

from app.web.errors import WebRoute
from app.web.eventlog import EventRow, event_row
from app.web.sessions import SignedIn, services_of
from app.web.shell import Shell, build_shell
from app.web.templating import render

router = APIRouter(route_class=WebRoute)
EVENTS_AT_ONCE = 100


@dataclass(frozen=True)
class EventsPage:
    """Context of the journal; `older_url` is empty at its end."""

    template: ClassVar[str] = "events.html"
    shell: Shell
    rows: tuple[EventRow, ...]
    is_newest: bool
    older_url: str
    last_event_id: int


@router.get("/events")
async def events_page(request: Request, viewer: SignedIn) -> Response:
    """The page; `before` is the id to go on from."""
    before = request.query_params.get("before", "")
    before_id = int(before) if re.fullmatch(r"[0-9]{1,18}", before) else None
    events = await services_of(request).events.list(limit=EVENTS_AT_ONCE, before_id=before_id)
    has_more = len(events) == EVENTS_AT_ONCE
    page = EventsPage(
        shell=await build_shell(request, viewer, "events"),
        rows=tuple(event_row(event, with_day=True) for event in events),
        is_newest=before_id is None,
        older_url=f"/events?before={events[-1].id}" if has_more else "",
        last_event_id=events[0].id if events else 0,
    )
    return render(request, page)
