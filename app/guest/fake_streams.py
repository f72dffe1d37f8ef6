"""The agent's side of streams and events, as `FakeGuest` keeps it. State only."""

import asyncio
from collections.abc import Callable

from app.core.units import KIB
from app.guest.fields import FieldList, encode_fields
from app.guest.frames import Frame, encode_frame
from app.guest.protocol import (
    FLAG_EOF,
    MAX_PAYLOAD_BYTES,
    Direction,
    EventKind,
    FrameType,
    Tag,
)
from app.guest.streams import decode_window, encode_ack

INPUT_WINDOW_BYTES = 64 * KIB


class FakeOutput:
    """An output stream: keeps every byte until it is acknowledged.

    Args:
        capacity_bytes: Memory and spill together; the process waits beyond it.
    """

    def __init__(self, stream_id: int, capacity_bytes: int) -> None:
        self.stream_id = stream_id
        self.has_ended = False
        self.is_forgotten = False
        self.room_made = asyncio.Event()
        self._capacity_bytes = capacity_bytes
        self._kept = bytearray()
        self._base = 0
        self._sent = 0
        self._end_sent = False
        self._limit: int | None = None  # None before the host's ACK on this connection

    @property
    def end(self) -> int:
        """Offset after the newest byte."""
        return self._base + len(self._kept)

    def has_room(self, size_bytes: int) -> bool:
        """Whether a record of that size may be added."""
        return len(self._kept) + size_bytes <= self._capacity_bytes

    def append(self, data: bytes) -> None:
        """Add output."""
        self._kept += data

    def begin_connection(self) -> None:
        """Send nothing before the host's ACK."""
        self._limit = None
        self._end_sent = False

    def receive_ack(self, frame: Frame) -> None:
        """Take the host's ACK; one beyond the end is ignored, nobody can have that."""
        offset = frame.offset
        window_bytes = decode_window(frame.payload)
        if offset > self.end:
            return
        if frame.flags & FLAG_EOF and self.has_ended and offset == self.end:
            self.is_forgotten = True
        if offset > self._base:
            del self._kept[: offset - self._base]
            self._base = offset
            self.room_made.set()
        if self._limit is None:
            self._sent = self._base
        self._sent = max(self._sent, self._base)
        self._limit = offset + window_bytes

    def take_frame(self) -> bytes | None:
        """Return the next DATA frame within the window, or None."""
        if self._limit is None or self.is_forgotten or self._end_sent:
            return None
        start = self._sent
        stop = max(min(self.end, self._limit, start + MAX_PAYLOAD_BYTES), start)
        self._end_sent = self.has_ended and stop == self.end
        if stop == start and not self._end_sent:
            return None
        data = bytes(self._kept[start - self._base : stop - self._base])
        self._sent = stop
        flags = FLAG_EOF if self._end_sent else 0
        return encode_frame(FrameType.DATA, data, flags=flags, stream=self.stream_id, offset=start)

    def describe(self) -> FieldList:
        """Return the STREAM group of HELLO_ACK."""
        return [
            (Tag.STREAM_ID, self.stream_id),
            (Tag.DIRECTION, Direction.OUTPUT),
            (Tag.BASE, self._base),
            (Tag.END, self.end),
            (Tag.FLAGS, FLAG_EOF if self.has_ended else 0),
        ]


class FakeInput:
    """An input stream: stdin of one process."""

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id
        self.arrived = asyncio.Event()
        self._received = 0
        self._buffer = bytearray()
        self._has_ended = False

    def receive(self, frame: Frame) -> None:
        """Take DATA: known bytes are skipped, what starts beyond the next byte is dropped."""
        if frame.offset > self._received or self._has_ended:
            return
        fresh = frame.payload[self._received - frame.offset :]
        self._buffer += fresh
        self._received += len(fresh)
        end = frame.offset + len(frame.payload)
        self._has_ended = bool(frame.flags & FLAG_EOF) and end == self._received
        self.arrived.set()

    async def read(self, size_bytes: int) -> bytes:
        """Return what is there, at most so much; empty at the end."""
        while not self._buffer and not self._has_ended:
            self.arrived.clear()
            await self.arrived.wait()
        data = bytes(self._buffer[:size_bytes])
        del self._buffer[:size_bytes]
        return data

    def ack(self, *, eof: bool = False) -> bytes:
        """Return the ACK frame; `eof` when the process takes no more."""
        window_bytes = INPUT_WINDOW_BYTES - len(self._buffer)
        return encode_ack(self.stream_id, self._received, window_bytes, eof=eof)

    @property
    def is_drained(self) -> bool:
        """Whether the process has read everything up to the host's end."""
        return self._has_ended and not self._buffer

    def describe(self) -> FieldList:
        """Return the STREAM group of HELLO_ACK."""
        return [
            (Tag.STREAM_ID, self.stream_id),
            (Tag.DIRECTION, Direction.INPUT),
            (Tag.BASE, self._received),
            (Tag.END, self._received),
            (Tag.FLAGS, FLAG_EOF if self._has_ended else 0),
        ]


class EventJournal:
    """Events kept until they are acknowledged.

    Args:
        on_acknowledged: Called with container and process of each acknowledged exit.
    """

    def __init__(self, on_acknowledged: Callable[[str, str], None]) -> None:
        self._next_number = 1
        self._entries: dict[int, tuple[EventKind, str, str, bytes]] = {}
        self._on_acknowledged = on_acknowledged

    def add(self, kind: EventKind, container_id: str, process_id: str, more: FieldList) -> bytes:
        """Add an event and return its frame; OOM and BACKPRESSURE replace the one before."""
        if kind is not EventKind.PROCESS_EXITED:
            self._entries = {
                number: entry
                for number, entry in self._entries.items()
                if entry[:2] != (kind, container_id)
            }
        number = self._next_number
        self._next_number += 1
        payload = encode_fields([(Tag.EVENT_KIND, int(kind)), (Tag.CONTAINER, container_id), *more])
        frame = encode_frame(FrameType.EVENT, payload, offset=number)
        self._entries[number] = (kind, container_id, process_id, frame)
        return frame

    def frames(self) -> list[bytes]:
        """Return the frames of all that is not acknowledged, in order."""
        return [entry[3] for entry in self._entries.values()]

    def acknowledge(self, number: int) -> None:
        """Forget all events up to that number."""
        done = [entry for entry in self._entries if entry <= number]
        for entry_number in done:
            kind, container_id, process_id, _ = self._entries.pop(entry_number)
            if kind is EventKind.PROCESS_EXITED:
                self._on_acknowledged(container_id, process_id)
