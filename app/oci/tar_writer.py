"""Writes the plain tar that `sqfstar` is given: ustar headers, PAX where ustar is too small."""

from collections.abc import Mapping

from app.oci.tar_reader import BLOCK_BYTES, EntryKind

END_MARK = bytes(2 * BLOCK_BYTES)

_FLAGS = {
    EntryKind.FILE: b"0",
    EntryKind.HARD_LINK: b"1",
    EntryKind.SYMLINK: b"2",
    EntryKind.CHAR_DEVICE: b"3",
    EntryKind.BLOCK_DEVICE: b"4",
    EntryKind.DIRECTORY: b"5",
    EntryKind.FIFO: b"6",
}
_NAME_MAX = 100
_OCTAL_7_MAX = 8**7 - 1
_OCTAL_11_MAX = 8**11 - 1


def tar_header(
    path: bytes,
    kind: EntryKind,
    *,
    mode: int = 0o755,
    uid: int = 0,
    gid: int = 0,
    mtime_s: int = 0,
    size_bytes: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """The header blocks of one entry; content and its padding are the caller's."""
    records: dict[bytes, bytes] = {}
    if len(path) > _NAME_MAX:
        records[b"path"] = path
    if len(link) > _NAME_MAX:
        records[b"linkpath"] = link
    if size_bytes > _OCTAL_11_MAX:
        records[b"size"] = b"%d" % size_bytes
    for key, value in ((b"uid", uid), (b"gid", gid)):
        if value > _OCTAL_7_MAX:
            records[key] = b"%d" % value
    for name, content in sorted((xattrs or {}).items()):
        records[b"SCHILY.xattr." + name] = content
    header = _ustar(path, _FLAGS[kind], mode, uid, gid, mtime_s, size_bytes, link, device)
    return _pax(records) + header if records else header


def padding(size_bytes: int) -> bytes:
    """Zeros after content of that size."""
    return bytes(-size_bytes % BLOCK_BYTES)


def _octal(value: int, digits: int) -> bytes:
    return b"%0*o\0" % (digits, value if value < 8**digits else 0)


def _ustar(
    path: bytes,
    flag: bytes,
    mode: int,
    uid: int,
    gid: int,
    mtime_s: int,
    size_bytes: int,
    link: bytes,
    device: tuple[int, int],
) -> bytes:
    head = b"".join(
        (
            path[:_NAME_MAX].ljust(_NAME_MAX, b"\0"),
            _octal(mode, 7),
            _octal(uid, 7),
            _octal(gid, 7),
            _octal(size_bytes, 11),
            _octal(mtime_s, 11),
        )
    )
    tail = b"".join(
        (
            flag,
            link[:_NAME_MAX].ljust(_NAME_MAX, b"\0"),
            b"ustar\x0000",
            bytes(64),
            _octal(device[0], 7),
            _octal(device[1], 7),
            bytes(167),
        )
    )
    checksum = sum(head) + sum(tail) + 8 * ord(" ")
    return head + b"%06o\0 " % checksum + tail


def _pax(records: Mapping[bytes, bytes]) -> bytes:
    body = b"".join(_record(key, value) for key, value in records.items())
    header = _ustar(b"PaxHeader", b"x", 0o644, 0, 0, 0, len(body), b"", (0, 0))
    return header + body + padding(len(body))


def _record(key: bytes, value: bytes) -> bytes:
    """`<length> <key>=<value>` and a newline; the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)
