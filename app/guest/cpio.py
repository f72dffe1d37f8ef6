"""Writer of the cpio "newc" archive that the kernel unpacks as its initramfs.

The bytes depend on the entries alone: entries are sorted, inode numbers count up, every time stamp
is the caller's. Format: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

from app.core.errors import InvalidArgument

_ALIGNMENT_BYTES = 4
# The kernel pads archives to this; cpio tools do too.
_BLOCK_BYTES = 512
_MAX_FIELD = 0xFFFF_FFFF
_TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Entry:
    """One file of the archive.

    Attributes:
        path: Relative to the root, without `.` or `..`, e.g. `etc/hostname`.
        mode: File type and permission bits, as in `st_mode`.
        data: Contents of a regular file, target of a symbolic link, else empty.
        device: Major and minor number of a device node.
    """

    path: str
    mode: int
    data: bytes = b""
    uid: int = 0
    gid: int = 0
    device: tuple[int, int] = (0, 0)


def file_entry(path: str, data: bytes, permissions: int = 0o644) -> Entry:
    """A regular file owned by root."""
    return Entry(path, stat.S_IFREG | permissions, data)


def directory_entry(path: str, permissions: int = 0o755) -> Entry:
    """A directory owned by root."""
    return Entry(path, stat.S_IFDIR | permissions)


def symlink_entry(path: str, target: str) -> Entry:
    """A symbolic link owned by root."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device_entry(path: str, major: int, minor: int, permissions: int) -> Entry:
    """A character device node owned by root."""
    return Entry(path, stat.S_IFCHR | permissions, device=(major, minor))


def write_newc(entries: Iterable[Entry], output: BinaryIO, *, mtime_s: int) -> None:
    """Write a whole archive, trailer included, to `output`.

    Missing parent directories are added as root's, mode 0755. A directory stands before what it
    holds, since the kernel creates nothing on the way.

    Args:
        entries: In any order.
        output: Written sequentially.
        mtime_s: Time stamp of every entry, seconds since the epoch.

    Raises:
        InvalidArgument: A path is absolute, empty, leaves the root or occurs twice, an entry lies
            under something that is no directory, or a number does not fit the format.
    """
    tree = _complete_tree(entries)
    position = 0
    for inode, path in enumerate(sorted(tree, key=lambda path: path.split("/")), start=1):
        position += _write_entry(output, tree[path], inode=inode, mtime_s=mtime_s)
    position += _write_entry(output, Entry(_TRAILER, 0), inode=0, mtime_s=0)
    output.write(b"\0" * (-position % _BLOCK_BYTES))


def _complete_tree(entries: Iterable[Entry]) -> dict[str, Entry]:
    tree: dict[str, Entry] = {}
    for entry in entries:
        _check_path(entry.path)
        if entry.path in tree:
            raise InvalidArgument(f"/{entry.path} is in the guest image twice", field="files")
        tree[entry.path] = entry
    for path in list(tree):
        parent = path.rpartition("/")[0]
        while parent:
            holder = tree.setdefault(parent, directory_entry(parent))
            if not stat.S_ISDIR(holder.mode):
                raise InvalidArgument(
                    f"/{path} cannot be placed in the guest image: /{parent} is no directory",
                    field="files",
                )
            parent = parent.rpartition("/")[0]
    return tree


def _check_path(path: str) -> None:
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts) or path == _TRAILER:
        raise InvalidArgument(
            f"{path!r} is no path inside the guest image",
            field="files",
            advice="Write it relative to the root, without '.' and '..'.",
        )


def _write_entry(output: BinaryIO, entry: Entry, *, inode: int, mtime_s: int) -> int:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        inode,
        entry.mode,
        entry.uid,
        entry.gid,
        links,
        mtime_s,
        len(entry.data),
        0,  # device that holds the file: none
        0,
        *entry.device,
        len(name),
        0,  # checksum: unused in this variant
    )
    if any(not 0 <= field <= _MAX_FIELD for field in fields):
        raise InvalidArgument(
            f"/{entry.path} has an owner, size or time that does not fit the cpio format",
            field="files",
        )
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _write_padded(output, header + name) + _write_padded(output, entry.data)


def _write_padded(output: BinaryIO, data: bytes) -> int:
    padding = b"\0" * (-len(data) % _ALIGNMENT_BYTES)
    output.write(data)
    output.write(padding)
    return len(data) + len(padding)
