"""A container's own layer as Docker shows it: what a start puts there is no change."""

import stat
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from app.guest.protocol import ChangeKind
from app.guest.tree_records import TreeEntry

# Made so that something can be mounted on it (moby, daemon/initlayer: what Docker keeps below the
# container's own layer).
_MOUNT_DIRECTORIES = frozenset({b"dev", b"proc", b"sys"})
_MOUNT_FILES = frozenset({b"etc/hostname", b"etc/hosts", b"etc/resolv.conf"})


@dataclass(frozen=True, slots=True)
class Change:
    """A path that differs from the image."""

    path: str
    kind: ChangeKind


def is_made_by_start(entry: TreeEntry) -> bool:
    """Whether an entry is only there to be mounted on."""
    if entry.name in _MOUNT_DIRECTORIES:
        return entry.is_directory
    return entry.name in _MOUNT_FILES and stat.S_ISREG(entry.mode) and entry.size_bytes == 0


def changes_of(entries: Iterable[TreeEntry]) -> Sequence[Change]:
    """Docker's list of changes, sorted.

    A directory is a change of its own if its mode or time differs, and as the parent of what was
    added or deleted (moby, pkg/archive/changes.go). `/etc` is none if only mount points were made
    in it.
    """
    kept = [entry for entry in entries if not is_made_by_start(entry)]
    kinds = {
        entry.name: entry.change
        for entry in kept
        if entry.change is not None and entry.change is not ChangeKind.SAME
    }
    for entry in kept:
        parent = entry.name.rpartition(b"/")[0]
        if entry.change in (ChangeKind.ADDED, ChangeKind.DELETED) and parent:
            kinds.setdefault(parent, ChangeKind.MODIFIED)
    parents = {entry.name.rpartition(b"/")[0] for entry in kept}
    if kinds.get(b"etc") is ChangeKind.MODIFIED and b"etc" not in parents:
        del kinds[b"etc"]
    return [
        Change("/" + name.decode("utf-8", "surrogateescape"), kind)
        for name, kind in sorted(kinds.items())
    ]


def layer_name(entry: TreeEntry, changed: Collection[bytes]) -> bytes | None:
    """An entry's name in the layer; None for what is no part of it."""
    if entry.name == b"." or is_made_by_start(entry):
        return None
    if entry.name == b"etc" and entry.name not in changed:
        return None
    return entry.name
