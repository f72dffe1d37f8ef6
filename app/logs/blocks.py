"""Lines as bytes: the columns of a block, one after the other, little endian.

u8 version, 3 zero bytes, u32 count; count x u64 time_ns; count x u32 length; count x u8 flags
(1 stderr, 2 partial); the lines' bytes. Sequence numbers are not in it: the row has the first.
"""

import struct
from collections.abc import Sequence

import zstandard

from app.core.errors import CorruptData
from app.domain.lines import NewLine, Pending, PendingLine
from app.domain.log import LogLine, LogStream

VERSION = 1
COMPRESSION_LEVEL = 3
LONGEST_BLOCK_BYTES = 64 * 1024 * 1024  # far above any that is written
TIME_MAX_NS = 2**63 - 1  # what SQLite's integers hold; a guest may claim any u64
_HEAD = struct.Struct("<B3xI")
_STDERR = 1
_PARTIAL = 2


def encode_block(lines: Sequence[NewLine]) -> bytes:
    """Pack lines; the inverse of decode_block."""
    count = len(lines)
    flags = bytes(
        (_STDERR if line.stream is LogStream.STDERR else 0) | (_PARTIAL if line.partial else 0)
        for line in lines
    )
    return b"".join(
        (
            _HEAD.pack(VERSION, count),
            struct.pack(f"<{count}Q", *[line.time_ns for line in lines]),
            struct.pack(f"<{count}I", *[len(line.data) for line in lines]),
            flags,
            *[line.data for line in lines],
        )
    )


def decode_block(block: bytes) -> list[NewLine]:
    """Unpack lines.

    Raises:
        CorruptData: The block is not what encode_block makes.
    """
    try:
        version, count = _HEAD.unpack_from(block)
        if version != VERSION:
            raise CorruptData(f"A log block has version {version}; this release knows {VERSION}")
        at = _HEAD.size
        times = struct.unpack_from(f"<{count}Q", block, at)
        lengths = struct.unpack_from(f"<{count}I", block, at + 8 * count)
    except struct.error as error:
        raise CorruptData(f"A log block is cut short: {error}") from error
    flags = block[at + 12 * count : at + 13 * count]
    at += 13 * count
    if at + sum(lengths) != len(block):
        raise CorruptData("A log block has another length than its lines")
    lines = []
    for time_ns, length, flag in zip(times, lengths, flags, strict=True):
        stream = LogStream.STDERR if flag & _STDERR else LogStream.STDOUT
        lines.append(NewLine(time_ns, stream, block[at : at + length], bool(flag & _PARTIAL)))
        at += length
    return lines


def encode_pending(pending: Pending) -> bytes:
    """Pack the unfinished lines of a cursor; the inverse of decode_pending."""
    return encode_block(
        [NewLine(part.time_ns, stream, part.data) for stream, part in pending.items()]
    )


def decode_pending(block: bytes) -> Pending:
    """Unpack the unfinished lines of a cursor.

    Raises:
        CorruptData: The block is not what encode_pending makes.
    """
    return {line.stream: PendingLine(line.time_ns, line.data) for line in decode_block(block)}


def number_lines(lines: Sequence[NewLine], first_seq: int) -> list[LogLine]:
    """Give lines their sequence numbers, from `first_seq` on."""
    return [
        LogLine(seq, line.time_ns, line.stream, line.data, line.partial)
        for seq, line in enumerate(lines, first_seq)
    ]


def compress_block(block: bytes) -> bytes:
    """A zstd frame that states its content's size."""
    return zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(block)


def decompress_block(compressed: bytes) -> bytes:
    """The inverse of compress_block.

    Raises:
        CorruptData: It is no such frame, or claims an absurd size.
    """
    try:
        size_bytes = zstandard.frame_content_size(compressed)
        if not 0 <= size_bytes <= LONGEST_BLOCK_BYTES:
            raise CorruptData(f"A log chunk claims {size_bytes} bytes")
        return zstandard.ZstdDecompressor().decompress(compressed, max_output_size=size_bytes or 1)
    except zstandard.ZstdError as error:
        raise CorruptData(f"A log chunk can't be decompressed: {error}") from error


def block_text(lines: Sequence[NewLine]) -> str:
    """What full-text search reads of a chunk; any bytes become text."""
    return b"\n".join([line.data for line in lines]).decode("utf-8", "replace").replace("\0", " ")
