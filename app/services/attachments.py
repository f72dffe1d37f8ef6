"""Lossless readers of output: a container's, or an exec's.

Unlike viewers of logs, whoever is attached holds the writer back: what has not been taken is not
acknowledged to the guest, so the process's writes wait. Bytes come as they were written, unfinished
lines too, in the order in which the agent read them.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from app.core.units import KIB
from app.domain.lines import NOTHING_PENDING, Pending
from app.domain.log import LogStream
from app.guest.records import OutputRecord, Source
from app.guest.streams import InputStream

BUFFER_BYTES = 256 * KIB
DELIVERY_TIMEOUT_S = 5.0

_STREAMS = {Source.STDOUT: LogStream.STDOUT, Source.STDERR: LogStream.STDERR}


@dataclass(frozen=True, slots=True)
class OutputPiece:
    """What one read of the agent gave."""

    stream: LogStream
    data: bytes


def pieces_of(records: Iterable[OutputRecord]) -> list[OutputPiece]:
    """Records without their times and places."""
    return [OutputPiece(_STREAMS[record.source], record.data) for record in records]


class Attachment:
    """One reader: an async iterator of pieces that ends with the run.

    Attributes:
        finished: Set once the reader has all, or has gone.
    """

    def __init__(self) -> None:
        self.finished = asyncio.Event()
        self._queue: deque[OutputPiece] = deque()
        self._queued_bytes = 0
        self._has_ended = False
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OutputPiece:
        """The next piece; asking for it says that the one before is delivered."""
        while not self._queue:
            self._taken.set()
            if self._has_ended:
                self.finished.set()
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        piece = self._queue.popleft()
        self._queued_bytes -= len(piece.data)
        self._taken.set()
        return piece

    def offer(self, pieces: Iterable[OutputPiece]) -> None:
        """Queue output; call `made_room` before the next."""
        if self._has_ended:
            return
        for piece in pieces:
            self._queue.append(piece)
            self._queued_bytes += len(piece.data)
        self._arrived.set()

    def end(self) -> None:
        """Nothing follows what is queued."""
        self._has_ended = True
        self._arrived.set()

    def close(self) -> None:
        """The reader has gone: nobody waits for it any more. Idempotent."""
        self._has_ended = True
        self._queue.clear()
        self._queued_bytes = 0
        self._arrived.set()
        self._taken.set()
        self.finished.set()

    async def made_room(self, writer_ended: "asyncio.Future[Any]") -> None:
        """Wait, without a deadline, until the reader has taken enough.

        Once the writer has ended nobody is held back any more, else a client that does not read
        would keep a VM: what its guest still holds is then queued here.
        """
        while self._queued_bytes > BUFFER_BYTES and not writer_ended.done():
            self._taken.clear()
            await _first(self._taken, writer_ended)


async def _first(event: asyncio.Event, future: "asyncio.Future[Any]") -> None:
    waiter = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiter, future}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()


@dataclass(frozen=True)
class Junction:
    """Where history and live output meet for one attachment.

    Attributes:
        last_seq: The last line that the attachment does not get; it may not be stored yet.
        pending: Beginnings of lines after it.
    """

    last_seq: "asyncio.Future[int]"
    pending: Pending

    @classmethod
    def at(cls, last_seq: int, pending: Pending = NOTHING_PENDING) -> Self:
        """One whose lines are all stored."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.set_result(last_seq)
        return cls(future, pending)


class OutputTap:
    """One run's output on its way to whoever is attached to the container; the log pump's end."""

    def __init__(
        self,
        hub: "AttachHub",
        container_id: str,
        *,
        last_seq: int,
        writer_ended: "asyncio.Future[Any]",
    ) -> None:
        self._hub = hub
        self._container_id = container_id
        self._writer_ended = writer_ended
        self._last_seq = last_seq
        self._in_flight: asyncio.Future[int] | None = None
        self._pending: Pending = NOTHING_PENDING

    def begin(self, pending: Pending) -> None:
        """Output begins, or goes on after an earlier engine's `pending`."""
        self._pending = pending
        self._hub.taps[self._container_id] = self

    def offer(self, pieces: Iterable[OutputPiece], pending: Pending) -> None:
        """Hand on output; `committed` follows once its lines are stored, then `made_room`."""
        self._pending = pending
        self._in_flight = asyncio.get_running_loop().create_future()
        for attachment in self._hub.attached(self._container_id):
            attachment.offer(pieces)

    def committed(self, last_seq: int) -> None:
        """All lines of what was offered are stored, up to this number."""
        self._last_seq = last_seq
        if self._in_flight is not None:
            self._in_flight.set_result(last_seq)
            self._in_flight = None

    async def made_room(self) -> None:
        """Wait for every reader; until then nothing may be acknowledged."""
        for attachment in list(self._hub.attached(self._container_id)):
            await attachment.made_room(self._writer_ended)

    def end(self) -> None:
        """The run's output is complete."""
        self._hub.end(self._container_id)

    def junction(self) -> Junction:
        """Where an attachment made at this moment begins."""
        if self._in_flight is not None:
            return Junction(self._in_flight, self._pending)
        return Junction.at(self._last_seq, self._pending)


class AttachHub:
    """Attachments by container. They may come before a start, and end with the next run's end.

    Attributes:
        taps: Of the runs that are on.
    """

    def __init__(self) -> None:
        self.taps: dict[str, OutputTap] = {}
        self._attached: dict[str, set[Attachment]] = {}
        self._ending: dict[str, set[Attachment]] = {}
        self._inputs: dict[str, InputStream] = {}
        self._input_opened = asyncio.Event()

    @contextmanager
    def attach(self, container_id: str) -> Iterator[Attachment]:
        """Take part from this moment on; leaving lets the container go on without."""
        attachment = Attachment()
        self._attached.setdefault(container_id, set()).add(attachment)
        try:
            yield attachment
        finally:
            attachment.close()
            for table in (self._attached, self._ending):
                _discard(table, container_id, attachment)

    def attached(self, container_id: str) -> Iterable[Attachment]:
        """Who gets the run's output."""
        return self._attached.get(container_id, ())

    def end(self, container_id: str) -> None:
        """The run is over, or its start has failed; idempotent."""
        self.taps.pop(container_id, None)
        self._inputs.pop(container_id, None)
        ended = self._attached.pop(container_id, set())
        for attachment in ended:
            attachment.end()
        if ended:
            self._ending.setdefault(container_id, set()).update(ended)

    async def delivered(self, container_id: str) -> None:
        """Wait until those who were attached to the last run have all of it, within a deadline."""
        try:
            async with asyncio.timeout(DELIVERY_TIMEOUT_S):
                for attachment in list(self._ending.get(container_id, ())):
                    await attachment.finished.wait()
        except TimeoutError:
            return  # a client that does not read must not keep others waiting

    def open_input(self, container_id: str, stream: InputStream) -> None:
        """A run takes input."""
        self._inputs[container_id] = stream
        self._input_opened.set()
        self._input_opened = asyncio.Event()

    async def input_of(self, container_id: str) -> InputStream:
        """The input of the present run, or of the next; waits for it without a deadline."""
        while (stream := self._inputs.get(container_id)) is None:
            await self._input_opened.wait()
        return stream


def _discard(table: dict[str, set[Attachment]], key: str, attachment: Attachment) -> None:
    attachments = table.get(key)
    if attachments is not None:
        attachments.discard(attachment)
        if not attachments:
            del table[key]
