"""The record of containers: each change in one transaction with its event, then announced.

A change is a pure rule applied to the row as it is at that moment (BEGIN IMMEDIATE), so two callers
can't both claim a start, and no lock is held across a boot.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from app.db.database import Database
from app.db.repositories.containers import ContainerRepository
from app.db.repositories.events import EventRepository
from app.domain.container import Container, ContainerState
from app.domain.event import Event, EventType
from app.domain.health import Health
from app.services.events import EventService
from app.services.exits import ExitBoard
from app.services.feed import ChangeFeed
from app.storage.ballast import Ballast

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
            subject={**container.config.labels, "image": container.config.image},
        )


@dataclass(frozen=True)
class Condition:
    """What is wrong with a running container at the moment.

    Kept in memory, since it is gone with the engine and must be shown even while the disk is too
    full to record anything.

    Attributes:
        held: Why the hypervisor holds the VM.
        log_fault: Why its output can't be stored.
    """

    unresponsive_since_ns: int | None = None
    backpressure_since_ns: int | None = None
    held: str = ""
    log_fault: str = ""

    def laid_over(self, container: Container) -> Container:
        """The record with what is wrong now."""
        return replace(
            container,
            unresponsive_since_ns=self.unresponsive_since_ns,
            backpressure_since_ns=self.backpressure_since_ns,
            error=self.held or self.log_fault or container.error,
        )


ALL_WELL = Condition()


class ContainerRegistry:
    """Reads and changes container records; gives them with their present condition."""

    def __init__(
        self, database: Database, events: EventService, feed: ChangeFeed, ballast: Ballast
    ) -> None:
        self._database = database
        self._ballast = ballast
        self._events = events
        self._feed = feed
        self._conditions: dict[str, Condition] = {}
        self._health: dict[str, Health] = {}
        self.exits = ExitBoard()

    def set_health(self, container_id: str, health: Health) -> None:
        """Remember what a container's check found, for as long as engine and container last."""
        self._health[container_id] = health
        self._feed.container_changed(container_id)

    def health(self, container_id: str) -> Health | None:
        """What its check found last."""
        return self._health.get(container_id)

    def set_condition(self, container_id: str, change: Callable[[Condition], Condition]) -> None:
        """Change a container's Condition and tell viewers; ALL_WELL is forgotten."""
        condition = change(self._conditions.get(container_id, ALL_WELL))
        self._conditions[container_id] = condition
        if condition == ALL_WELL:
            del self._conditions[container_id]
        self._feed.container_changed(container_id)

    def clear_condition(self, container_id: str) -> None:
        """Its run is over."""
        self._conditions.pop(container_id, None)

    def vm_gone(self, container_id: str, vm_id: str) -> None:
        """Tell viewers; the record does not change by that."""
        self._feed.container_changed(container_id, vm_id=vm_id)

    def _shown(self, container: Container) -> Container:
        shown = self._conditions.get(container.id, ALL_WELL).laid_over(container)
        health = self._health.get(container.id)
        return replace(shown, health=health) if health is not None else shown

    async def list(
        self, *, states: Collection[ContainerState] | None = None
    ) -> Sequence[Container]:
        """All, or those in these states; newest first."""
        async with self._database.read() as session:
            containers = await ContainerRepository(session).list(states=states)
        return [self._shown(container) for container in containers]

    async def find(self, reference: str) -> Container:
        """By full id, unique prefix or name.

        Raises:
            NotFound: No container is called that.
            InvalidArgument: The prefix fits several.
        """
        async with self._database.read() as session:
            container = await ContainerRepository(session).find(reference.removeprefix("/"))
        return self._shown(container)

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

        When the rule raises, nothing is changed and the error passes through. On a full disk the
        ballast is given up, since most changes are steps of freeing something.

        Raises:
            NotFound: The container is gone.
        """

        async def write() -> tuple[Container, Container]:
            async with self._database.write() as session:
                repository = ContainerRepository(session)
                before = await repository.get(container_id)
                after = rule(before)
                await repository.save(after, before=before)
                if happening is not None:
                    await EventRepository(session).append(happening.event(after))
            return before, after

        before, after = await self._ballast.try_twice(write)
        self.exits.changed(before, after)
        self._announce(after, vm_id=after.vm_id or before.vm_id, journal=happening is not None)
        return self._shown(after)

    async def note(self, container: Container, happening: Happening) -> None:
        """Write into the journal what changes no record."""
        await self._events.record(happening.event(container))

    async def delete(self, container: Container, happening: Happening) -> None:
        """Remove the record; the journal keeps the event."""

        async def write() -> None:
            async with self._database.write() as session:
                await ContainerRepository(session).delete(container.id)
                await EventRepository(session).append(happening.event(container))

        await self._ballast.try_twice(write)
        self._health.pop(container.id, None)
        self.exits.removed(container)
        self._announce(container)

    def _announce(
        self, container: Container, *, vm_id: str | None = None, journal: bool = True
    ) -> None:
        self._feed.container_changed(container.id, vm_id=vm_id)
        if journal:
            self._events.announce()
