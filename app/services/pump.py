"""Brings a container's output from its guest into the log store, losing and repeating nothing.

The store commits the lines together with the offset up to which they came; only then does the
guest hear the acknowledgement (docs/channel.md, Streams). Whoever dies in between finds either
both or neither. Who is attached has a say too: what it has not taken is not acknowledged either.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from app.core.errors import SlipwayError
from app.domain.lines import NOTHING_PENDING, LineAssembler, LogCursor, NewLine
from app.domain.log import LogStream
from app.guest.records import RecordDecoder, Source
from app.guest.streams import OutputStream
from app.logs.follow import LogHub
from app.logs.store import LogStore
from app.services.attachments import OutputTap, pieces_of

LOG_WINDOW_BYTES = 1024 * 1024
RETRY_DELAY_S = 1.0

_STREAMS = {Source.STDOUT: LogStream.STDOUT, Source.STDERR: LogStream.STDERR}


class LogPump:
    """Takes one run's output; `drained` is set once its end is committed.

    While the store refuses (disk full, file corrupt) nothing is acknowledged: output waits in the
    guest, then the container's writes block; `on_fault` hears why, and None once it works again.
    Output that is not to be kept goes to who is attached, and only its offset into the store.
    """

    def __init__(
        self,
        store: LogStore,
        hub: LogHub,
        *,
        container_id: str,
        source: str,
        on_fault: Callable[[SlipwayError | None], Awaitable[None]],
        tap: OutputTap,
        is_kept: bool = True,
    ) -> None:
        self._store = store
        self._hub = hub
        self._container_id = container_id
        self._source = source
        self._on_fault = on_fault
        self._tap = tap
        self._is_kept = is_kept
        self._cursor = LogCursor(source=source)
        self._assembler = LineAssembler()
        self._decoder = RecordDecoder()
        self._attempt: tuple[Sequence[NewLine], LogCursor] | None = None
        self.drained = asyncio.Event()

    async def restore(self) -> int:
        """Read back where an earlier engine was; returns the offset to open the stream at."""
        self._cursor = await self._store.cursor(self._container_id, self._source)
        self._assembler = LineAssembler(self._cursor.pending)
        self._decoder = RecordDecoder(self._cursor.offset)
        return self._cursor.offset

    async def run(self, stream: OutputStream) -> None:
        """Pump until the stream's end is committed."""
        self._hub.begin(self._container_id)
        self._tap.begin(self._assembler.pending)
        async for chunk in stream:
            if chunk.start_offset > self._decoder.next_offset:
                # Acknowledged before, and the record of it lost with a damaged log file.
                self._decoder = RecordDecoder(chunk.start_offset)
            records = self._decoder.feed(chunk.data)
            lines = self._assembler.feed(
                (record.time_ns, _STREAMS[record.source], record.data) for record in records
            )
            if chunk.eof:
                lines = [*lines, *self._assembler.flush()]
            self._tap.offer(pieces_of(records), self._assembler.pending)
            offset = records[-1].end_offset if records else self._cursor.offset
            offset = chunk.end_offset if chunk.eof else offset
            if lines or offset > self._cursor.offset:
                await self._commit(lines, offset)
            self._tap.committed(self._store.last_seq(self._container_id))
            await self._tap.made_room()
            stream.acknowledge(offset, eof=chunk.eof)
        self._hub.end(self._container_id)
        self._tap.end()
        self.drained.set()

    async def give_up(self) -> None:
        """The guest is gone: keep what had arrived, unfinished lines as lines."""
        lines: list[NewLine] = []
        if self._attempt is not None:  # cancelled under way: only the store knows its outcome
            attempted, cursor = self._attempt
            if await self._store.cursor(self._container_id, self._source) != cursor:
                lines.extend(attempted)
            self._cursor = cursor
        lines.extend(self._assembler.flush())
        if lines:
            await self._commit(lines, self._cursor.offset)
        self._hub.end(self._container_id)
        self._tap.committed(self._store.last_seq(self._container_id))
        self._tap.end()

    async def _commit(self, lines: Sequence[NewLine], offset: int) -> None:
        pending = self._assembler.pending
        if not self._is_kept:
            lines, pending = (), NOTHING_PENDING
        cursor = LogCursor(source=self._source, offset=offset, pending=pending)
        self._attempt = lines, cursor
        fault = ""
        while True:
            try:
                stored = await self._store.append(self._container_id, lines, cursor)
            except SlipwayError as error:
                if error.message != fault:
                    fault = error.message
                    await self._on_fault(error)
                await asyncio.sleep(RETRY_DELAY_S)
                continue
            self._cursor, self._attempt = cursor, None
            self._hub.publish(self._container_id, stored)
            if fault:
                await self._on_fault(None)
            return
