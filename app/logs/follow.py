"""Live logs for viewers: history from the store joins what is published, without gap or repeat.

A viewer never holds up a container. While it reads history nothing is queued for it, for all of it
is in the store; once it has caught up, lines are queued within bounds, and what a slow viewer
misses then is one gap marker. Everything here runs in the event loop.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from app.domain.log import LogLine

BATCH_LINES = 500
BATCH_BYTES = 512 * 1024
QUEUE_LINES = 20_000
QUEUE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LogBatch:
    """One to BATCH_LINES lines in order, following what was given before."""

    lines: tuple[LogLine, ...]


@dataclass(frozen=True, slots=True)
class LogGap:
    """Lines that the viewer does not get: it was too slow, or the store no longer has them."""

    from_seq: int
    to_seq: int


@dataclass(frozen=True, slots=True)
class LogEnd:
    """A run has ended and all its lines have been given."""


LogItem = LogBatch | LogGap | LogEnd


class LogHistory(Protocol):
    """What a follower needs of the store."""

    def last_seq(self, container_id: str) -> int:
        """Number of the newest stored line, 0 before any."""
        ...

    async def read(self, container_id: str, *, from_seq: int, limit: int) -> list[LogLine]:
        """Lines numbered `from_seq` and above; fewer than `limit` is not the end, none is."""
        ...


class LogFollower:
    """One viewer of one container; made by LogHub.follow. One task at a time calls `next`."""

    def __init__(
        self, history: LogHistory, container_id: str, *, after_seq: int, until_end: bool
    ) -> None:
        self._history = history
        self._container_id = container_id
        self._until_end = until_end
        self._next_seq = after_seq + 1
        self._published_seq = history.last_seq(container_id)
        self._is_live = False
        self._queue: deque[LogLine] = deque()
        self._queue_bytes = 0
        self._dropped_seq = 0  # newest line that the queue's bounds have cost
        self._end_after_seq: int | None = None
        self._is_ended = False
        self._wake = asyncio.Event()

    async def next(self) -> LogItem:
        """Wait for what comes next.

        Cancelling it loses nothing. After LogEnd the next call waits for the container's next run;
        with `until_end` it is LogEnd for good.

        Raises:
            SlipwayError: The store can't be read; the call may be repeated.
        """
        while True:
            if self._is_ended:
                return LogEnd()
            if self._end_after_seq is not None and self._next_seq > self._end_after_seq:
                self._end_after_seq = None
                self._is_ended = self._until_end
                return LogEnd()
            item = self._from_queue() if self._is_live else await self._from_history()
            if item is not None:
                return item
            if self._is_live and not self._queue and self._end_after_seq is None:
                self._wake.clear()
                await self._wake.wait()

    def offer(self, lines: Sequence[LogLine]) -> None:
        """Take lines that have been committed."""
        self._published_seq = max(self._published_seq, lines[-1].seq)
        if not self._is_live:
            return
        for line in lines:
            if line.seq >= self._next_seq:
                self._queue.append(line)
                self._queue_bytes += len(line.data)
        while len(self._queue) > QUEUE_LINES or self._queue_bytes > QUEUE_BYTES:
            dropped = self._queue.popleft()
            self._queue_bytes -= len(dropped.data)
            self._dropped_seq = dropped.seq
        self._wake.set()

    def end(self) -> None:
        """Note that a run's lines are all committed."""
        self._published_seq = max(self._published_seq, self._history.last_seq(self._container_id))
        self._end_after_seq = self._published_seq
        self._wake.set()

    def _from_queue(self) -> LogItem | None:
        """What is queued; None if nothing, or if the queue does not go on where the viewer is."""
        if not self._queue:
            # A line that was committed but never published (its publisher was cancelled).
            self._is_live = self._published_seq < self._next_seq
            return None
        first_seq = self._queue[0].seq
        if first_seq > self._next_seq:
            if self._dropped_seq + 1 == first_seq:
                return self._gap_before(first_seq)
            self._queue.clear()
            self._queue_bytes = 0
            self._is_live = False
            return None
        batch: list[LogLine] = []
        size_bytes = 0
        while self._queue and len(batch) < BATCH_LINES and size_bytes < BATCH_BYTES:
            line = self._queue[0]
            if line.seq > self._next_seq or self._is_past_end(line):
                break
            self._queue.popleft()
            self._queue_bytes -= len(line.data)
            size_bytes += len(line.data)
            batch.append(line)
            self._next_seq = line.seq + 1
        return LogBatch(tuple(batch))

    async def _from_history(self) -> LogItem | None:
        """The next lines of the store; None, and live from now on, if there are none left."""
        if self._next_seq > self._published_seq:
            self._is_live = True
            return None
        lines = await self._history.read(
            self._container_id, from_seq=self._next_seq, limit=BATCH_LINES
        )
        if not lines:  # what was published has been erased or pruned meanwhile
            return self._gap_before(self._published_seq + 1)
        if lines[0].seq > self._next_seq:
            return self._gap_before(lines[0].seq)
        batch: list[LogLine] = []
        size_bytes = 0
        for line in lines:
            if size_bytes >= BATCH_BYTES or line.seq != self._next_seq or self._is_past_end(line):
                break
            size_bytes += len(line.data)
            batch.append(line)
            self._next_seq = line.seq + 1
        return LogBatch(tuple(batch))

    def _gap_before(self, seq: int) -> LogGap:
        gap = LogGap(self._next_seq, seq - 1)
        self._next_seq = seq
        return gap

    def _is_past_end(self, line: LogLine) -> bool:
        return self._end_after_seq is not None and line.seq > self._end_after_seq


class LogHub:
    """Hands committed lines to the followers of their container.

    The pump of a run calls `begin`, then `publish` after each commit, then `end`.
    """

    def __init__(self, history: LogHistory) -> None:
        self._history = history
        self._followers: dict[str, set[LogFollower]] = {}
        self._running: set[str] = set()

    def begin(self, container_id: str) -> None:
        """A run's output begins, or an adopted run's goes on."""
        self._running.add(container_id)

    def publish(self, container_id: str, lines: Sequence[LogLine]) -> None:
        """Hand on lines in their order, as the store numbered them; never waits."""
        if lines:
            for follower in self._followers.get(container_id, ()):
                follower.offer(lines)

    def end(self, container_id: str) -> None:
        """A run's output is complete and committed; safe to repeat."""
        self._running.discard(container_id)
        for follower in self._followers.get(container_id, ()):
            follower.end()

    @asynccontextmanager
    async def follow(
        self, container_id: str, *, after_seq: int, until_end: bool = False
    ) -> AsyncIterator[LogFollower]:
        """A follower that begins after a line's number: 0 for all the store has.

        A number beyond the newest line (the log was erased meanwhile) means the newest line. With
        `until_end` it ends with the run that is on; at once after the history if none is.
        """
        after_seq = min(max(after_seq, 0), self._history.last_seq(container_id))
        follower = LogFollower(
            self._history, container_id, after_seq=after_seq, until_end=until_end
        )
        if until_end and container_id not in self._running:
            follower.end()
        followers = self._followers.setdefault(container_id, set())
        followers.add(follower)
        try:
            yield follower
        finally:
            followers.discard(follower)
            if not followers and self._followers.get(container_id) is followers:
                del self._followers[container_id]
