"""Records of the tree operations: what is written is read, and lies are found."""

import stat
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import CorruptData
from app.guest.fields import encode_fields
from app.guest.protocol import (
    MAX_TREE_DATA_BYTES,
    MAX_TREE_RECORD_BYTES,
    ChangeKind,
    Tag,
    TreeRecordKind,
)
from app.guest.tree_records import (
    TreeData,
    TreeDecoder,
    TreeEnd,
    TreeEntry,
    TreeRecord,
    encode_tree_record,
    is_inside,
)

FILE = TreeEntry(b"f", stat.S_IFREG | 0o644, size_bytes=10)
parts = st.binary(min_size=1, max_size=20).filter(
    lambda part: b"/" not in part and b"\0" not in part and part != b".."
)
names = st.lists(parts, min_size=1, max_size=4).map(b"/".join)
attributes = st.tuples(
    st.binary(min_size=1, max_size=30).filter(lambda name: not set(name) & set(b"\0=\n")),
    st.binary(max_size=100),
)
entries = st.builds(
    TreeEntry,
    name=names,
    mode=st.builds(
        lambda kind, bits: kind | bits,
        st.sampled_from([stat.S_IFDIR, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFLNK]),
        st.integers(0, 0o7777),
    ),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime_ns=st.integers(0, 2**63 - 1),
    size_bytes=st.integers(0, 2**63 - 1),
    link=st.binary(max_size=50).filter(lambda link: b"\0" not in link),
    device=st.tuples(st.integers(0, 0xFFF), st.integers(0, 0xFFFFF)),
    file_key=st.binary(max_size=64),
    xattrs=st.lists(attributes, max_size=3).map(tuple),
    is_opaque=st.booleans(),
    change=st.none() | st.sampled_from(list(ChangeKind)),
)


def decode(data: bytes) -> list[TreeRecord]:
    return TreeDecoder().feed(data)


def record(kind: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "little") + bytes([kind, 0, 0, 0]) + payload


@given(st.lists(entries, max_size=5), st.integers(1, 50))
def test_entries_survive_any_split(written: list[TreeEntry], step: int) -> None:
    records: list[TreeRecord] = [*written, TreeEnd(5, "why")]
    data = b"".join(map(encode_tree_record, records))
    decoder = TreeDecoder()
    found = [
        each for at in range(0, len(data), step) for each in decoder.feed(data[at : at + step])
    ]
    assert found == records


@given(st.binary(max_size=300))
def test_any_bytes_are_records_or_corrupt(data: bytes) -> None:
    try:
        decode(data)
    except CorruptData:
        return


@given(entries, st.data())
def test_a_damaged_record_is_a_record_or_corrupt(entry: TreeEntry, data: st.DataObject) -> None:
    encoded = bytearray(encode_tree_record(entry))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = decode(bytes(encoded))
    except CorruptData:
        return
    assert all(not isinstance(each, TreeEntry) or is_inside(each.name) for each in found)


@pytest.mark.parametrize(
    "lie",
    [
        replace(FILE, name=b"../etc/passwd"),
        replace(FILE, name=b"a/../../b"),
        replace(FILE, name=b"/etc/passwd"),
        replace(FILE, name=b""),
        replace(FILE, name=b"a\0b"),
        replace(FILE, name=b"x" * 5000),
        replace(FILE, mode=0o644),
        replace(FILE, mode=stat.S_IFSOCK),
        replace(FILE, mode=1 << 20 | stat.S_IFREG),
        replace(FILE, uid=2**32 - 1),
        replace(FILE, gid=2**40),
        replace(FILE, size_bytes=2**63),
        replace(FILE, mtime_ns=2**63),
        replace(FILE, is_hard_link=True, link=b"../x"),
        replace(FILE, is_hard_link=True),
        replace(FILE, link=b"a\0"),
        replace(FILE, device=(0x1000, 0)),
        replace(FILE, file_key=b"k" * 65),
        replace(FILE, xattrs=((b"", b""),)),
        replace(FILE, xattrs=((b"user.a=b\n12 path=/etc", b""),)),
    ],
    ids=str,
)
def test_files_that_can_not_be_are_refused(lie: TreeEntry) -> None:
    with pytest.raises(CorruptData):
        decode(encode_tree_record(lie))


@pytest.mark.parametrize(
    "records",
    [
        [TreeData(0, b"x")],
        [replace(FILE, mode=stat.S_IFDIR), TreeData(0, b"x")],
        [FILE, TreeData(9, b"xx")],
        [FILE, TreeData(5, b"x"), TreeData(5, b"x")],
        [FILE, TreeData(5, b"x"), TreeData(0, b"x")],
        [FILE, TreeData(0, b"")],
        [TreeEnd(), FILE],
        [TreeEnd(), TreeEnd()],
        [replace(FILE, size_bytes=2**40), TreeData(0, bytes(MAX_TREE_DATA_BYTES + 1))],
    ],
    ids=["no file", "directory", "beyond", "twice", "back", "empty", "after", "ends", "long"],
)
def test_records_that_contradict_each_other_are_refused(records: list[TreeRecord]) -> None:
    with pytest.raises(CorruptData):
        decode(b"".join(map(encode_tree_record, records)))


@pytest.mark.parametrize(
    "data",
    [
        record(0, b""),
        record(4, b""),
        record(TreeRecordKind.DATA, b"short"),
        b"\1\0\0\0\3\0\1\0x",
        (MAX_TREE_RECORD_BYTES + 1).to_bytes(4, "little") + b"\1\0\0\0",
        record(TreeRecordKind.ENTRY, encode_fields([(Tag.MODE, stat.S_IFREG)])),
        record(
            TreeRecordKind.ENTRY,
            encode_fields([(Tag.NAME, "f"), (Tag.MODE, stat.S_IFREG), (Tag.CHANGE, 9)]),
        ),
        record(TreeRecordKind.END, b""),
    ],
    ids=["kind 0", "kind 4", "short", "zeros", "long", "nameless", "change", "end"],
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptData):
        decode(data)


def test_a_record_that_is_too_long_is_not_written() -> None:
    with pytest.raises(ValueError, match="bytes"):
        encode_tree_record(replace(FILE, xattrs=((b"user.x", bytes(MAX_TREE_RECORD_BYTES)),)))
