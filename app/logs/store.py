"""The log store as the engine uses it: from the event loop, with all file work in threads."""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from app.core.errors import Unavailable
from app.domain.lines import LogCursor, NewLine
from app.domain.log import LogLine
from app.logs.catalogue import Catalogue, Span
from app.logs.dayreader import Page, read_page
from app.logs.faults import is_corrupt, log_fault
from app.logs.files import DayFiles
from app.logs.schema import day_path
from app.logs.search import SearchHit, search_day
from app.logs.writer import LogWriter

T = TypeVar("T")
READ_BUDGET_BYTES = 4 * 1024 * 1024
READERS = 2


def utc_today() -> date:
    """The date that names the file of lines stored now."""
    return datetime.now(UTC).date()


class LogStore:
    """Lines of all containers, numbered from 1 per container over all its runs.

    Args:
        root: Directory of the day files; made if missing.
        today: The UTC date; tests move it.
        on_fault: Told, in the loop, of faults that no caller waits for: a damaged file that was
            set aside, a tail that can't be sealed.
    """

    def __init__(
        self,
        root: Path,
        *,
        today: Callable[[], date] = utc_today,
        on_fault: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._root = root
        self._today = today
        self._on_fault = on_fault
        self._catalogue = Catalogue()
        self._writer: LogWriter | None = None
        self._readers: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Read what the files hold and begin to write.

        Damaged files are renamed to `<day>.db.corrupt` and reported.

        Raises:
            Unavailable: The directory or a file can't be used; nothing is left open.
            Unsupported: A newer release wrote a file.
        """
        loop = asyncio.get_running_loop()
        files = DayFiles(self._root, self._catalogue)
        writer = LogWriter(
            files,
            self._catalogue,
            today=self._today,
            on_fault=lambda text: _call_in_loop(loop, self._on_fault, text),
        )
        writer.start()
        try:
            await asyncio.wrap_future(writer.submit(writer.scan))
        except BaseException:
            await asyncio.shield(asyncio.to_thread(writer.stop))
            raise
        self._writer = writer
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="log-reader")

    async def close(self) -> None:
        """Finish what was asked for and close the files; safe in any state."""
        writer, self._writer = self._writer, None
        readers, self._readers = self._readers, None
        if writer is not None:
            await asyncio.to_thread(writer.stop)
        if readers is not None:
            await asyncio.to_thread(readers.shutdown)

    async def append(
        self, container_id: str, lines: Sequence[NewLine], cursor: LogCursor
    ) -> tuple[LogLine, ...]:
        """Store lines and how far their source has come, together; return them numbered.

        On return both are on the disk: `cursor.offset` may be acknowledged to the guest. Once
        called, the lines are written even if the wait is cancelled; whether that succeeded says
        `cursor`. Lines may be empty.

        Raises:
            ResourceExhausted: The disk is full.
            Unavailable: The file is locked or can't be used, or the store is closed.
            Conflict: The store holds more of this source than the cursor says.
            For all of them nothing was stored; but for Conflict the same call may be repeated.
        """
        written = self._require_writer().append(container_id, lines, cursor)
        return await asyncio.shield(asyncio.wrap_future(written))

    async def cursor(self, container_id: str, source: str) -> LogCursor:
        """How far a source has come, after all appends before this call; offset 0 if unknown.

        Raises:
            CorruptData: What is pending of it can't be read.
        """
        writer = self._require_writer()
        return await self._in_writer(lambda: writer.find_cursor(container_id, source))

    def last_seq(self, container_id: str) -> int:
        """Number of the newest line, 0 before any."""
        return self._catalogue.state(container_id).last_seq

    async def read(self, container_id: str, *, from_seq: int, limit: int) -> list[LogLine]:
        """Lines numbered `from_seq` and above, in order.

        At most `limit` and about READ_BUDGET_BYTES: fewer than `limit` is not the end, none is.
        Numbers whose lines are gone (retention, damage) are left out.

        Raises:
            Unavailable: A file can't be used.
        """
        pages: list[Page] = []
        if limit <= 0:
            return []
        for span in self._catalogue.spans(container_id):
            if span.last_seq < from_seq:
                continue
            found = sum(len(page.lines) for page in pages)
            if found >= limit and span.first_seq > max(page.lines[-1].seq for page in pages):
                break
            page = await self._read_span(container_id, span, from_seq, limit)
            if page.lines:
                pages.append(page)
        lines = sorted((line for page in pages for line in page.lines), key=lambda line: line.seq)
        # Beyond the end of a page that was cut, other files alone would leave lines out.
        ends = [page.lines[-1].seq for page in pages if page.is_cut]
        if ends:
            lines = [line for line in lines if line.seq <= min(ends)]
        return lines[:limit]

    async def tail(self, container_id: str, *, limit: int) -> list[LogLine]:
        """The newest `limit` lines in order, about READ_BUDGET_BYTES of them.

        Raises:
            Unavailable: A file can't be used.
        """
        lines: deque[LogLine] = deque(maxlen=max(limit, 0))
        size_bytes = 0
        next_seq = max(self.last_seq(container_id) - limit + 1, 1)
        while limit > 0:
            page = await self.read(container_id, from_seq=next_seq, limit=limit)
            if not page:
                break
            for line in page:
                if len(lines) == lines.maxlen:
                    size_bytes -= len(lines[0].data)
                lines.append(line)
                size_bytes += len(line.data)
                while size_bytes > READ_BUDGET_BYTES and len(lines) > 1:
                    size_bytes -= len(lines.popleft().data)
            next_seq = page[-1].seq + 1
        return list(lines)

    async def search(
        self,
        words: Sequence[str],
        *,
        container_ids: Collection[str] | None = None,
        limit: int = 100,
    ) -> list[SearchHit]:
        """Lines that hold every word, whatever its case; newest day first, newest line first in it.

        A word is letters and digits; anything else in `words` separates. No words find nothing.

        Raises:
            Unavailable: A file can't be used.
        """
        hits: list[SearchHit] = []
        days = await asyncio.to_thread(DayFiles(self._root, self._catalogue).days)
        for day in reversed(days):
            if len(hits) >= limit:
                break
            search = partial(
                search_day,
                words=words,
                container_ids=container_ids,
                limit=limit - len(hits),
            )
            found = await self._in_reader(day, search)
            hits.extend(found or ())
        return hits

    async def erase(self, container_id: str) -> None:
        """Delete all of a container's log, cursors and numbers too; its run must have ended.

        Raises:
            ResourceExhausted, Unavailable: Some of it may still be there; the call may be repeated.
        """
        writer = self._require_writer()
        while await self._in_writer(lambda: writer.erase_slice(container_id)):
            pass

    async def prune(self, keep_days: int, *, containers: Collection[str]) -> int:
        """Delete the files of all but today and the `keep_days` days before; returns how many.

        `containers` are the ids that still exist: their numbers and cursors are kept.

        Raises:
            ResourceExhausted, Unavailable: Some files may still be there.
        """
        writer = self._require_writer()
        before = self._today() - timedelta(days=keep_days)
        existing = frozenset(containers)
        return await self._in_writer(lambda: writer.prune(before, existing))

    async def _read_span(self, container_id: str, span: Span, from_seq: int, limit: int) -> Page:
        page = await self._in_reader(
            span.day,
            lambda path: read_page(
                path,
                container_id,
                from_seq=from_seq,
                limit=limit,
                budget_bytes=READ_BUDGET_BYTES,
            ),
        )
        return page or Page([], is_cut=False)

    async def _in_reader(self, day: date, run: Callable[[Path], T]) -> T | None:
        """Read a day's file; None if it is gone or damaged, in which case it is set aside."""
        path = day_path(self._root, day)
        if self._readers is None:
            raise Unavailable("The log store is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, run, path)
        except sqlite3.Error as error:
            fault = log_fault(error, path)
            if is_corrupt(error):
                writer = self._require_writer()
                await self._in_writer(lambda: writer.set_aside(day, fault.message))
                return None
            if not await asyncio.to_thread(path.exists):
                return None
            raise fault from error

    async def _in_writer(self, run: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._require_writer().submit(run))

    def _require_writer(self) -> LogWriter:
        if self._writer is None:
            raise Unavailable("The log store is closed")
        return self._writer


def _call_in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[str], None], text: str) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, text)
