"""The two kinds of stream as the engine sees them: output to read, stdin to write.

State only: `channel.py` moves the frames. An `OutputStream` survives reconnects without losing or
repeating a byte; so does an `InputStream`, by keeping what the guest has not acknowledged.
"""

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from app.core.errors import Conflict, CorruptData, InvalidArgument, NotFound, SlipwayError
from app.core.units import KIB
from app.guest.frames import encode_frame
from app.guest.hello import StreamInfo
from app.guest.protocol import FLAG_EOF, MAX_FRAME_BYTES, MAX_PAYLOAD_BYTES, FrameType

DEFAULT_WINDOW_BYTES = 256 * KIB
MIN_WINDOW_BYTES = 2 * MAX_FRAME_BYTES  # a record must always fit, or nobody could acknowledge
INPUT_BUFFER_BYTES = 256 * KIB
_MAX_CHUNK_BYTES = 64 * KIB
_WINDOW = struct.Struct("<I")
_MAX_WINDOW_BYTES = (1 << 32) - 1


def encode_ack(stream_id: int, offset: int, window_bytes: int, *, eof: bool = False) -> bytes:
    """Return an ACK: all below `offset` is safe, `window_bytes` more may come."""
    payload = _WINDOW.pack(window_bytes)
    flags = FLAG_EOF if eof else 0
    return encode_frame(FrameType.ACK, payload, flags=flags, stream=stream_id, offset=offset)


