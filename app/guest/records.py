"""Output records of docs/channel.md: when, from which file descriptor, and what was written."""

import struct
from dataclasses import dataclass
from enum import IntEnum

from app.core.errors import CorruptData
from app.guest.protocol import MAX_RECORD_BYTES, RECORD_HEADER_SIZE_BYTES

_HEAD = struct.Struct("<QIB3x")

assert _HEAD.size == RECORD_HEADER_SIZE_BYTES  # noqa: S101 - a fact about this module


class Source(IntEnum):
    """Which file descriptor of the process; a tty writes STDOUT only."""

    STDOUT = 1
    STDERR = 2


@dataclass(frozen=True, slots=True)
class OutputRecord:
    """A piece of output.

    Attributes:
        time_ns: Guest clock when the agent read it, nanoseconds since the epoch.
        source: stdout or stderr.
        data: 1 to 8,192 bytes, cut anywhere.
        end_offset: Offset in the stream of the byte after this record: what to acknowledge once
            it is safe.
    """

    time_ns: int
    source: Source
    data: bytes
    end_offset: int


def encode_record(time_ns: int, source: Source, data: bytes) -> bytes:
    """Return one record as the agent writes it; `data` is at most 8,192 bytes."""
    if len(data) > MAX_RECORD_BYTES:
        raise ValueError(f"{len(data)} bytes do not fit a record")
    return _HEAD.pack(time_ns, len(data), source) + data


class RecordDecoder:
    """Cuts the bytes of one output stream into records, however they were split into frames.

    Args:
        offset: Where the first byte fed lies in the stream; always the end of a record.
    """

    def __init__(self, offset: int = 0) -> None:
        self._buffer = bytearray()
        self._offset = offset

    @property
    def next_offset(self) -> int:
        """Offset of the next byte to feed."""
        return self._offset + len(self._buffer)

    @property
    def record_offset(self) -> int:
        """Offset after the last whole record: what may be acknowledged."""
        return self._offset

    @property
    def is_between_records(self) -> bool:
        """Whether nothing of an unfinished record is held."""
        return not self._buffer

    def feed(self, data: bytes) -> list[OutputRecord]:
        """Return the records that `data` completes.

        Raises:
            CorruptData: The stream holds no records here; the decoder is of no further use.
        """
        self._buffer += data
        records: list[OutputRecord] = []
        position, available = 0, len(self._buffer)
        with memoryview(self._buffer) as view:
            while available - position >= RECORD_HEADER_SIZE_BYTES:
                time_ns, length, source = _HEAD.unpack_from(view, position)
                if length > MAX_RECORD_BYTES or source not in (1, 2):
                    raise CorruptData(
                        f"Output of the guest is broken at offset {self._offset + position}"
                    )
                end = position + RECORD_HEADER_SIZE_BYTES + length
                if end > available:
                    break
                piece = bytes(view[position + RECORD_HEADER_SIZE_BYTES : end])
                records.append(OutputRecord(time_ns, Source(source), piece, self._offset + end))
                position = end
        del self._buffer[:position]
        self._offset += position
        return records
