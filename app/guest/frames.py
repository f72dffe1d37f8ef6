"""Frames of docs/channel.md: encoding, incremental parsing, messages in fragments.

No I/O here. `FrameParser` is the host's receiver (a bad byte ends the connection),
`ResyncingFrameParser` the agent's (a bad byte starts a search).
"""

import struct
import zlib
from typing import NamedTuple

from app.core.errors import CorruptData
from app.guest.protocol import (
    FLAG_MORE,
    HEADER_SIZE_BYTES,
    MAGIC,
    MAX_MESSAGE_BYTES,
    MAX_PAYLOAD_BYTES,
    RESYNC_ZERO_BYTES,
    FrameType,
    Tag,
)

_HEAD = struct.Struct("<4sBBHIQ")  # the header without its CRC: bytes 0-19
_CRC = struct.Struct("<I")
_CRC_AT = _HEAD.size
_NONCE_FIELD = struct.Struct("<HHI")
_TYPES = {int(frame_type): frame_type for frame_type in FrameType}
_COMPACT_AFTER_BYTES = 256 * 1024

assert _HEAD.size + _CRC.size == HEADER_SIZE_BYTES  # noqa: S101 - a fact about this module


class Frame(NamedTuple):
    """One frame; the meaning of `offset` depends on the type (docs/channel.md)."""

    type: FrameType
    flags: int
    stream: int
    offset: int
    payload: bytes


def encode_frame(
    frame_type: FrameType,
    payload: bytes = b"",
    *,
    flags: int = 0,
    stream: int = 0,
    offset: int = 0,
) -> bytes:
    """Return header and payload, at most 16,384 bytes; the payload must be 16,360 or less."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"payload of {len(payload)} bytes does not fit a frame")
    head = _HEAD.pack(MAGIC, frame_type, flags, len(payload), stream, offset)
    crc = zlib.crc32(payload, zlib.crc32(head))
    return b"".join((head, _CRC.pack(crc), payload))


def encode_message(frame_type: FrameType, payload: bytes, *, offset: int = 0) -> list[bytes]:
    """Return the frames of one message: all but the last carry MORE; never empty."""
    frames = []
    for start in range(0, max(len(payload), 1), MAX_PAYLOAD_BYTES):
        end = start + MAX_PAYLOAD_BYTES
        flags = FLAG_MORE if end < len(payload) else 0
        frames.append(encode_frame(frame_type, payload[start:end], flags=flags, offset=offset))
    return frames


def encode_resync(hello_payload: bytes) -> bytes:
    """Return what opens every connection: the zeros that complete a torn frame, then HELLO."""
    return bytes(RESYNC_ZERO_BYTES) + encode_frame(FrameType.HELLO, hello_payload)


class FrameParser:
    """The host's receiver: bytes in by `feed`, frames out by `next_frame`.

    Holds at most what was fed and not yet taken, so a caller that takes all frames after each
    `feed` keeps less than one frame here.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0

    def feed(self, data: bytes) -> None:
        """Add received bytes; any split is fine."""
        if self._position == len(self._buffer):
            self._buffer.clear()
            self._position = 0
        elif self._position > _COMPACT_AFTER_BYTES:
            del self._buffer[: self._position]
            self._position = 0
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """Take the next frame, or None if it has not arrived whole.

        Raises:
            CorruptData: The stream is lost: magic, length, type or CRC is wrong. Every further
                call raises again.
        """
        buffer, start = self._buffer, self._position
        available = len(buffer) - start
        if available < HEADER_SIZE_BYTES:
            if not MAGIC.startswith(bytes(buffer[start : start + len(MAGIC)])):
                raise CorruptData("Channel lost: a frame does not begin with the magic")
            return None
        magic, number, flags, length, stream, offset = _HEAD.unpack_from(buffer, start)
        frame_type = _TYPES.get(number)
        if magic != MAGIC:
            raise CorruptData("Channel lost: a frame does not begin with the magic")
        if frame_type is None:
            raise CorruptData(f"Channel lost: unknown frame type {number}")
        if length > MAX_PAYLOAD_BYTES:
            raise CorruptData(f"Channel lost: impossible frame length {length}")
        if available < HEADER_SIZE_BYTES + length:
            return None
        payload = self._checked_payload(start, length)
        self._position = start + HEADER_SIZE_BYTES + length
        return Frame(frame_type, flags, stream, offset, payload)

    def _checked_payload(self, start: int, length: int) -> bytes:
        payload_at = start + HEADER_SIZE_BYTES
        with memoryview(self._buffer) as view:
            payload = bytes(view[payload_at : payload_at + length])
            crc = zlib.crc32(payload, zlib.crc32(view[start : start + _CRC_AT]))
        if crc != _CRC.unpack_from(self._buffer, start + _CRC_AT)[0]:
            raise CorruptData("Channel lost: a frame's CRC is wrong")
        return payload

    def seek_hello_ack(self, nonce: bytes) -> bool:
        """Throw away everything before the HELLO_ACK that carries `nonce`.

        The nonce is random, so nothing that was under way earlier, and nothing a container
        prints, can look like it. Returns False while it has not arrived; afterwards
        `next_frame` gives it.
        """
        field = _NONCE_FIELD.pack(Tag.NONCE, 0, len(nonce)) + nonce
        found_at = self._buffer.find(field, self._position + HEADER_SIZE_BYTES)
        if found_at < 0:
            keep_bytes = HEADER_SIZE_BYTES + len(field) - 1
            self._position = max(self._position, len(self._buffer) - keep_bytes)
            return False
        self._position = found_at - HEADER_SIZE_BYTES
        return True


class ResyncingFrameParser(FrameParser):
    """The agent's receiver: after a bad byte it searches, and ignores all but HELLO until one.

    Attributes:
        lost_count: How often the stream was lost so far.
        is_lost: Whether it is being searched for HELLO now.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lost_count = 0
        self.is_lost = False

    def next_frame(self) -> Frame | None:
        """Take the next acceptable frame, or None; never raises."""
        while True:
            try:
                frame = super().next_frame()
            except CorruptData:
                self._lose()
                continue
            if frame is None or not self.is_lost:
                return frame
            if frame.type == FrameType.HELLO:
                self.is_lost = False
                return frame

    def _lose(self) -> None:
        """Go on at the next byte that could begin a frame."""
        if not self.is_lost:
            self.lost_count += 1
            self.is_lost = True
        found_at = self._buffer.find(MAGIC[:1], self._position + 1)
        self._position = len(self._buffer) if found_at < 0 else found_at


class MessageAssembler:
    """Joins the fragments of messages, one message under way per frame type.

    Args:
        max_message_bytes: A longer message is refused.
    """

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._max_message_bytes = max_message_bytes
        self._partial: dict[FrameType, tuple[int, bytearray]] = {}

    def add(self, frame: Frame) -> bytes | None:
        """Return the whole message if `frame` ends it, else None.

        Raises:
            CorruptData: A fragment of another message stands between, or the message is too
                long. The half-received message is dropped.
        """
        more = frame.flags & FLAG_MORE
        partial = self._partial.pop(frame.type, None)
        if partial is None and not more:
            return frame.payload
        number, received = partial or (frame.offset, bytearray())
        if number != frame.offset:
            raise CorruptData(f"Channel lost: fragments of two {frame.type.name} messages mix")
        received += frame.payload
        if len(received) > self._max_message_bytes:
            raise CorruptData(f"Channel lost: a {frame.type.name} message is too long")
        if more:
            self._partial[frame.type] = (number, received)
            return None
        return bytes(received)