def decode_window(payload: bytes) -> int:
    """Return the window of an ACK.

    Raises:
        CorruptData: The payload is not a u32.
    """
    if len(payload) != _WINDOW.size:
        raise CorruptData("Channel lost: an ACK without a window")
    return int(_WINDOW.unpack(payload)[0])


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an output stream.

    Attributes:
        start_offset: Where `data` begins. It follows the chunk before, except that a first chunk
            may begin later than asked for when earlier bytes had been acknowledged already.
        data: May be empty when `eof` is set.
        eof: The stream ends after this chunk.
    """

    start_offset: int
    data: bytes
    eof: bool

    @property
    def end_offset(self) -> int:
        """Offset after the last byte."""
        return self.start_offset + len(self.data)


class OutputStream:
    """An output stream: an async iterator of chunks; the last one has `eof`.

    At most the window is held here: the guest sends no more before an acknowledgement. One
    consumer. Iteration raises NotFound if the guest has forgotten the stream, CorruptData if it
    contradicts itself, Unavailable once the channel is closed; what had arrived is given out
    first.
    """

    def __init__(
        self,
        stream_id: int,
        *,
        offset: int,
        window_bytes: int,
        on_change: Callable[["OutputStream"], None],
    ) -> None:
        if not MIN_WINDOW_BYTES <= window_bytes <= _MAX_WINDOW_BYTES:
            raise InvalidArgument(f"A window of {window_bytes} bytes is out of range")
        self.stream_id = stream_id
        self.window_bytes = window_bytes
        self.acknowledged_offset = offset
        self.is_finished = False  # the end was acknowledged
        self.is_closed = False
        self._on_change = on_change
        self._buffer = bytearray()
        self._taken_offset = offset  # the consumer has all below
        self._wire_offset: int | None = None  # next byte on this connection; None before our ACK
        self._end_offset: int | None = None
        self._end_taken = False
        self._error: SlipwayError | None = None
        self._arrived = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        """Wait, without a deadline, for the next chunk (at most 64 KiB); safe to cancel."""
        while True:
            if self._end_taken or self.is_closed:
                raise StopAsyncIteration
            chunk = self._take()
            if chunk is not None:
                return chunk
            if self._error is not None:
                raise self._error
            self._arrived.clear()
            await self._arrived.wait()

    def _take(self) -> Chunk | None:
        data = bytes(self._buffer[:_MAX_CHUNK_BYTES])
        start = self._taken_offset
        at_end = start + len(data) == self._end_offset
        if not data and not at_end:
            return None
        del self._buffer[: len(data)]
        self._taken_offset = start + len(data)
        self._end_taken = at_end
        return Chunk(start, data, at_end)

    def acknowledge(self, offset: int, *, eof: bool = False) -> None:
        """Tell the guest that everything below `offset` is safe, and let it send as much again.

        Call it after the commit, never before. Returns at once; repeating it or going back is
        harmless. With `eof` (and the end's offset) both sides forget the stream.

        Raises:
            InvalidArgument: The bytes, or the end, have not been given out by this stream.
        """
        if offset > self._taken_offset:
            raise InvalidArgument(
                f"Stream {self.stream_id} was read to {self._taken_offset}, not to {offset}"
            )
        if eof and not (self._end_taken and offset == self._end_offset):
            raise InvalidArgument(f"Stream {self.stream_id} has not been read to its end")
        if self.is_finished or (offset <= self.acknowledged_offset and not eof):
            return
        self.acknowledged_offset = offset
        self.is_finished = eof
        self._on_change(self)

    def close(self) -> None:
        """Stop reading without acknowledging more; the guest keeps the rest. Idempotent."""
        if not self.is_closed:
            self.is_closed = True
            self._buffer.clear()
            self._arrived.set()
            self._on_change(self)

    def begin_connection(self, info: StreamInfo | None) -> None:
        """Take up what HELLO_ACK says about this stream; None: the guest does not know it."""
        self._wire_offset = None
        if info is None:
            self.fail(NotFound(f"The guest knows no output stream {self.stream_id}"))
        elif info.end < self._received_offset:
            self.fail(CorruptData(f"The guest has lost output of stream {self.stream_id}"))
        else:
            self.acknowledged_offset = max(self.acknowledged_offset, info.base)
            if info.base > self._received_offset:
                self._buffer.clear()
                self._taken_offset = info.base

    @property
    def _received_offset(self) -> int:
        return self._taken_offset + len(self._buffer)

    def take_ack(self) -> bytes:
        """Return the ACK frame for the present state; from now on its credit counts."""
        if self._wire_offset is None:
            self._wire_offset = self.acknowledged_offset
        window_bytes = 0 if self.is_closed else self.window_bytes
        return encode_ack(
            self.stream_id, self.acknowledged_offset, window_bytes, eof=self.is_finished
        )

    def receive(self, start: int, data: bytes, *, eof: bool) -> None:
        """Take a DATA frame; bytes that were here before are dropped.

        Raises:
            CorruptData: It does not follow the one before, exceeds the window, or comes after the
                end.
        """
        end = start + len(data)
        if self._wire_offset != start:
            raise CorruptData(f"Channel lost: stream {self.stream_id} jumps to {start}")
        if end > self.acknowledged_offset + self.window_bytes:
            raise CorruptData(f"Channel lost: stream {self.stream_id} exceeds its window")
        if self._end_offset is not None and (
            end > self._end_offset or (eof and end != self._end_offset)
        ):
            raise CorruptData(f"Channel lost: stream {self.stream_id} moves its end")
        if eof and end < self._received_offset:
            raise CorruptData(f"Channel lost: stream {self.stream_id} ends before what it sent")
        self._wire_offset = end
        fresh_from = max(self._received_offset - start, 0)
        if fresh_from < len(data):
            self._buffer += data[fresh_from:] if fresh_from else data
            self._arrived.set()
        if eof and self._end_offset is None:
            self._end_offset = end
            self._arrived.set()

    def fail(self, error: SlipwayError) -> None:
        """End the stream with an error, after what has arrived. The first error stays."""
        if self._error is None:
            self._error = error
        self._arrived.set()


class InputStream:
    """A process's stdin: written here, read by the guest as the process takes it."""

    def __init__(self, stream_id: int, *, on_change: Callable[["InputStream"], None]) -> None:
        self.stream_id = stream_id
        self.is_finished = False  # the guest takes no more
        self._on_change = on_change
        self._buffer = bytearray()  # from _base_offset: everything the guest has not acknowledged
        self._base_offset = 0
        self._sent_offset = 0
        self._is_placed = False  # an earlier engine may have written: the guest says where to go on
        self._limit_offset: int | None = None  # None before the guest's ACK on this connection
        self._has_ended = False
        self._end_sent = False
        self._error: SlipwayError | None = None
        self._moved = asyncio.Event()

    async def write(self, data: bytes) -> None:
        """Hand over bytes; waits, without a deadline, while 256 KiB are unacknowledged.

        Raises:
            Conflict: The process has ended or closed its stdin, or `write_eof` was called.
            Unavailable: The channel is closed.
        """
        position = 0
        while position < len(data):
            self._check_open()
            room = INPUT_BUFFER_BYTES - len(self._buffer)
            if room > 0:
                self._buffer += data[position : position + room]
                position += room
                self._on_change(self)
            else:
                await self._wait_moved()

    def write_eof(self) -> None:
        """End the stream after what was written; returns at once. Idempotent."""
        if not self._has_ended:
            self._has_ended = True
            self._on_change(self)

    async def drain(self) -> None:
        """Wait, without a deadline, until the guest has acknowledged all, or takes no more.

        After `write_eof` that includes the end.

        Raises:
            Unavailable: The channel is closed.
        """
        while not self.is_finished and (self._buffer or self._has_ended):
            if self._error is not None:
                raise self._error
            await self._wait_moved()

    def _check_open(self) -> None:
        if self._error is not None:
            raise self._error
        if self.is_finished or self._has_ended:
            raise Conflict(f"Stream {self.stream_id} takes no more input: the process has ended")

    async def _wait_moved(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    def begin_connection(self, info: StreamInfo | None) -> None:
        """Wait for the guest's ACK again; None: the guest does not know the stream (any more)."""
        self._limit_offset = None
        self._end_sent = False
        if info is None or info.has_ended:
            self.finish()

    def receive_ack(self, offset: int, window_bytes: int, *, eof: bool) -> None:
        """Take the guest's ACK.

        Raises:
            CorruptData: It acknowledges what was never sent, or asks for what it had acknowledged.
        """
        if eof:
            self.finish()
            return
        if not self._is_placed:
            self._is_placed = True
            self._base_offset = self._sent_offset = offset
        if not self._base_offset <= offset <= self._sent_offset:
            raise CorruptData(f"Channel lost: impossible ACK of stream {self.stream_id}: {offset}")
        del self._buffer[: offset - self._base_offset]
        self._base_offset = offset
        if self._limit_offset is None:
            self._sent_offset = offset
        self._limit_offset = offset + window_bytes
        self._moved.set()
        self._on_change(self)

    def take_data(self) -> bytes | None:
        """Return the next DATA frame that the window allows, or None."""
        if self._limit_offset is None or self.is_finished or self._end_sent:
            return None
        end = self._base_offset + len(self._buffer)
        stop = min(end, self._limit_offset, self._sent_offset + MAX_PAYLOAD_BYTES)
        start = self._sent_offset
        self._end_sent = self._has_ended and max(stop, start) == end
        if stop <= start and not self._end_sent:
            return None
        data = bytes(self._buffer[start - self._base_offset : max(stop, start) - self._base_offset])
        self._sent_offset = start + len(data)
        flags = FLAG_EOF if self._end_sent else 0
        return encode_frame(FrameType.DATA, data, flags=flags, stream=self.stream_id, offset=start)

    def finish(self) -> None:
        """The guest takes no more; what it has not read is dropped."""
        self.is_finished = True
        self._buffer.clear()
        self._moved.set()
        self._on_change(self)

    def fail(self, error: SlipwayError) -> None:
        """Let every present and later writer fail. The first error stays."""
        if self._error is None:
            self._error = error
        self._moved.set()
