"""Compressed streams: recognised, expanded in bounded steps, damage noticed."""

import bz2
import gzip
import io
import lzma
import os

import pytest
import zstandard

from app.core.errors import CorruptData
from app.oci.compression import Compression, detect_compression, open_decompressed
from app.oci.streams import CHUNK_BYTES

PLAIN = os.urandom(300_000) + bytes(2_000_000) + os.urandom(10)
PACKED = {
    Compression.GZIP: gzip.compress(PLAIN),
    Compression.ZSTD: zstandard.ZstdCompressor().compress(PLAIN),
    Compression.XZ: lzma.compress(PLAIN),
    Compression.BZIP2: bz2.compress(PLAIN),
}
KINDS = pytest.mark.parametrize("kind", list(PACKED), ids=str)


def expand(data: bytes, kind: Compression, size: int = CHUNK_BYTES) -> bytes:
    source = open_decompressed(io.BytesIO(data), kind, what="layer 1")
    parts = []
    while part := source.read(size):
        assert len(part) <= size
        parts.append(part)
    assert source.read(size) == b""
    return b"".join(parts)


@KINDS
def test_compression_is_recognised_and_expanded(kind: Compression) -> None:
    assert detect_compression(PACKED[kind][:6]) is kind
    assert expand(PACKED[kind], kind) == PLAIN


def test_compression_none() -> None:
    assert detect_compression(b"etc/") is Compression.NONE
    assert detect_compression(b"") is Compression.NONE
    assert expand(PLAIN, Compression.NONE) == PLAIN


@KINDS
def test_compression_concatenated_frames(kind: Compression) -> None:
    assert expand(PACKED[kind] * 2, kind) == PLAIN * 2


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.XZ], ids=str)
def test_compression_zero_padding_is_no_data(kind: Compression) -> None:
    assert expand(PACKED[kind] + bytes(4096), kind) == PLAIN


@KINDS
def test_compression_small_reads(kind: Compression) -> None:
    assert expand(PACKED[kind], kind, 70_000) == PLAIN


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.XZ, Compression.BZIP2], ids=str)
def test_compression_truncation_is_noticed(kind: Compression) -> None:
    for size in (20, len(PACKED[kind]) // 2, len(PACKED[kind]) - 1):
        with pytest.raises(CorruptData, match=f"layer 1: the {kind} data ends too early"):
            expand(PACKED[kind][:size], kind)


def test_compression_zstd_truncation_gives_less() -> None:
    packed = PACKED[Compression.ZSTD]
    assert len(expand(packed[: len(packed) // 2], Compression.ZSTD)) < len(PLAIN)


@KINDS
def test_compression_damage_is_refused(kind: Compression) -> None:
    middle = len(PACKED[kind]) // 2
    damaged = PACKED[kind][:middle] + b"\xff" * 64 + PACKED[kind][middle + 64 :]
    if kind is Compression.ZSTD:  # raw blocks carry no checksum: damage the frame itself
        damaged = PACKED[kind][:8] + b"\xff" * 64 + PACKED[kind][72:]
    with pytest.raises(CorruptData, match=f"layer 1: bad {kind} data"):
        expand(damaged, kind)


@KINDS
def test_compression_rubbish_after_the_end_is_refused(kind: Compression) -> None:
    with pytest.raises(CorruptData, match="layer 1"):
        expand(PACKED[kind] + b"rubbish rubbish", kind)


def test_compression_huge_zstd_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    output = io.BytesIO()
    with compressor.stream_writer(output, closefd=False) as writer:
        writer.write(b"x" * 1000)
    with pytest.raises(CorruptData, match="zstd"):
        expand(output.getvalue(), Compression.ZSTD)
