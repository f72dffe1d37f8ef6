"""Logs as the faces read them: history from the store, live lines from the hub."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from app.domain.log import LogLine
from app.logs.follow import LogFollower, LogHub
from app.logs.store import LogStore
from app.services.containers import ContainerService


class LogService:
    """Reads; writing is the supervisor's."""

    def __init__(self, store: LogStore, hub: LogHub, containers: ContainerService) -> None:
        self._store = store
        self._hub = hub
        self._containers = containers

    async def tail(self, container_id: str, *, limit: int) -> Sequence[LogLine]:
        """The newest lines, oldest of them first."""
        return await self._store.tail(container_id, limit=limit)

    async def read(self, container_id: str, *, from_seq: int, limit: int) -> Sequence[LogLine]:
        """Lines from a number on, in order."""
        return await self._store.read(container_id, from_seq=from_seq, limit=limit)

    async def last_seq(self, container_id: str) -> int:
        """Number of the newest line; 0 if there is none."""
        return self._store.last_seq(container_id)

    def follow(
        self, container_id: str, *, after_seq: int, until_end: bool = False
    ) -> AbstractAsyncContextManager[LogFollower]:
        """History after `after_seq`, then what comes, without a gap or repeat (see LogHub)."""
        return self._hub.follow(container_id, after_seq=after_seq, until_end=until_end)

    async def console(self, container_id: str) -> bytes:
        """The boot console of the present VM, or of the last one."""
        return await self._containers.console(container_id)
