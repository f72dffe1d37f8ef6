"""The files of a fake container: a small tree in memory, and the tree operations on it.

It resolves symbolic links as the agent does, inside the tree. Shared by every life of a container's
VM, as a scratch disk is.
"""

import contextlib
import errno
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from app.guest.fake_process import FakeProcess
from app.guest.fields import Fields
from app.guest.protocol import MAX_TREE_DATA_BYTES, ChangeKind, Op, Tag, TreeView
from app.guest.tree_records import (
    TreeData,
    TreeDecoder,
    TreeEnd,
    TreeEntry,
    TreeRecord,
    encode_tree_record,
)

_LINKS_MAX = 40
_BUILT_AT_NS = 1_700_000_000 * 10**9


class TreeError(Exception):
    """An operation's errno and message."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number
        self.message = message


@dataclass(frozen=True, slots=True)
class FakeFile:
    """A node; its entry's name is its path without the first slash."""

    entry: TreeEntry
    data: bytes = b""


def _directory(name: bytes, mode: int = 0o755) -> FakeFile:
    return FakeFile(TreeEntry(name, stat.S_IFDIR | mode, mtime_ns=_BUILT_AT_NS))


def _file(name: bytes, data: bytes) -> FakeFile:
    entry = TreeEntry(name, stat.S_IFREG | 0o644, mtime_ns=_BUILT_AT_NS, size_bytes=len(data))
    return FakeFile(entry, data)


def _link(name: bytes, target: bytes) -> FakeFile:
    return FakeFile(TreeEntry(name, stat.S_IFLNK | 0o777, mtime_ns=_BUILT_AT_NS, link=target))


