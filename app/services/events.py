"""The journal: what happened, written with the change it tells of and followed live."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from app.db.database import Database
from app.db.repositories.events import EventRepository
from app.domain.event import Event, EventType
from app.services.feed import ChangeFeed, Changes

KEPT_EVENTS = 100_000
FOLLOW_BATCH = 200
QUEUED_MOMENTS = 1_000
KEPT_MOMENTS = 256  # as many as Docker keeps of all its events


class EventFollower:
    """Reads the journal onwards; every event comes, since the database is the queue.

    Moments, where they are wanted, are queued within a bound: the oldest go first.

    Attributes:
        past_moments: Those that were kept when it began.
    """

    def __init__(self, database: Database, after_id: int, *, moments: bool = False) -> None:
        self._database = database
        self._last_id = after_id
        self._buffer: deque[Event] = deque()
        self.past_moments: tuple[Event, ...] = ()
        self._wants_moments = moments
        self._moments: deque[Event] = deque(maxlen=QUEUED_MOMENTS)
        self._wakeup = asyncio.Event()

    def wake(self) -> None:
        """Say that the journal has grown."""
        self._wakeup.set()

    def offer(self, moment: Event) -> None:
        """Tell of what the journal does not keep."""
        if self._wants_moments:
            self._moments.append(moment)
            self._wakeup.set()

    async def next(self) -> Event:
        """The next event, waiting for it."""
        while True:
            if not self._buffer:
                self._wakeup.clear()
                async with self._database.read() as session:
                    found = await EventRepository(session).after(self._last_id, limit=FOLLOW_BATCH)
                self._buffer.extend(found)
            if self._moments and (
                not self._buffer or self._moments[0].time_ns < self._buffer[0].time_ns
            ):
                return self._moments.popleft()
            if self._buffer:
                event = self._buffer.popleft()
                self._last_id = event.id
                return event
            await self._wakeup.wait()


class EventService:
    """The journal as the faces see it."""

    def __init__(self, database: Database, feed: ChangeFeed) -> None:
        self._database = database
        self._feed = feed
        self._followers: set[EventFollower] = set()
        self._moments: deque[Event] = deque(maxlen=KEPT_MOMENTS)

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

    def tell(self, moment: Event) -> None:
        """Tell who follows of something too frequent for the journal: an exec, an attachment."""
        self._moments.append(moment)
        for follower in self._followers:
            follower.offer(moment)

    def announce(self) -> None:
        """Wake followers; call after the transaction that wrote events is committed."""
        self._feed.publish(Changes(events=True))
        for follower in self._followers:
            follower.wake()

    async def last_id(self) -> int:
        """Number of the newest event in the journal."""
        async with self._database.read() as session:
            return await EventRepository(session).last_id()

    async def history(
        self, since_ns: int, *, up_to_id: int, moments: Iterable[Event] = ()
    ) -> AsyncIterator[Event]:
        """What happened from a time on, up to an event of the journal, and these moments."""
        moments = deque(moment for moment in moments if moment.time_ns >= since_ns)
        last_id = 0
        while True:
            async with self._database.read() as session:
                found = await EventRepository(session).since(
                    since_ns, after_id=last_id, up_to_id=up_to_id, limit=FOLLOW_BATCH
                )
            for event in found:
                while moments and moments[0].time_ns < event.time_ns:
                    yield moments.popleft()
                yield event
            if len(found) < FOLLOW_BATCH:
                break
            last_id = found[-1].id
        for moment in moments:
            yield moment

    async def list(
        self, *, limit: int = 100, before_id: int | None = None, actor_id: str | None = None
    ) -> Sequence[Event]:
        """Newest first."""
        async with self._database.read() as session:
            return await EventRepository(session).list(
                limit=limit, before_id=before_id, actor_id=actor_id
            )

    @asynccontextmanager
    async def follow(self, *, after_id: int, moments: bool = False) -> AsyncIterator[EventFollower]:
        """Everything after `after_id`, then what comes; with `moments` those that come too."""
        follower = EventFollower(self._database, after_id, moments=moments)
        follower.past_moments = tuple(self._moments)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    async def prune(self) -> None:
        """Keep the newest KEPT_EVENTS."""
        async with self._database.write() as session:
            await EventRepository(session).prune(keep=KEPT_EVENTS)
