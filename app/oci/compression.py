"""Compressed streams: told by their first bytes, expanded in bounded steps."""

import bz2
import lzma
import zlib
from enum import StrEnum
from typing import BinaryIO, Protocol, cast

import zstandard

from app.core.errors import CorruptData
from app.core.units import MIB
from app.oci.streams import CHUNK_BYTES, Source

WINDOW_MAX_BYTES = 128 * MIB  # of zstd; what the zstd tool accepts by default, too
XZ_MEMORY_MAX_BYTES = 192 * MIB  # xz -9 needs 65 MiB, its rare larger dictionaries more
SNIFF_BYTES = 6


class Compression(StrEnum):
    """How a blob is packed; the value ends OCI's layer media type (empty: plain)."""

    NONE = ""
    GZIP = "gzip"
    ZSTD = "zstd"
    XZ = "xz"
    BZIP2 = "bzip2"


_MAGICS = {
    b"\x1f\x8b": Compression.GZIP,
    b"\x28\xb5\x2f\xfd": Compression.ZSTD,
    b"\xfd7zXZ\x00": Compression.XZ,
    b"BZh": Compression.BZIP2,
}


def detect_compression(head: bytes) -> Compression:
    """Tell by the first SNIFF_BYTES bytes."""
    for magic, compression in _MAGICS.items():
        if head.startswith(magic):
            return compression
    return Compression.NONE


class _Decoder(Protocol):
    """What lzma, bz2 and the adapters below have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _GzipDecoder:
    """One gzip member, with the interface of lzma's decompressor."""

    def __init__(self) -> None:
        self._z = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._z.eof

    @property
    def needs_input(self) -> bool:
        return not self._z.unconsumed_tail and not self._z.eof

    @property
    def unused_data(self) -> bytes:
        return self._z.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._z.decompress(self._z.unconsumed_tail + data, max_length)


class _FrameSource:
    """Expands a chain of frames (gzip members, xz streams), at most `size` bytes a read."""

    def __init__(self, source: Source, compression: Compression, what: str) -> None:
        self._source = source
        self._compression = compression
        self._what = what
        self._decoder = self._new_decoder()
        self._pending = b""
        self._is_done = False

    def _new_decoder(self) -> _Decoder:
        match self._compression:
            case Compression.XZ:
                return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_MAX_BYTES)
            case Compression.BZIP2:
                return bz2.BZ2Decompressor()
            case _:
                return _GzipDecoder()

    def read(self, size: int, /) -> bytes:
        while not self._is_done:
            if self._decoder.eof and not self._next_frame():
                break
            data = self._expand(size)
            if data:
                return data
        return b""

    def _expand(self, size: int) -> bytes:
        if self._decoder.needs_input and not self._pending:
            self._pending = self._source.read(CHUNK_BYTES // 4)
            if not self._pending:
                raise CorruptData(f"{self._what}: the {self._compression} data ends too early")
        pending, self._pending = self._pending, b""
        try:
            return self._decoder.decompress(pending, size)
        except (zlib.error, lzma.LZMAError, OSError, ValueError, MemoryError) as error:
            raise CorruptData(f"{self._what}: bad {self._compression} data: {error}") from error

    def _next_frame(self) -> bool:
        """Start the next frame; zero bytes after the last one are padding (as gzip and xz say)."""
        rest = self._decoder.unused_data.lstrip(b"\0")
        while not rest:
            data = self._source.read(CHUNK_BYTES // 4)
            if not data:
                self._is_done = True
                return False
            rest = data.lstrip(b"\0")
        self._decoder = self._new_decoder()
        self._pending = rest
        return True


class _ZstdSource:
    """Expands zstd frames.

    A stream cut inside a frame just ends here: the library doesn't tell. The reader of the tar
    inside, or a digest, notices.
    """

    def __init__(self, source: Source, what: str) -> None:
        self._what = what
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX_BYTES)
        self._stream = decompressor.stream_reader(
            cast(BinaryIO, _PlainReader(source)),
            read_size=CHUNK_BYTES // 4,
            read_across_frames=True,
        )

    def read(self, size: int, /) -> bytes:
        try:
            return self._stream.read(size)
        except zstandard.ZstdError as error:
            raise CorruptData(f"{self._what}: bad zstd data: {error}") from error


class _PlainReader:
    """As much of the file interface as zstandard calls: read()."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def read(self, size: int = -1, /) -> bytes:
        return self._source.read(size if size > 0 else CHUNK_BYTES)


def open_decompressed(source: Source, compression: Compression, *, what: str) -> Source:
    """Wrap `source` so that reads give expanded bytes.

    Raises:
        CorruptData: From reads: damaged or truncated data; `what` names the object.
    """
    match compression:
        case Compression.NONE:
            return source
        case Compression.ZSTD:
            return _ZstdSource(source, what)
        case _:
            return _FrameSource(source, compression, what)