_IMAGE = {
    node.entry.name: node
    for node in (
        _directory(b"etc"),
        _file(b"etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
        _directory(b"tmp", 0o1777),
        _directory(b"var"),
        _link(b"var/temporary", b"/tmp"),
        _link(b"outside", b"../../../etc"),
    )
}


class FakeTree:
    """The files, by path without the first slash; the top is not among them."""

    def __init__(self) -> None:
        self.files: dict[bytes, FakeFile] = dict(_IMAGE)

    def resolve(self, path: bytes, *, follow: bool = True) -> bytes:
        """Where a path leads: "" is the top.

        Raises:
            TreeError: ENOENT, ENOTDIR or ELOOP.
        """
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        at, links = b"", 0
        while parts:
            part = parts.pop(0)
            if part == b"..":
                at = at.rpartition(b"/")[0]
                continue
            if at and not self.files[at].entry.is_directory:
                raise TreeError(errno.ENOTDIR, f"{path!r}: not a directory")
            child = at + b"/" + part if at else part
            node = self.files.get(child)
            if node is None:
                raise TreeError(errno.ENOENT, f"{path!r}: no such file or directory")
            if stat.S_ISLNK(node.entry.mode) and (parts or follow):
                links += 1
                if links > _LINKS_MAX:
                    raise TreeError(errno.ELOOP, f"{path!r}: too many links")
                target = node.entry.link
                parts = [each for each in target.split(b"/") if each not in (b"", b".")] + parts
                at = b"" if target.startswith(b"/") else at
                continue
            at = child
        return at

    def put(self, node: FakeFile) -> None:
        """Add a node, or replace what is there and all below it."""
        name = node.entry.name
        if not node.entry.is_directory or name not in self.files:
            self.remove(name)
        self.files[name] = node

    def remove(self, name: bytes) -> None:
        """Take a node and all below it away."""
        for each in [each for each in self.files if each == name or each.startswith(name + b"/")]:
            del self.files[each]

    def below(self, top: bytes) -> list[bytes]:
        """All paths below `top`, each directory's in order and after it."""
        start = top + b"/" if top else b""
        found = [each for each in self.files if each.startswith(start) and each != top]
        return sorted(found, key=lambda each: each.split(b"/"))

    def changes(self) -> list[FakeFile]:
        """What differs from the image, as an upper layer has it."""
        upper = [node for name, node in self.files.items() if _IMAGE.get(name) is not node]
        for name in _IMAGE:
            if name not in self.files and name.rpartition(b"/")[0] in {b"", *self.files}:
                upper.append(FakeFile(TreeEntry(name, stat.S_IFCHR)))
        names = {node.entry.name for node in upper}
        for name in sorted(names):
            while (name := name.rpartition(b"/")[0]) and name not in names:
                names.add(name)
                upper.append(self.files[name])
        return sorted(upper, key=lambda node: node.entry.name.split(b"/"))

    def program(self, fields: Fields) -> Callable[[FakeProcess], Awaitable[int]]:
        """The operation as a program of the fake guest."""
        op = fields.number(Tag.OP)
        path = fields.data(Tag.PATH)
        follow, keep_kinds = fields.flag(Tag.FOLLOW), fields.flag(Tag.KEEP_KINDS)

        async def run(process: FakeProcess) -> int:
            end = TreeEnd()
            try:
                if op == Op.WRITE_TREE:
                    await _Writer(self, self._directory(path), path, keep_kinds).run(process)
                elif op == Op.LIST_CHANGES:
                    await _put(process, *map(_change, self.changes()))
                elif fields.number(Tag.VIEW) == TreeView.UPPER:
                    await _put(process, _directory(b".").entry)
                    for node in self.changes():
                        await _put_node(process, node)
                else:
                    await self._read(process, path, follow, only_stat=op == Op.STAT_PATH)
            except TreeError as error:
                end = TreeEnd(error.errno, error.message)
            await _put(process, end)
            return 0

        return run

    def _directory(self, path: bytes) -> bytes:
        at = self.resolve(path)
        if at and not self.files[at].entry.is_directory:
            raise TreeError(errno.ENOTDIR, "extraction point is not a directory")
        return at

    async def _read(
        self, process: FakeProcess, path: bytes, follow: bool, *, only_stat: bool
    ) -> None:
        at = self.resolve(path, follow=follow)
        top = self.files[at] if at else _directory(b"")
        name = path.rstrip(b"/").rpartition(b"/")[2] or b"."
        if only_stat:
            entry = replace(top.entry, name=name, link=b"")
            if stat.S_ISLNK(top.entry.mode):
                with contextlib.suppress(TreeError):
                    entry = replace(entry, link=b"/" + self.resolve(path))
            await _put(process, entry)
            return
        top_name = b"." if top.entry.is_directory else name
        await _put_node(process, replace(top, entry=replace(top.entry, name=top_name)))
        if not top.entry.is_directory:
            return
        for each in self.below(at):
            node = self.files[each]
            inner = each[len(at) + 1 :] if at else each
            await _put_node(process, replace(node, entry=replace(node.entry, name=inner)))


class _Writer:
    def __init__(self, tree: FakeTree, base: bytes, path: bytes, keep_kinds: bool) -> None:
        self._tree = tree
        self._base = base
        self._path = path
        self._keep_kinds = keep_kinds
        self._name = b""  # of the file that data belongs to

    async def run(self, process: FakeProcess) -> None:
        decoder = TreeDecoder()
        while data := await process.read(65536):
            for record in decoder.feed(data):
                if isinstance(record, TreeEnd):
                    return
                if isinstance(record, TreeData):
                    self._data(record)
                else:
                    self._entry(record)
        raise TreeError(errno.EPIPE, "the entries were cut off")

    def _place(self, name: bytes) -> bytes:
        parent, _, last = name.rpartition(b"/")
        at = self._base
        for part in filter(None, parent.split(b"/")):
            child = at + b"/" + part if at else part
            if child not in self._tree.files:
                self._tree.put(_directory(child))
            at = self._tree.resolve(child)
        return at + b"/" + last if at else last

    def _entry(self, entry: TreeEntry) -> None:
        name = entry.name.rstrip(b"/").removeprefix(b"./")
        if name == b".":
            return
        place = self._place(name)
        there = self._tree.files.get(place)
        if there is not None and self._keep_kinds:
            where = f'"/{place.decode()}"', f'"{self._path.decode()}"'
            if there.entry.is_directory and not entry.is_directory:
                text = "cannot overwrite directory {} with non-directory {}"
                raise TreeError(errno.EISDIR, text.format(*where))
            if entry.is_directory and not there.entry.is_directory:
                text = "cannot overwrite non-directory {} with directory {}"
                raise TreeError(errno.ENOTDIR, text.format(*where))
        if entry.is_hard_link:
            target = self._tree.files[self._place(entry.link)]
            key = target.entry.file_key or target.entry.name[-64:]
            shared = replace(target, entry=replace(target.entry, file_key=key))
            self._tree.files[target.entry.name] = shared
            self._tree.put(replace(shared, entry=replace(shared.entry, name=place)))
            return
        size = entry.size_bytes if entry.is_file else 0
        self._tree.put(FakeFile(replace(entry, name=place), bytes(size)))
        self._name = place

    def _data(self, record: TreeData) -> None:
        node = self._tree.files[self._name]
        end = record.offset + len(record.data)
        data = node.data[: record.offset] + record.data + node.data[end:]
        self._tree.files[self._name] = replace(node, data=data)


def _change(node: FakeFile) -> TreeEntry:
    name = node.entry.name
    if node.entry.is_whiteout:
        kind = ChangeKind.DELETED
    elif name not in _IMAGE:
        kind = ChangeKind.ADDED
    else:
        kind = ChangeKind.SAME if _IMAGE[name] is node else ChangeKind.MODIFIED
    return replace(node.entry, change=kind)


async def _put(process: FakeProcess, *records: TreeRecord) -> None:
    for record in records:
        await process.write(encode_tree_record(record))


async def _put_node(process: FakeProcess, node: FakeFile) -> None:
    await _put(process, node.entry)
    for start in range(0, len(node.data), MAX_TREE_DATA_BYTES):
        await _put(process, TreeData(start, node.data[start : start + MAX_TREE_DATA_BYTES]))
