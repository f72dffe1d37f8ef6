"""The record of containers: each change in one transaction with its event, then announced.

A change is a pure rule applied to the row as it is at that moment (BEGIN IMMEDIATE), so two callers
can't both claim a start, and no lock is held across a boot.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from app.db.database import Database
from app.db.repositories.containers import ContainerRepository
from app.db.repositories.events import EventRepository
from app.domain.container import Container
from app.domain.event import Event, EventType
from app.services.events import EventService
from app.services.feed import ChangeFeed

Rule = Callable[[Container], Container]


@dataclass(frozen=True)
class Happening:
    """What to write into the journal with a change."""

    action: str
    initiator: str = "engine"
    attributes: dict[str, str] = field(default_factory=dict)

    def event(self, container: Container) -> Event:
        """The journal's entry about `container`."""
        return Event(
            type=EventType.CONTAINER,
            action=self.action,
            actor_id=container.id,
            actor_name=container.name,
            time_ns=time.time_ns(),
            initiator=self.initiator,
            attributes=self.attributes,
        )


class ContainerRegistry:
    """Reads and changes container records."""

    def __init__(self, database: Database, events: EventService, feed: ChangeFeed) -> None:
        self._database = database
        self._events = events
        self._feed = feed

    async def list(self) -> Sequence[Container]:
        """All, newest first."""
        async with self._database.read() as session:
            return await ContainerRepository(session).list()

    async def find(self, reference: str) -> Container:
        """By full id, unique prefix or name.

        Raises:
            NotFound: No container is called that.
            InvalidArgument: The prefix fits several.
        """
        async with self._database.read() as session:
            return await ContainerRepository(session).find(reference.removeprefix("/"))

    async def add(self, container: Container, happening: Happening) -> None:
        """Record a new container.

        Raises:
            Conflict: The name is taken.
        """
        async with self._database.write() as session:
            await ContainerRepository(session).add(container)
            await EventRepository(session).append(happening.event(container))
        self._announce(container)

    async def update(
        self, container_id: str, rule: Rule, happening: Happening | None = None
    ) -> Container:
        """Apply `rule` to the present record and store what it gives.

        When the rule raises, nothing is changed and the error passes through.

        Raises:
            NotFound: The container is gone.
        """
        async with self._database.write() as session:
            repository = ContainerRepository(session)
            before = await repository.get(container_id)
            after = rule(before)
            await repository.save(after)
            if happening is not None:
                await EventRepository(session).append(happening.event(after))
        self._announce(after, vm_id=after.vm_id or before.vm_id, journal=happening is not None)
        return after

    async def delete(self, container: Container, happening: Happening) -> None:
        """Remove the record; the journal keeps the event."""
        async with self._database.write() as session:
            await ContainerRepository(session).delete(container.id)
            await EventRepository(session).append(happening.event(container))
        self._announce(container)

    def _announce(
        self, container: Container, *, vm_id: str | None = None, journal: bool = True
    ) -> None:
        self._feed.container_changed(container.id, vm_id=vm_id)
        if journal:
            self._events.announce()
