"""Records in the streams of the tree operations (docs/channel.md, Trees), read strictly.

What comes from a guest may lie: a decoder raises CorruptData for anything that is not a tree.
"""

import stat
import struct
from dataclasses import dataclass
from typing import TypeAlias

from app.core.errors import CorruptData
from app.guest.fields import Fields, FieldValue, encode_fields
from app.guest.protocol import (
    MAX_TREE_DATA_BYTES,
    MAX_TREE_RECORD_BYTES,
    TREE_HEADER_SIZE_BYTES,
    ChangeKind,
    Tag,
    TreeRecordKind,
)

NAME_MAX_BYTES = 4095
_HEAD = struct.Struct("<IB3s")
_OFFSET = struct.Struct("<Q")
_TYPES = frozenset(
    {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO}
)
_ID_MAX = (1 << 32) - 2
_SIZE_MAX = (1 << 63) - 1

assert _HEAD.size == TREE_HEADER_SIZE_BYTES  # noqa: S101 - a fact about this module


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """A file, directory or other node.

    Attributes:
        name: Relative to the top, which is `.` if it is a directory.
        mode: With the type, as in stat.
        link: Where a symbolic link leads, or the name of the entry that a hard link shares.
        device: Major and minor number of a device.
        file_key: The same for every name of a file that has several; else empty.
        is_opaque: A directory of an upper layer hides what is below.
        change: Of LIST_CHANGES.
    """

    name: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size_bytes: int = 0
    link: bytes = b""
    is_hard_link: bool = False
    device: tuple[int, int] = (0, 0)
    file_key: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    is_opaque: bool = False
    change: ChangeKind | None = None

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it has content of its own."""
        return stat.S_ISREG(self.mode) and not self.is_hard_link

    @property
    def is_whiteout(self) -> bool:
        """Whether it says, in an upper layer, that there is nothing."""
        return stat.S_ISCHR(self.mode) and self.device == (0, 0)


@dataclass(frozen=True, slots=True)
class TreeData:
    """Content of the file before; what no record covers is a hole."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class TreeEnd:
    """The last record; `errno` 0 if all went well."""

    errno: int = 0
    message: str = ""


TreeRecord: TypeAlias = TreeEntry | TreeData | TreeEnd


def encode_tree_record(record: TreeRecord) -> bytes:
    """Return the record's bytes.

    Raises:
        ValueError: It is too long.
    """
    if isinstance(record, TreeEntry):
        kind, payload = TreeRecordKind.ENTRY, encode_fields(_entry_fields(record))
    elif isinstance(record, TreeData):
        kind, payload = TreeRecordKind.DATA, _OFFSET.pack(record.offset) + record.data
    else:
        kind = TreeRecordKind.END
        payload = encode_fields([(Tag.ERRNO, record.errno), (Tag.MESSAGE, record.message)])
    if len(payload) > MAX_TREE_RECORD_BYTES:
        raise ValueError(f"a tree record of {len(payload)} bytes")
    return _HEAD.pack(len(payload), kind, b"") + payload


def _entry_fields(entry: TreeEntry) -> list[tuple[Tag, FieldValue]]:
    fields: list[tuple[Tag, FieldValue]] = [
        (Tag.NAME, entry.name),
        (Tag.MODE, entry.mode),
        (Tag.UID, entry.uid),
        (Tag.GID, entry.gid),
        (Tag.TIME_NS, entry.mtime_ns),
        (Tag.SIZE_BYTES, entry.size_bytes),
    ]
    if entry.link:
        fields.append((Tag.LINK, entry.link))
    if entry.is_hard_link:
        fields.append((Tag.IS_HARD_LINK, True))
    if entry.device != (0, 0):
        fields.append((Tag.DEVICE_NUMBER, entry.device[0] << 32 | entry.device[1]))
    if entry.file_key:
        fields.append((Tag.FILE_KEY, entry.file_key))
    for name, value in entry.xattrs:
        fields.append((Tag.XATTR, [(Tag.NAME, name), (Tag.DATA, value)]))
    if entry.is_opaque:
        fields.append((Tag.IS_OPAQUE, True))
    if entry.change is not None:
        fields.append((Tag.CHANGE, int(entry.change)))
    return fields


