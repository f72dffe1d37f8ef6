"""Tells viewers which objects changed: latest value per object, never dropped, never queued."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Changes:
    """Objects that changed since the viewer last looked; it then reads their present state."""

    containers: set[str] = field(default_factory=set)
    vms: set[str] = field(default_factory=set)
    images: bool = False
    events: bool = False

    def __bool__(self) -> bool:
        return bool(self.containers or self.vms or self.images or self.events)

    def merge(self, other: "Changes") -> None:
        """Add what `other` names; bounded by the number of objects that exist."""
        self.containers |= other.containers
        self.vms |= other.vms
        self.images |= other.images
        self.events |= other.events


class Subscription:
    """One viewer's place in the feed."""

    def __init__(self) -> None:
        self._pending = Changes()
        self._wakeup = asyncio.Event()

    def offer(self, changes: Changes) -> None:
        """Merge into what the viewer has not seen yet."""
        self._pending.merge(changes)
        self._wakeup.set()

    async def next(self) -> Changes:
        """Wait until something has changed; all since the last call comes at once."""
        await self._wakeup.wait()
        self._wakeup.clear()
        changes, self._pending = self._pending, Changes()
        return changes


class ChangeFeed:
    """Fan-out of changes within the engine."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[Subscription]:
        """Take part; subscribe before reading the state that the changes update."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def publish(self, changes: Changes) -> None:
        """Tell every viewer; call after the change is committed."""
        for subscription in self._subscriptions:
            subscription.offer(changes)

    def container_changed(self, container_id: str, *, vm_id: str | None = None) -> None:
        """Shorthand for the most frequent change."""
        self.publish(Changes(containers={container_id}, vms={vm_id} if vm_id else set()))
