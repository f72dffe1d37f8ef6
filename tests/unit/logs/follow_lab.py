"""A history to follow that loses lines and fails when told to, and a look at a follower."""

import asyncio
import contextlib
from dataclasses import dataclass, field

from app.core.errors import Unavailable
from app.domain.log import LogLine, LogStream
from app.logs.follow import LogFollower, LogItem


def line(seq: int, size_bytes: int = 1) -> LogLine:
    return LogLine(seq, seq, LogStream.STDOUT, b"x" * size_bytes)


@dataclass
class History:
    """A store in memory that can lose lines and fail."""

    lines: list[LogLine] = field(default_factory=list)
    fault: Unavailable | None = None
    newest: int = 0
    gate: asyncio.Event | None = None

    def last_seq(self, container_id: str) -> int:
        return self.newest

    async def read(self, container_id: str, *, from_seq: int, limit: int) -> list[LogLine]:
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        return [found for found in self.lines if found.seq >= from_seq][:limit]

    def store(self, count: int, size_bytes: int = 1) -> list[LogLine]:
        new = [line(self.newest + number, size_bytes) for number in range(1, count + 1)]
        self.lines.extend(new)
        self.newest += count
        return new


async def poll(follower: LogFollower) -> LogItem | None:
    """What is there for the follower; None if it waits, with nothing else left to run."""
    task = asyncio.ensure_future(follower.next())
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        return await task
    return None
