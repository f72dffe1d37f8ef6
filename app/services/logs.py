"""Logs as the faces read them: history from the store, live lines from the hub."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager

from app.domain.log import LogLine
from app.logs.follow import LogBatch, LogEnd, LogFollower, LogGap, LogHub
from app.logs.store import LogStore
from app.services.containers import ContainerService

PAGE_LINES = 1000


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

    async def pages(
        self, container_id: str, *, after_seq: int, to_seq: int | None = None
    ) -> AsyncGenerator[Sequence[LogLine], None]:
        """What is stored after `after_seq`, up to `to_seq` or to the end, a page at a time."""
        while to_seq is None or after_seq < to_seq:
            limit = PAGE_LINES if to_seq is None else min(PAGE_LINES, to_seq - after_seq)
            lines = await self.read(container_id, from_seq=after_seq + 1, limit=limit)
            if not lines:
                return
            yield lines
            after_seq = lines[-1].seq

    async def follow_whole(
        self, container_id: str, *, after_seq: int
    ) -> AsyncGenerator[Sequence[LogLine], None]:
        """Lines after `after_seq` until the container has ended, none left out.

        What the live queue drops for a slow reader is read from the store. The first page may be
        empty: it comes at once, for headers that go out before there is a line.
        """
        async with self.follow(container_id, after_seq=after_seq, until_end=True) as follower:
            yield ()
            while True:
                match await follower.next():
                    case LogBatch(lines=lines):
                        yield lines
                    case LogGap(from_seq=from_seq, to_seq=to_seq):
                        gap = self.pages(container_id, after_seq=from_seq - 1, to_seq=to_seq)
                        async for page in gap:
                            yield page
                    case LogEnd():
                        return

    async def console(self, container_id: str) -> bytes:
        """The boot console of the present VM, or of the last one."""
        return await self._containers.console(container_id)
