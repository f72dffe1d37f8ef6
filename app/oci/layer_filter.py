"""Second pass over a layer: the tar that `sqfstar` turns into the layer's disk.

Every final name comes exactly once, with its parents described, whiteouts in overlayfs's form
(0:0 character devices; trusted.overlay.opaque=y on directories), and nothing else: the output is a
function of the layer's bytes alone. Linux kernel, Documentation/filesystems/overlayfs.rst,
"whiteouts and opaque directories".
"""

from collections.abc import Iterator

from app.oci.layer_index import LayerIndex, clamp_time
from app.oci.tar_reader import EntryKind, TarEntry, TarReader
from app.oci.tar_writer import END_MARK, padding, tar_header

OPAQUE_XATTR = b"trusted.overlay.opaque"
_OVERLAY_PREFIXES = (b"trusted.overlay.", b"user.overlay.")
_KEPT_PREFIXES = (b"user.", b"trusted.", b"security.")  # what squashfs can store


def filter_layer(reader: TarReader, index: LayerIndex) -> Iterator[bytes]:
    """Yield the rewritten tar in chunks.

    Args:
        reader: The layer again, from its beginning.
        index: What the first pass over the same bytes found.
    """
    for path in index.implied_directories():
        yield tar_header(path, EntryKind.DIRECTORY, xattrs=_opaque(index, path))
    for entry in reader:
        names = index.names_of(entry)
        if names:
            yield from _entry(reader, entry, names, index)
    for path in index.whiteouts():
        yield tar_header(path, EntryKind.CHAR_DEVICE, mode=0)
    yield END_MARK


def _entry(
    reader: TarReader, entry: TarEntry, names: list[bytes], index: LayerIndex
) -> Iterator[bytes]:
    first, *others = names
    is_directory = entry.kind is EntryKind.DIRECTORY
    yield tar_header(
        first,
        entry.kind,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime_s=clamp_time(entry.mtime_s),
        size_bytes=entry.size_bytes,
        link=entry.link if entry.kind is EntryKind.SYMLINK else b"",
        device=entry.device,
        xattrs=_kept_xattrs(entry) | (_opaque(index, first) if is_directory else {}),
    )
    yield from reader.content()
    if fill := padding(entry.size_bytes):
        yield fill
    for name in others:
        yield tar_header(name, EntryKind.HARD_LINK, link=first)


def _kept_xattrs(entry: TarEntry) -> dict[bytes, bytes]:
    """Attributes that a layer may bring: never overlayfs's own, which would steer the mount."""
    return {
        name: value
        for name, value in entry.xattrs.items()
        if name.startswith(_KEPT_PREFIXES) and not name.startswith(_OVERLAY_PREFIXES)
    }


def _opaque(index: LayerIndex, path: bytes) -> dict[bytes, bytes]:
    return {OPAQUE_XATTR: b"y"} if index.is_opaque(path) else {}
