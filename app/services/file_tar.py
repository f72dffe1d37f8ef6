"""Trees of a guest as tar, made and read on the host, piece by piece."""

import asyncio
import contextlib
import posixpath
import stat
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import Future

from app.core.errors import CorruptData, DeadlineExceeded, InvalidArgument
from app.core.units import MIB
from app.guest.protocol import MAX_TREE_DATA_BYTES
from app.guest.tree_records import NAME_MAX_BYTES, TreeData, TreeEntry, is_inside
from app.oci.compression import SNIFF_BYTES, detect_compression, open_decompressed
from app.oci.streams import Source
from app.oci.tar_reader import EntryKind, TarEntry, TarReader
from app.oci.tar_writer import END_MARK, padding, tar_header

CHUNK_BYTES = 64 * 1024
BATCH_BYTES = MIB
BATCH_RECORDS = 256
UPLOAD_TIMEOUT_S = 120.0
# Names of files that have several; beyond it a further name is a file of its own in the archive.
LINKED_NAMES_MAX_BYTES = 32 * MIB
WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
NS_PER_S = 1_000_000_000

_KINDS = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFLNK: EntryKind.SYMLINK,
    stat.S_IFCHR: EntryKind.CHAR_DEVICE,
    stat.S_IFBLK: EntryKind.BLOCK_DEVICE,
    stat.S_IFIFO: EntryKind.FIFO,
}
_TYPES = {kind: number for number, kind in _KINDS.items()}


class TreeTar:
    """Writes entries as tar.

    Args:
        rename: From an entry's name to its name in the archive; None leaves it (and its content)
            out.
        is_layer: Whiteouts and opaque directories of an upper layer become OCI's.
    """

    def __init__(
        self, rename: Callable[[TreeEntry], bytes | None], *, is_layer: bool = False
    ) -> None:
        self._rename = rename
        self._is_layer = is_layer
        self._first_names: dict[bytes, bytes] = {}
        self._first_names_bytes = 0
        self._open: TreeEntry | None = None  # a file whose content is being written
        self._written_bytes = 0

    def feed(self, record: TreeEntry | TreeData) -> Iterator[bytes]:
        """The archive's next pieces."""
        if isinstance(record, TreeEntry):
            yield from self._close()
            yield from self._entry(record)
        elif self._open is not None:
            yield from _zeros(record.offset - self._written_bytes)
            yield record.data
            self._written_bytes = record.offset + len(record.data)

    def finish(self) -> Iterator[bytes]:
        """The archive's end."""
        yield from self._close()
        yield END_MARK

    def _close(self) -> Iterator[bytes]:
        if self._open is not None:
            size = self._open.size_bytes
            yield from _zeros(size - self._written_bytes)
            yield padding(size)
        self._open = None

    def _entry(self, entry: TreeEntry) -> Iterator[bytes]:
        name = self._rename(entry)
        if name is None:
            return
        if self._is_layer and entry.is_whiteout:
            directory, slash, last = name.rpartition(b"/")
            yield tar_header(directory + slash + WHITEOUT + last, EntryKind.FILE, mode=0o600)
            return
        first = self._first_names.get(entry.file_key) if entry.file_key else None
        if first is not None:
            yield _header(name, EntryKind.HARD_LINK, entry, link=first)
            return
        if entry.file_key and self._first_names_bytes < LINKED_NAMES_MAX_BYTES:
            self._first_names[entry.file_key] = name
            self._first_names_bytes += len(entry.file_key) + len(name)
        kind = _KINDS[stat.S_IFMT(entry.mode)]
        if kind is EntryKind.DIRECTORY and not name.endswith(b"/"):
            name += b"/"
        yield _header(name, kind, entry, link=entry.link)
        if kind is EntryKind.FILE:
            self._open, self._written_bytes = entry, 0
        elif self._is_layer and entry.is_opaque:
            yield tar_header(name + OPAQUE, EntryKind.FILE, mode=0o600)


def _header(name: bytes, kind: EntryKind, entry: TreeEntry, *, link: bytes) -> bytes:
    return tar_header(
        name,
        kind,
        mode=entry.mode & 0o7777,
        uid=entry.uid,
        gid=entry.gid,
        mtime_s=entry.mtime_ns // NS_PER_S,
        size_bytes=entry.size_bytes if kind is EntryKind.FILE else 0,
        link=link if kind in (EntryKind.HARD_LINK, EntryKind.SYMLINK) else b"",
        device=entry.device,
        xattrs=dict(entry.xattrs) if kind is not EntryKind.HARD_LINK else {},
    )


def _zeros(size: int) -> Iterator[bytes]:
    chunk = bytes(min(size, CHUNK_BYTES)) if size > 0 else b""
    while size > 0:
        yield chunk[:size]
        size -= len(chunk)


