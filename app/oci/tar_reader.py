"""A strict, streaming tar parser for archives from anywhere.

Reads v7, ustar, GNU (long names, sparse, base-256) and PAX headers. Where the standard library's
module guesses or stops silently (a bad header in the middle counts as the end there), this one
raises CorruptData with the entry and the offset. It judges syntax only: what a name may be is
decided by its readers.

Sources: POSIX pax, "ustar Interchange Format" and "pax Interchange Format"; GNU tar manual,
"Basic Tar Format" and "Storing Sparse Files"; leniencies as Go's archive/tar, which Docker uses.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from app.core.errors import CorruptData
from app.core.units import MIB
from app.domain.reference import shown
from app.oci.sparse import SPARSE_KEYS, SparseMap, parse_gnu_sparse, parse_pax_sparse
from app.oci.streams import CHUNK_BYTES, Source

BLOCK_BYTES = 512
EXTENSION_MAX_BYTES = MIB  # one PAX header or GNU long name; 64 KiB values of xattrs fit
EXTENSIONS_IN_A_ROW_MAX = 8
_ZERO_BLOCK = bytes(BLOCK_BYTES)
_XATTR_PREFIX = b"SCHILY.xattr."


class EntryKind(IntEnum):
    """What an entry makes."""

    FILE = 0
    HARD_LINK = 1
    SYMLINK = 2
    CHAR_DEVICE = 3
    BLOCK_DEVICE = 4
    DIRECTORY = 5
    FIFO = 6


_KINDS = {
    b"\0": EntryKind.FILE,
    b"0": EntryKind.FILE,
    b"7": EntryKind.FILE,  # contiguous: a plain file everywhere today
    b"S": EntryKind.FILE,  # GNU sparse
    b"1": EntryKind.HARD_LINK,
    b"2": EntryKind.SYMLINK,
    b"3": EntryKind.CHAR_DEVICE,
    b"4": EntryKind.BLOCK_DEVICE,
    b"5": EntryKind.DIRECTORY,
    b"6": EntryKind.FIFO,
}


@dataclass(slots=True)
class TarEntry:
    """One member of an archive, extensions applied.

    Attributes:
        ordinal: Position among the entries, from 0.
        name, link: Raw bytes as the archive spells them.
        size_bytes: Size of the content as a program would read it (holes included).
        stored_bytes, data_offset: Where the content lies in the archive.
        xattrs: Full attribute name to value.
        sparse: Data segments of a sparse file, or None.
    """

    ordinal: int
    name: bytes
    kind: EntryKind
    link: bytes
    mode: int
    uid: int
    gid: int
    mtime_s: int
    device: tuple[int, int]
    size_bytes: int
    stored_bytes: int
    data_offset: int
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    sparse: SparseMap | None = None


class TarReader:
    """Iterates over the entries of one archive.

    Content of the entry just yielded is read by `content()`, or skipped by going on.

    Args:
        what: Names the archive in messages.
        needs_end_mark: Refuse an archive that just stops after an entry. Set it where no digest
            vouches for completeness.
    """

    def __init__(self, source: Source, *, what: str, needs_end_mark: bool = False) -> None:
        self._source = source
        self._what = what
        self._needs_end_mark = needs_end_mark
        self._position = 0
        self._count = 0
        self._current: TarEntry | None = None
        self._unread_bytes = 0  # stored bytes of the current entry, with padding
        self._padding_bytes = 0

    def __iter__(self) -> Iterator[TarEntry]:
        """Yield every entry in archive order.

        Raises:
            CorruptData: Damaged, truncated or unknown structure.
        """
        while (entry := self._next()) is not None:
            yield entry

    def content(self) -> Iterator[bytes]:
        """The current entry's content in chunks; holes come as zeros."""
        entry = self._current
        if entry is None or entry.kind is not EntryKind.FILE:
            return
        if entry.sparse is None:
            yield from self._stored(entry.stored_bytes)
        else:
            yield from self._expand_sparse(entry.sparse)

    def _expand_sparse(self, sparse: SparseMap) -> Iterator[bytes]:
        position = 0
        for offset, length in sparse.segments:
            yield from _zeros(offset - position)
            yield from self._stored(length)
            position = offset + length
        yield from _zeros(sparse.real_bytes - position)

    def _stored(self, size: int) -> Iterator[bytes]:
        while size > 0:
            data = self._source.read(min(size, CHUNK_BYTES))
            if not data:
                raise self._truncated()
            size -= len(data)
            self._position += len(data)
            self._unread_bytes -= len(data)
            yield data

    def _next(self) -> TarEntry | None:
        self._skip(self._unread_bytes + self._padding_bytes)
        self._unread_bytes = self._padding_bytes = 0
        self._current = None
        pax: dict[bytes, bytes] = {}
        pax_sparse: list[tuple[bytes, bytes]] = []
        for _ in range(EXTENSIONS_IN_A_ROW_MAX):
            header = self._header()
            if header is None:
                if pax:
                    raise CorruptData(f"{self._what}: ends after an extended header")
                return None
            flag = header[156:157]
            if flag in b"xXgLKV":
                self._extension(flag, header, pax, pax_sparse)
                continue
            self._current = self._entry(header, pax, pax_sparse)
            return self._current
        raise CorruptData(
            f"{self._what}: more than {EXTENSIONS_IN_A_ROW_MAX} extended headers in a row "
            f"at offset {self._position}"
        )

    def _header(self) -> bytes | None:
        """The next header block, or None at the end of the archive."""
        block = self._exactly(BLOCK_BYTES, at_end_ok=True)
        if not block:
            if self._needs_end_mark:
                raise CorruptData(
                    f"{self._what}: ends without tar's end mark (two zero blocks)",
                    advice="The archive was probably cut short; make or send it again.",
                )
            return None
        if block == _ZERO_BLOCK:
            second = self._exactly(BLOCK_BYTES, at_end_ok=True)
            if second and second != _ZERO_BLOCK:
                raise CorruptData(f"{self._what}: data after half an end mark")
            return None
        self._verify_checksum(block)
        return block

    def _verify_checksum(self, block: bytes) -> None:
        stated = self._number(block, 148, 8, "checksum")
        blanked = block[:148] + b"        " + block[156:]
        if stated == sum(blanked):
            return
        signed = sum(byte - 256 if byte > 127 else byte for byte in blanked)
        if stated != signed:  # some old Unix tars summed signed characters
            raise CorruptData(
                f"{self._what}: bad header checksum at offset {self._position - BLOCK_BYTES}",
                advice="This is no tar archive, or it was damaged on the way.",
            )

    def _extension(
        self,
        flag: bytes,
        header: bytes,
        pax: dict[bytes, bytes],
        pax_sparse: list[tuple[bytes, bytes]],
    ) -> None:
        size = self._number(header, 124, 12, "size")
        if flag == b"V":  # a volume label: no content that means anything
            self._skip(_padded(size))
            return
        if size > EXTENSION_MAX_BYTES:
            raise CorruptData(
                f"{self._what}: extended header of {size:,} bytes at offset {self._position}"
            )
        data = self._exactly(_padded(size))[:size]
        if flag == b"L":
            pax[b"path"] = data.rstrip(b"\0")
        elif flag == b"K":
            pax[b"linkpath"] = data.rstrip(b"\0")
        elif flag != b"g":  # Docker ignores global headers (git archive writes a comment)
            for key, value in self._pax_records(data):
                if key.startswith(SPARSE_KEYS):
                    pax_sparse.append((key, value))
                else:
                    pax[key] = value

    def _pax_records(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        position = 0
        while position < len(data):
            space = data.find(b" ", position, position + 20)
            length_text = data[position:space] if space > 0 else b""
            length = int(length_text) if length_text.isdigit() else 0
            record = data[space + 1 : position + length]
            key, equals, value = record.partition(b"=")
            if length <= space + 1 - position or not record.endswith(b"\n") or not equals:
                raise CorruptData(f"{self._what}: bad PAX record before offset {self._position}")
            if position + length > len(data) or not key:
                raise CorruptData(f"{self._what}: bad PAX record before offset {self._position}")
            yield key, value[:-1]
            position += length

    def _entry(
        self, header: bytes, pax: dict[bytes, bytes], pax_sparse: list[tuple[bytes, bytes]]
    ) -> TarEntry:
        flag = header[156:157]
        name = pax.get(b"path") or _header_name(header)
        kind = _KINDS.get(flag)
        if kind is None:
            raise CorruptData(f"{self._what}: entry {shown(name)} has unknown type {shown(flag)}")
        if kind is EntryKind.FILE and flag in b"\x000" and name.endswith(b"/"):
            kind = EntryKind.DIRECTORY  # v7 has no flag for directories
        stored = 0
        if kind is EntryKind.FILE:
            stored = self._pax_number(pax, b"size", self._number(header, 124, 12, "size"))
        entry = TarEntry(
            ordinal=self._count,
            name=name,
            kind=kind,
            link=pax.get(b"linkpath") or header[157:257].partition(b"\0")[0],
            mode=self._number(header, 100, 8, "mode") & 0o7777,
            uid=self._pax_number(pax, b"uid", self._number(header, 108, 8, "uid")),
            gid=self._pax_number(pax, b"gid", self._number(header, 116, 8, "gid")),
            mtime_s=self._pax_number(pax, b"mtime", self._number(header, 136, 12, "mtime")),
            device=self._device(header, kind),
            size_bytes=stored,
            stored_bytes=stored,
            data_offset=self._position,
            xattrs={
                key[len(_XATTR_PREFIX) :]: value
                for key, value in pax.items()
                if key.startswith(_XATTR_PREFIX)
            },
        )
        self._count += 1
        self._unread_bytes = stored
        self._padding_bytes = _padded(stored) - stored
        if kind is EntryKind.FILE and (flag == b"S" or pax_sparse):
            self._apply_sparse(entry, header, pax_sparse)
        return entry

    def _device(self, header: bytes, kind: EntryKind) -> tuple[int, int]:
        if kind not in (EntryKind.CHAR_DEVICE, EntryKind.BLOCK_DEVICE):
            return (0, 0)
        return (
            self._number(header, 329, 8, "device number"),
            self._number(header, 337, 8, "device number"),
        )

    def _apply_sparse(
        self, entry: TarEntry, header: bytes, pax_sparse: list[tuple[bytes, bytes]]
    ) -> None:
        before = self._position
        what = f"{self._what}: entry {shown(entry.name)}"
        if header[156:157] == b"S":
            entry.sparse = parse_gnu_sparse(header, lambda: self._exactly(BLOCK_BYTES), what=what)
        else:
            entry.sparse = parse_pax_sparse(
                pax_sparse, entry.stored_bytes, lambda: self._exactly(BLOCK_BYTES), what=what
            )
            # Map blocks of format 1.0 are part of the stored size; GNU's own come before it.
            entry.stored_bytes -= self._position - before
        self._unread_bytes = entry.stored_bytes
        self._padding_bytes = -entry.stored_bytes % BLOCK_BYTES
        entry.data_offset = self._position
        entry.size_bytes = entry.sparse.real_bytes
        entry.name = entry.sparse.name or entry.name
        entry.sparse.validate(entry.stored_bytes, what=what)

    def _pax_number(self, pax: dict[bytes, bytes], key: bytes, default: int) -> int:
        text = pax.get(key)
        if not text:
            return default
        whole, _, fraction = text.partition(b".")
        digits = whole.removeprefix(b"-")
        if len(digits) > 20 or not digits.isdigit() or (fraction and not fraction.isdigit()):
            raise CorruptData(f"{self._what}: PAX {key.decode()} is {shown(text)}")
        return max(int(whole), 0) if key == b"mtime" else self._unsigned(int(whole), key.decode())

    def _number(self, block: bytes, offset: int, length: int, what: str) -> int:
        raw = block[offset : offset + length]
        if raw[0] & 0x80:  # GNU base-256, two's complement
            value = int.from_bytes(raw, "big") & ~(1 << (8 * length - 1))
            if raw[0] & 0x40:
                value -= 1 << (8 * length - 1)
            return max(value, 0) if what == "mtime" else self._unsigned(value, what)
        text = raw.strip(b" \0")
        if not text:
            return 0
        if text.translate(None, b"01234567"):
            raise CorruptData(
                f"{self._what}: bad {what} {shown(raw)} in the header at offset "
                f"{self._position - BLOCK_BYTES}"
            )
        return int(text, 8)

    def _unsigned(self, value: int, what: str) -> int:
        if not 0 <= value < 2**63:
            raise CorruptData(f"{self._what}: {what} {value} before offset {self._position}")
        return value

    def _exactly(self, size: int, *, at_end_ok: bool = False) -> bytes:
        data = self._source.read(size)
        while 0 < len(data) < size:
            more = self._source.read(size - len(data))
            if not more:
                break
            data += more
        if len(data) < size and not (at_end_ok and not data):
            raise self._truncated()
        self._position += len(data)
        return data

    def _skip(self, size: int) -> None:
        skip = getattr(self._source, "skip", None)
        while size > 0:
            if skip is not None:
                step = skip(size)
            else:
                step = len(self._source.read(min(size, CHUNK_BYTES)))
            if step <= 0:
                raise self._truncated()
            self._position += step
            size -= step

    def _truncated(self) -> CorruptData:
        where = f" in entry {shown(self._current.name)}" if self._current is not None else ""
        return CorruptData(
            f"{self._what}: the tar archive ends too early, at offset {self._position}{where}",
            advice="The archive was cut short or damaged on the way; make or send it again.",
        )


def looks_like_tar(block: bytes) -> bool:
    """Whether a file's first block may be a tar header (or the end mark of an empty tar)."""
    if len(block) < BLOCK_BYTES:
        return False
    stated = block[148:156].strip(b" \0")
    if not stated or stated.translate(None, b"01234567"):
        return block == _ZERO_BLOCK
    total = sum(block[:148]) + sum(block[156:BLOCK_BYTES]) + 8 * ord(" ")
    # Signed sums differ by a multiple of 256: the reader proper checks exactly.
    return (total - int(stated, 8)) % 256 == 0


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _zeros(size: int) -> Iterator[bytes]:
    chunk = bytes(min(size, CHUNK_BYTES)) if size > 0 else b""
    while size > 0:
        yield chunk[:size]
        size -= len(chunk)


def _header_name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and prefix:
        return prefix + b"/" + name
    return name
