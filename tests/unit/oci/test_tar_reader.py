"""The strict tar parser: formats it reads, damage it refuses."""

import contextlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import CorruptData
from app.oci.tar_reader import EntryKind, TarReader, looks_like_tar
from tests.unit.oci.archives import (
    END,
    Item,
    bytes_id,
    directory,
    hard_link,
    make_tar,
    pax_record,
    raw_entry,
    raw_header,
    symlink,
)
from tests.unit.oci.readers import read_tar

LONG = "d" * 90 + "/" + "n" * 200


def sample(format: int) -> bytes:
    return make_tar(
        directory("etc", mode=0o750, uid=1, gid=2),
        Item("etc/file", b"x" * 1000, mode=0o4755, uid=3, gid=4, mtime=5),
        symlink("etc/link", "file"),
        hard_link("etc/hard", "etc/file"),
        Item("dev/null", type=tarfile.CHRTYPE, device=(1, 3)),
        Item("dev/sda", type=tarfile.BLKTYPE, device=(8, 0)),
        Item("pipe", type=tarfile.FIFOTYPE),
        format=format,
    )


@pytest.mark.parametrize(
    "format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=str
)
def test_reader_reads_every_kind(format: int) -> None:
    read = read_tar(sample(format), needs_end_mark=True)
    assert [(item.entry.name, item.entry.kind) for item in read] == [
        (b"etc/", EntryKind.DIRECTORY),
        (b"etc/file", EntryKind.FILE),
        (b"etc/link", EntryKind.SYMLINK),
        (b"etc/hard", EntryKind.HARD_LINK),
        (b"dev/null", EntryKind.CHAR_DEVICE),
        (b"dev/sda", EntryKind.BLOCK_DEVICE),
        (b"pipe", EntryKind.FIFO),
    ]
    file = read[1]
    assert file.data == b"x" * 1000
    assert (file.entry.mode, file.entry.uid, file.entry.gid) == (0o4755, 3, 4)
    assert (file.entry.mtime_s, file.entry.size_bytes) == (5, 1000)
    assert (read[2].entry.link, read[3].entry.link) == (b"file", b"etc/file")
    assert [read[4].entry.device, read[5].entry.device] == [(1, 3), (8, 0)]
    assert [item.entry.ordinal for item in read] == list(range(7))


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=str)
def test_reader_reads_long_names(format: int) -> None:
    [file, link] = read_tar(make_tar(Item(LONG, b"1"), symlink("l" * 150, LONG), format=format))
    assert file.entry.name == LONG.encode()
    assert link.entry.name == b"l" * 150
    assert link.entry.link == LONG.encode()


def test_reader_reads_ustar_prefix() -> None:
    [read] = read_tar(make_tar(Item("p" * 100 + "/name", b""), format=tarfile.USTAR_FORMAT))
    assert read.entry.name == b"p" * 100 + b"/name"


def test_reader_reads_v7() -> None:
    plain = {"magic": b"\0" * 8}
    data = raw_entry(b"old", b"1", b"\0", **plain) + raw_entry(b"dir/", b"", b"\0", **plain)
    read = read_tar(data + END)
    assert [item.entry.kind for item in read] == [EntryKind.FILE, EntryKind.DIRECTORY]


def test_reader_reads_large_sizes_and_ids() -> None:
    size = raw_header(b"huge")
    base256 = raw_header(
        b"huge", b"0", 0, size=(1 << 95 | 9 << 30).to_bytes(12, "big"), uid=b"\x80\0\0\0\1\0\0\0"
    )
    reader = TarReader(io.BytesIO(base256), what="the test")
    entry = next(iter(reader))
    assert (entry.size_bytes, entry.uid) == (9 << 30, 1 << 24)
    extended = pax_record(b"size", b"9663676416") + pax_record(b"uid", b"4000000000")
    reader = TarReader(io.BytesIO(raw_entry(b"x", extended, b"x") + size), what="the test")
    entry = next(iter(reader))
    assert (entry.size_bytes, entry.uid) == (9 << 30, 4_000_000_000)


def test_reader_reads_xattrs() -> None:
    capability = b"\x01\0\0\x02\0 \n=\xff"
    records = pax_record(b"SCHILY.xattr.security.capability", capability)
    records += pax_record(b"SCHILY.xattr.user.empty", b"")
    [read] = read_tar(raw_entry(b"x", records, b"x") + raw_entry(b"ping", b"1") + END)
    assert read.entry.xattrs == {b"security.capability": capability, b"user.empty": b""}


def test_reader_extensions_hold_for_one_entry() -> None:
    records = pax_record(b"path", b"first") + pax_record(b"SCHILY.xattr.user.a", b"1")
    data = raw_entry(b"x", records, b"x") + raw_entry(b"a") + raw_entry(b"second") + END
    [first, second] = read_tar(data)
    assert (first.entry.name, second.entry.name) == (b"first", b"second")
    assert second.entry.xattrs == {}


def test_reader_ignores_global_headers() -> None:
    data = raw_entry(b"g", pax_record(b"path", b"evil"), b"g") + raw_entry(b"file") + END
    assert [item.entry.name for item in read_tar(data)] == [b"file"]