def tree_of_tar(source: Source, *, what: str) -> Iterator[TreeEntry | TreeData]:
    """Read an archive, packed or not, as what WRITE_TREE takes; runs in a thread.

    Raises:
        CorruptData: It is no tar, or damaged.
        InvalidArgument: A name leads out of the directory that it is for.
    """
    head = _Head(source)
    plain = open_decompressed(head, detect_compression(head.peek(SNIFF_BYTES)), what=what)
    reader = TarReader(plain, what=what)
    for member in reader:
        entry = _tree_entry(member)
        yield entry
        if member.kind is EntryKind.FILE:
            position = 0
            for chunk in reader.content():
                for at in range(0, len(chunk), MAX_TREE_DATA_BYTES):
                    piece = chunk[at : at + MAX_TREE_DATA_BYTES]
                    if piece.count(0) != len(piece):  # else it may be a hole
                        yield TreeData(position + at, piece)
                position += len(chunk)


def _tree_entry(member: TarEntry) -> TreeEntry:
    name = _inside(member.name, b"file")
    is_hard_link = member.kind is EntryKind.HARD_LINK
    link = member.link
    if is_hard_link:
        link = _inside(link, b"link")
    if member.uid >= 2**32 - 1 or member.gid >= 2**32 - 1 or member.mtime_s >= 2**33:
        raise InvalidArgument(f"{_shown(name)}: owner or time is out of range")
    if len(link) > NAME_MAX_BYTES or (member.kind is EntryKind.SYMLINK and not link):
        raise InvalidArgument(f"{_shown(name)}: the link is empty or too long")
    kind = stat.S_IFREG if is_hard_link else _TYPES[member.kind]
    return TreeEntry(
        name=name,
        mode=kind | member.mode,
        uid=member.uid,
        gid=member.gid,
        mtime_ns=member.mtime_s * NS_PER_S,
        size_bytes=member.size_bytes if member.kind is EntryKind.FILE else 0,
        link=link if is_hard_link or member.kind is EntryKind.SYMLINK else b"",
        is_hard_link=is_hard_link,
        device=(member.device[0] & 0xFFF, member.device[1] & 0xFFFFF),
        xattrs=tuple(member.xattrs.items()),
    )


def _inside(name: bytes, what: bytes) -> bytes:
    """A clean relative name; absolute ones are meant from the target directory on, as in Docker."""
    clean = posixpath.normpath(name.lstrip(b"/") or b".")
    if not is_inside(clean):
        raise InvalidArgument(f"{_shown(name)}: {what.decode()} name leads out of its directory")
    return clean


def _shown(name: bytes) -> str:
    return name[:200].decode("utf-8", "backslashreplace")


class _Head:
    """A source whose first bytes can be looked at."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._held = b""

    def peek(self, size: int) -> bytes:
        while len(self._held) < size and (data := self._source.read(size - len(self._held))):
            self._held += data
        return self._held

    def read(self, size: int, /) -> bytes:
        if self._held:
            data, self._held = self._held[:size], self._held[size:]
            return data
        return self._source.read(size)


class _Upload:
    """Chunks of the event loop as a source for a thread."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting: Future[bytes] | None = None
        self._is_closed = False
        self._held = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        while not self._held:
            with self._lock:
                if self._is_closed:
                    raise CorruptData("the upload was broken off")
                waiting = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
                self._waiting = waiting
            try:
                data = waiting.result(UPLOAD_TIMEOUT_S)
            except TimeoutError as error:
                waiting.cancel()
                raise DeadlineExceeded("The upload has stalled") from error
            except BaseException as error:
                if waiting.cancelled():
                    raise CorruptData("the upload was broken off") from error
                raise
            if not data:
                return b""
            self._held = memoryview(data)
        data, self._held = bytes(self._held[:size]), self._held[size:]
        return data

    async def _next(self) -> bytes:
        async for chunk in self._chunks:
            if chunk:
                return chunk
        return b""

    def close(self) -> None:
        """Let a thread that waits in `read` fail."""
        with self._lock:
            self._is_closed = True
            if self._waiting is not None:
                self._waiting.cancel()


async def upload_records(
    chunks: AsyncIterator[bytes], *, what: str
) -> AsyncGenerator[list[TreeEntry | TreeData]]:
    """An uploaded archive's records, a batch at a time.

    Raises:
        CorruptData, InvalidArgument: As `tree_of_tar`.
        DeadlineExceeded: The upload has stalled.
    """
    upload = _Upload(chunks)
    records = tree_of_tar(upload, what=what)
    try:
        while True:
            reading = asyncio.ensure_future(asyncio.to_thread(_batch, records))
            try:
                batch = await asyncio.shield(reading)
            except asyncio.CancelledError:
                upload.close()
                with contextlib.suppress(Exception):
                    await reading
                raise
            if not batch:
                return
            yield batch
    finally:
        upload.close()


def _batch(records: Iterator[TreeEntry | TreeData]) -> list[TreeEntry | TreeData]:
    batch: list[TreeEntry | TreeData] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record.data) if isinstance(record, TreeData) else 0
        if size >= BATCH_BYTES or len(batch) >= BATCH_RECORDS:
            break
    return batch
