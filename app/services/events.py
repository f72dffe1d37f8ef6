"""The journal: what happened, written with the change it tells of and followed live."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from app.db.database import Database
from app.db.repositories.events import EventRepository
from app.domain.event import Event, EventType
from app.services.feed import ChangeFeed, Changes

KEPT_EVENTS = 100_000
FOLLOW_BATCH = 200


class EventFollower:
    """Reads the journal onwards; every event comes, since the database is the queue."""

    def __init__(self, database: Database, after_id: int) -> None:
        self._database = database
        self._last_id = after_id
        self._buffer: list[Event] = []
        self._wakeup = asyncio.Event()

    def wake(self) -> None:
        """Say that the journal has grown."""
        self._wakeup.set()

    async def next(self) -> Event:
        """The next event, waiting for it."""
        while not self._buffer:
            self._wakeup.clear()
            async with self._database.read() as session:
                found = await EventRepository(session).after(self._last_id, limit=FOLLOW_BATCH)
            if not found:
                await self._wakeup.wait()
                continue
            self._buffer = list(found)
        event = self._buffer.pop(0)
        self._last_id = event.id
        return event


class EventService:
    """The journal as the faces see it."""

    def __init__(self, database: Database, feed: ChangeFeed) -> None:
        self._database = database
        self._feed = feed
        self._followers: set[EventFollower] = set()

    async def record(self, event: Event) -> Event:
        """Write an event that no change of a record goes with."""
        async with self._database.write() as session:
            stored = await EventRepository(session).append(event)
        self.announce()
        return stored

    async def note(
        self,
        type: EventType,
        action: str,
        actor_id: str,
        actor_name: str,
        *,
        initiator: str = "engine",
        attributes: dict[str, str] | None = None,
    ) -> Event:
        """Record an event that happens now."""
        return await self.record(
            Event(
                type=type,
                action=action,
                actor_id=actor_id,
                actor_name=actor_name,
                time_ns=time.time_ns(),
                initiator=initiator,
                attributes=attributes or {},
            )
        )

    def announce(self) -> None:
        """Wake followers; call after the transaction that wrote events is committed."""
        self._feed.publish(Changes(events=True))
        for follower in self._followers:
            follower.wake()

    async def list(
        self, *, limit: int = 100, before_id: int | None = None, actor_id: str | None = None
    ) -> Sequence[Event]:
        """Newest first."""
        async with self._database.read() as session:
            return await EventRepository(session).list(
                limit=limit, before_id=before_id, actor_id=actor_id
            )

    @asynccontextmanager
    async def follow(self, *, after_id: int) -> AsyncIterator[EventFollower]:
        """Everything after `after_id`, then what comes."""
        follower = EventFollower(self._database, after_id)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    async def prune(self) -> None:
        """Keep the newest KEPT_EVENTS."""
        async with self._database.write() as session:
            await EventRepository(session).prune(keep=KEPT_EVENTS)
