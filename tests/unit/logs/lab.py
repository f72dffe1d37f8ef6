"""A log directory to try things on, and lines to put in it."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from app.domain.lines import LogCursor, NewLine
from app.domain.log import LogLine, LogStream
from app.logs.store import LogStore

OUT, ERR = LogStream.STDOUT, LogStream.STDERR
FIRST_DAY = date(2026, 11, 24)


@dataclass
class Lab:
    """A log directory whose date the test moves, with one store open on it."""

    root: Path
    today: date = FIRST_DAY
    faults: list[str] = field(default_factory=list)
    store: LogStore = field(init=False)

    async def open(self) -> LogStore:
        self.store = LogStore(self.root, today=lambda: self.today, on_fault=self.faults.append)
        await self.store.open()
        return self.store

    async def reopen(self) -> LogStore:
        await self.store.close()
        return await self.open()

    def next_day(self, days: int = 1) -> None:
        self.today += timedelta(days=days)

    def path(self, day: date | None = None) -> Path:
        return self.root / f"{(day or self.today).isoformat()}.db"


def made(count: int, *, begin: int = 1) -> list[NewLine]:
    return [NewLine(number, OUT, b"line %d" % number) for number in range(begin, begin + count)]


async def add(store: LogStore, count: int, container_id: str = "one") -> tuple[LogLine, ...]:
    """Append lines that say their number, with an offset that counts them."""
    begin = store.last_seq(container_id) + 1
    cursor = LogCursor("vm", begin + count - 1)
    return await store.append(container_id, made(count, begin=begin), cursor)


async def read_all(store: LogStore, container_id: str = "one") -> list[LogLine]:
    lines: list[LogLine] = []
    while page := await store.read(
        container_id, from_seq=lines[-1].seq + 1 if lines else 1, limit=100
    ):
        lines.extend(page)
    return lines


def numbers(lines: Sequence[LogLine]) -> list[int]:
    return [line.seq for line in lines]


def rows(lab: Lab, sql: str, path: Path | None = None) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path or lab.path())
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


async def until(is_done: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_done():  # noqa: ASYNC110 - what it waits for happens in a thread and a file
            await asyncio.sleep(0.01)