class TreeDecoder:
    """Cuts the bytes of one stream into records and checks that they make a tree."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._file_bytes: int | None = None  # size of the file that data may follow of
        self._data_end = 0
        self._has_ended = False

    def feed(self, data: bytes) -> list[TreeRecord]:
        """Return the records that `data` completes.

        Raises:
            CorruptData: These are no records, or they contradict each other.
        """
        self._buffer += data
        records: list[TreeRecord] = []
        position = 0
        while len(self._buffer) - position >= _HEAD.size:
            length, kind, zeros = _HEAD.unpack_from(self._buffer, position)
            if length > MAX_TREE_RECORD_BYTES or kind not in tuple(TreeRecordKind) or any(zeros):
                raise CorruptData("The guest sent files in a form that is none")
            end = position + _HEAD.size + length
            if end > len(self._buffer):
                break
            payload = bytes(self._buffer[position + _HEAD.size : end])
            records.append(self._record(TreeRecordKind(kind), payload))
            position = end
        del self._buffer[:position]
        return records

    def _record(self, kind: TreeRecordKind, payload: bytes) -> TreeRecord:
        if self._has_ended:
            raise CorruptData("The guest sent files after their end")
        if kind is TreeRecordKind.DATA:
            return self._data(payload)
        fields = Fields(payload)
        if kind is TreeRecordKind.END:
            self._has_ended = True
            return TreeEnd(fields.number(Tag.ERRNO), fields.text(Tag.MESSAGE, ""))
        entry = decode_entry(fields)
        self._file_bytes = entry.size_bytes if entry.is_file else None
        self._data_end = 0
        return entry

    def _data(self, payload: bytes) -> TreeData:
        if self._file_bytes is None or not _OFFSET.size < len(payload):
            raise CorruptData("The guest sent content that belongs to no file")
        (offset,) = _OFFSET.unpack_from(payload)
        data = payload[_OFFSET.size :]
        end = offset + len(data)
        if len(data) > MAX_TREE_DATA_BYTES or offset < self._data_end or end > self._file_bytes:
            raise CorruptData("The guest sent content beyond the end of a file, or out of order")
        self._data_end = end
        return TreeData(offset, data)


def decode_entry(fields: Fields) -> TreeEntry:
    """Read an entry.

    Raises:
        CorruptData: It is none, or its name leads out of the tree.
    """
    change = fields.number(Tag.CHANGE) if Tag.CHANGE in fields else None
    device = fields.number(Tag.DEVICE_NUMBER, 0)
    entry = TreeEntry(
        name=fields.data(Tag.NAME),
        mode=fields.number(Tag.MODE),
        uid=fields.number(Tag.UID, 0),
        gid=fields.number(Tag.GID, 0),
        mtime_ns=fields.number(Tag.TIME_NS, 0),
        size_bytes=fields.number(Tag.SIZE_BYTES, 0),
        link=fields.data(Tag.LINK) if Tag.LINK in fields else b"",
        is_hard_link=fields.flag(Tag.IS_HARD_LINK),
        device=(device >> 32, device & 0xFFFFFFFF),
        file_key=fields.data(Tag.FILE_KEY) if Tag.FILE_KEY in fields else b"",
        xattrs=tuple(
            (group.data(Tag.NAME), group.data(Tag.DATA)) for group in fields.groups(Tag.XATTR)
        ),
        is_opaque=fields.flag(Tag.IS_OPAQUE),
        change=ChangeKind(change) if change in tuple(ChangeKind) else None,
    )
    if change is not None and entry.change is None:
        raise CorruptData(f"The guest told of a change of kind {change}")
    _check(entry)
    return entry


def _check(entry: TreeEntry) -> None:
    wrong = not is_inside(entry.name)
    wrong |= entry.mode > 0o177777 or stat.S_IFMT(entry.mode) not in _TYPES
    wrong |= entry.uid > _ID_MAX or entry.gid > _ID_MAX
    wrong |= entry.mtime_ns > _SIZE_MAX or entry.size_bytes > _SIZE_MAX
    wrong |= len(entry.link) > NAME_MAX_BYTES or b"\0" in entry.link
    wrong |= entry.is_hard_link and not is_inside(entry.link)
    wrong |= len(entry.file_key) > 64
    wrong |= entry.device[0] > 0xFFF or entry.device[1] > 0xFFFFF
    wrong |= any(
        not name or b"\0" in name or b"=" in name or b"\n" in name or len(name) > 255
        for name, _ in entry.xattrs
    )
    if wrong:
        raise CorruptData("The guest told of a file that can't be")


def is_inside(name: bytes) -> bool:
    """Whether a name is relative and leads nowhere but down."""
    return (
        0 < len(name) <= NAME_MAX_BYTES
        and b"\0" not in name
        and not name.startswith(b"/")
        and b".." not in name.split(b"/")
    )
