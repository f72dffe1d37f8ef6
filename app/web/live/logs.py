"""Topics about what a container wrote and what happened to it."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from app.domain.container import Container
from app.domain.event import Event
from app.domain.log import LogLine
from app.logs.follow import LogBatch, LogEnd, LogFollower, LogGap
from app.web.boot import TimelineMark, boot_marks
from app.web.container import printable
from app.web.eventlog import event_mark, event_row
from app.web.live.topics import Request, Send, topic, whole_number
from app.web.loglines import NS_PER_US, packed_lines

TAIL_LINES = 1000
# A tab that comes back after more than this gets a gap and the tail; it may ask for the rest.
RESUME_LINES = 50_000
BATCH_LINES = 500
BATCH_BYTES = 256 * 1024
BATCH_AGE_S = 0.1
MARKS_LIMIT = 200
CONSOLE_POLL_S = 1.0
ROW_MACROS = "_macros/rows.html"


@topic("log:")
async def log_topic(request: Request, object_id: str, message: dict[str, Any], send: Send) -> None:
    """Stored lines, then live ones, without gap or repeat; from the tail, or after a line.

    The tab's own last line is `after`; the answer's `start` says where this run begins.
    """
    services = request.services
    container = await services.containers.get(object_id)
    last_seq = await services.logs.last_seq(container.id)
    tail_seq = max(last_seq - TAIL_LINES, 0)
    asked_seq = whole_number(message, "after", -1)
    is_resumed = 0 <= asked_seq <= last_seq
    after_seq = asked_seq if is_resumed else tail_seq
    await send({"start": {"after": after_seq, "last": last_seq, "resumed": is_resumed}})
    if is_resumed and last_seq - asked_seq > RESUME_LINES:
        after_seq = tail_seq
        await send({"gap": [asked_seq + 1, tail_seq]})
    async with services.logs.follow(container.id, after_seq=after_seq) as follower:
        await _relay(follower, send)


async def _relay(follower: LogFollower, send: Send) -> None:
    """Send lines at once, but no more often than each BATCH_AGE_S or BATCH_LINES lines.

    While `send` waits for a slow tab nothing is read here: the follower's own bound is then what
    turns lines into a gap, and the container is never held back.
    """
    pending: list[LogLine] = []
    flush_at_s = 0.0
    reading: asyncio.Task[LogBatch | LogGap | LogEnd] | None = None
    try:
        while True:
            # One read at a time, waited for and not cancelled at each flush: no line is lost.
            reading = reading or asyncio.create_task(follower.next())
            wait_s = max(flush_at_s - time.monotonic(), 0.0) if pending else None
            await asyncio.wait({reading}, timeout=wait_s)
            item: LogBatch | LogGap | LogEnd | None = None
            if reading.done():
                item, reading = reading.result(), None
            if isinstance(item, LogBatch):
                pending += item.lines
            is_due = len(pending) >= BATCH_LINES or time.monotonic() >= flush_at_s
            if pending and (is_due or isinstance(item, LogGap | LogEnd)):
                await _send_lines(pending, send)
                pending = []
                flush_at_s = time.monotonic() + BATCH_AGE_S
            if isinstance(item, LogGap):
                await send({"gap": [item.from_seq, item.to_seq]})
            elif isinstance(item, LogEnd):
                await send({"end": True})  # of this run; the follower goes on with the next
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _send_lines(lines: Sequence[LogLine], send: Send) -> None:
    batch: list[LogLine] = []
    size_bytes = 0
    for line in lines:
        batch.append(line)
        size_bytes += len(line.data)
        if len(batch) >= BATCH_LINES or size_bytes >= BATCH_BYTES:
            await send({"lines": packed_lines(batch)})
            batch, size_bytes = [], 0
    if batch:
        await send({"lines": packed_lines(batch)})


def packed_marks(marks: Sequence[TimelineMark]) -> list[list[int | str]]:
    """`[microseconds since the epoch, lane, text]`, in order."""
    ordered = sorted(marks, key=lambda mark: mark.time_ns)
    return [[mark.time_ns // NS_PER_US, mark.lane, mark.text] for mark in ordered]


async def _events_of(request: Request, container: Container) -> list[Event]:
    events = list(await request.services.events.list(limit=MARKS_LIMIT, actor_id=container.id))
    if container.vm_id:
        events += await request.services.events.list(limit=MARKS_LIMIT, actor_id=container.vm_id)
    return events


@topic("marks:")
async def marks_topic(
    request: Request, object_id: str, _message: dict[str, Any], send: Send
) -> None:
    """Events and boot stages that stand between the lines."""
    seen_id = 0
    seen_start_ns: int | None = None
    async with request.services.feed.subscribe() as changes:
        while True:
            container = await request.services.containers.get(object_id)
            events = await _events_of(request, container)
            marks = [event_mark(event) for event in events if event.id > seen_id]
            seen_id = max([seen_id, *(event.id for event in events)])
            if container.started_at_ns != seen_start_ns:
                seen_start_ns = container.started_at_ns
                marks += boot_marks(container)
            if marks:
                await send({"marks": packed_marks(marks)})
            while True:
                changed = await changes.next()
                if changed.events or object_id in changed.containers:
                    break


@topic("console:")
async def console_topic(
    request: Request, object_id: str, _message: dict[str, Any], send: Send
) -> None:
    """The boot console as it grows; a new VM starts it over."""
    shown: str | None = None
    while True:
        text = printable(await request.services.logs.console(object_id))
        if shown is None or not text.startswith(shown):
            await send({"reset": text})
        elif len(text) > len(shown):
            await send({"append": text[len(shown) :]})
        shown = text
        await asyncio.sleep(CONSOLE_POLL_S)


@topic("events")
async def events_topic(
    request: Request, _object_id: str, message: dict[str, Any], send: Send
) -> None:
    """Rows of the journal as they are written."""
    after_id = whole_number(message, "after", 0)
    async with request.services.events.follow(after_id=after_id) as follower:
        while True:
            event = await follower.next()
            row = event_row(event, with_day=True)
            html = request.templates.macro(ROW_MACROS, "event_row", row)
            await send({"event": html, "id": event.id})
