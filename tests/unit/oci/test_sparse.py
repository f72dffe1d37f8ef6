"""Sparse entries in all four forms, and maps that lie."""

import pytest

from app.core.errors import CorruptData
from tests.unit.oci.archives import END, bytes_id, pax_record, raw_entry, raw_header
from tests.unit.oci.readers import read_tar

CONTENT = bytes(1000) + b"A" * 600 + bytes(4000) + b"B" * 10 + bytes(90)
STORED = b"A" * 600 + b"B" * 10
SEGMENTS = [(1000, 600), (5600, 10)]


def old_gnu(segments: list[tuple[int, int]], real: int, stored: bytes) -> bytes:
    def slots(items: list[tuple[int, int]]) -> bytes:
        return b"".join(b"%011o\0%011o\0" % item for item in items)

    header = bytearray(raw_header(b"sparse", b"S", len(stored)))
    header[386 : 386 + 24 * len(segments[:4])] = slots(segments[:4])
    header[482] = len(segments) > 4
    header[483:495] = b"%011o\0" % real
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    blocks, rest = bytes(header), segments[4:]
    while rest:
        block = slots(rest[:21]).ljust(504, b"\0")
        rest = rest[21:]
        blocks += (block + (b"\1" if rest else b"\0")).ljust(512, b"\0")
    return blocks + stored + bytes(-len(stored) % 512) + END


def pax(records: bytes, stored: bytes, name: bytes = b"sparse") -> bytes:
    return raw_entry(b"x", records, b"x") + raw_entry(name, stored) + END


def format_00() -> bytes:
    records = pax_record(b"GNU.sparse.size", b"%d" % len(CONTENT))
    records += pax_record(b"GNU.sparse.numblocks", b"2")
    for offset, length in SEGMENTS:
        records += pax_record(b"GNU.sparse.offset", b"%d" % offset)
        records += pax_record(b"GNU.sparse.numbytes", b"%d" % length)
    return pax(records, STORED)


def format_01(numbers: str = "1000,600,5600,10") -> bytes:
    records = pax_record(b"GNU.sparse.size", b"%d" % len(CONTENT))
    records += pax_record(b"GNU.sparse.name", b"sparse")
    records += pax_record(b"GNU.sparse.map", numbers.encode())
    return pax(records, STORED, b"GNUSparseFile.0/sparse")


def format_10(text: bytes = b"2\n1000\n600\n5600\n10\n") -> bytes:
    records = pax_record(b"GNU.sparse.major", b"1") + pax_record(b"GNU.sparse.minor", b"0")
    records += pax_record(b"GNU.sparse.name", b"sparse")
    records += pax_record(b"GNU.sparse.realsize", b"%d" % len(CONTENT))
    stored = text + bytes(-len(text) % 512) + STORED
    return pax(records, stored, b"GNUSparseFile.0/sparse")


@pytest.mark.parametrize(
    "data",
    [old_gnu(SEGMENTS, len(CONTENT), STORED), format_00(), format_01(), format_10()],
    ids=["gnu", "pax-0.0", "pax-0.1", "pax-1.0"],
)
def test_sparse_expands(data: bytes) -> None:
    [read] = read_tar(data)
    assert read.entry.name == b"sparse"
    assert read.entry.size_bytes == len(CONTENT)
    assert read.data == CONTENT


def test_sparse_many_segments_span_extension_blocks() -> None:
    segments = [(offset * 1024, 512) for offset in range(60)]
    [read] = read_tar(old_gnu(segments, 61_440, b"x" * 512 * 60))
    assert read.data == (b"x" * 512 + bytes(512)) * 60


def test_sparse_entry_after_sparse_is_found() -> None:
    data = old_gnu(SEGMENTS, len(CONTENT), STORED)[: -len(END)] + raw_entry(b"next", b"1") + END
    assert [item.entry.name for item in read_tar(data)] == [b"sparse", b"next"]


def test_sparse_content_is_skipped_like_any_other() -> None:
    data = format_10()[: -len(END)] + raw_entry(b"next", b"1") + END
    assert [item.entry.name for item in read_tar(data)] == [b"sparse", b"next"]


@pytest.mark.parametrize(
    "data",
    [
        old_gnu([(0, 600), (300, 10)], 1000, STORED),
        old_gnu([(0, 600), (990, 11)], 1000, STORED),
        old_gnu([(0, 600)], 1000, STORED),
        format_01("1000,600"),
        format_01("1000,600,5600,-10"),
        format_01("1000,600,99999999999999999999,10"),
        format_01("a,b"),
        format_10(b"x\n"),
        format_10(b"200001\n"),
        format_10(b"1" * 600),
        format_10(b"3\n0\n600\n"),
    ],
    ids=bytes_id,
)
def test_sparse_lies_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptData, match="sparse"):
        read_tar(data)


def test_sparse_map_longer_than_its_content_is_refused() -> None:
    records = pax_record(b"GNU.sparse.major", b"1") + pax_record(b"GNU.sparse.realsize", b"1")
    with pytest.raises(CorruptData, match="sparse map longer"):
        read_tar(pax(records, b"100\n1\n"))