@pytest.mark.parametrize(("mtime", "expected"), [(b"12.9", 12), (b"-5.5", 0), (b"0", 0)])
def test_reader_reads_pax_times(mtime: bytes, expected: int) -> None:
    data = raw_entry(b"x", pax_record(b"mtime", mtime), b"x") + raw_entry(b"file") + END
    assert read_tar(data)[0].entry.mtime_s == expected


def test_reader_skips_content_nobody_reads() -> None:
    reader = TarReader(io.BytesIO(sample(tarfile.PAX_FORMAT)), what="the test")
    assert len(list(reader)) == 7


def test_reader_skips_the_rest_of_half_read_content() -> None:
    data = make_tar(Item("big", bytes(3 << 20)), Item("next", b"1"))
    reader = TarReader(io.BytesIO(data), what="the test")
    names = []
    for entry in reader:
        names.append(entry.name)
        next(reader.content())
    assert names == [b"big", b"next"]


def test_reader_accepts_bytes_after_the_end_mark() -> None:
    assert len(read_tar(raw_entry(b"file") + END + b"rubbish")) == 1


def test_reader_accepts_signed_checksums() -> None:
    header = bytearray(raw_header("ü".encode()))
    header[148:156] = b"        "
    signed = sum(byte - 256 if byte > 127 else byte for byte in header)
    header[148:156] = b"%06o\0 " % signed
    assert read_tar(bytes(header) + END)[0].entry.name == "ü".encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"x" * 512, "checksum"),
        (raw_entry(b"a") + b"\1" * 512, "checksum"),
        (raw_entry(b"a", b"1" * 600)[:700], "ends too early.*'a'"),
        (raw_entry(b"a", b"1" * 600)[:1100], "ends too early"),
        (raw_header(b"a")[:300], "ends too early"),
        (raw_entry(b"a", flag=b"M"), "unknown type"),
        (raw_entry(b"a", flag=b"Z"), "unknown type"),
        (raw_entry(b"a", uid=b"9999999\0"), "bad uid"),
        (raw_entry(b"a", size=b"\xff" * 12), "size -1"),
        (raw_entry(b"a", size=b"\x80" + b"\xff" * 11), "size"),
        (bytes(512) + raw_entry(b"a"), "half an end mark"),
        (raw_header(b"x", b"x", 2 << 20), "extended header of 2,097,152 bytes"),
        (raw_header(b"L", b"L", 8 << 30), "extended header of"),
        (raw_entry(b"x", pax_record(b"a", b"1"), b"x"), "ends after an extended header"),
        (raw_entry(b"x", b"hello", b"x") + raw_entry(b"a"), "bad PAX record"),
        (raw_entry(b"x", b"99 path=a\n", b"x") + raw_entry(b"a"), "bad PAX record"),
        (raw_entry(b"x", b"4 a\n", b"x") + raw_entry(b"a"), "bad PAX record"),
        (raw_entry(b"x", b"0 a=\n", b"x") + raw_entry(b"a"), "bad PAX record"),
        (raw_entry(b"x", b"-9 a=1\n", b"x") + raw_entry(b"a"), "bad PAX record"),
        (raw_entry(b"x", b"5 =1\n", b"x") + raw_entry(b"a"), "bad PAX record"),
        (raw_entry(b"x", pax_record(b"size", b"-1"), b"x") + raw_entry(b"a"), "size"),
        (raw_entry(b"x", pax_record(b"size", b"1e9"), b"x") + raw_entry(b"a"), "PAX size"),
        (raw_entry(b"x", pax_record(b"uid", b"9" * 5000), b"x") + raw_entry(b"a"), "PAX uid"),
        (raw_entry(b"x", pax_record(b"a", b"1"), b"x") * 9 + raw_entry(b"a"), "more than 8"),
    ],
    ids=bytes_id,
)
def test_reader_refuses_damage(data: bytes, message: str) -> None:
    with pytest.raises(CorruptData, match=message):
        read_tar(data)


def test_reader_needs_end_mark_only_if_told() -> None:
    assert len(read_tar(raw_entry(b"a"))) == 1
    with pytest.raises(CorruptData, match="without tar's end mark"):
        read_tar(raw_entry(b"a"), needs_end_mark=True)


def test_reader_every_truncation_is_noticed() -> None:
    data = sample(tarfile.PAX_FORMAT)
    last = max(item.entry.data_offset for item in read_tar(data))
    for size in range(0, last, 97):
        with pytest.raises(CorruptData):
            read_tar(data[:size], needs_end_mark=True)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_reader_mutated_archives_never_surprise(data: st.DataObject) -> None:
    archive = bytearray(sample(data.draw(st.sampled_from([0, 1, 2]))))
    for _ in range(data.draw(st.integers(1, 8))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CorruptData):
        read_tar(bytes(archive))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=4096))
def test_reader_random_bytes_never_surprise(data: bytes) -> None:
    with contextlib.suppress(CorruptData):
        read_tar(data)


def test_looks_like_tar() -> None:
    assert looks_like_tar(raw_header(b"a"))
    assert looks_like_tar(bytes(512))
    assert not looks_like_tar(b"PK\3\4" + bytes(508))
    assert not looks_like_tar(raw_header(b"a")[:511])
    assert not looks_like_tar(b"{" * 512)
